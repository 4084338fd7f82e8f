"""Contrast agent on its way through the tree: wash-in, plateau, wash-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bolus:
    """One injection.

    Attributes
    ----------
    start
        When contrast reaches the ostium (s).
    duration
        How long it is injected (s).
    speed
        Speed of contrast in the proximal artery (mm/s).
    washout
        Time constant (s) with which blood clears it afterwards.
    """

    start: float
    duration: float
    speed: float
    washout: float

    def density(self, time: float, distance: np.ndarray) -> np.ndarray:
        """Return contrast (0..1) at ``time`` for ways (mm) from the ostium.

        Blood slows down in the branches, so the delay grows faster than the way,
        and the front grows softer on it.
        """
        delay = distance / self.speed * (1 + distance / 220)
        since = time - self.start - delay
        rise = 0.22 + 0.35 * delay
        filling = _smooth(since / rise)
        over = np.maximum(since - self.duration - 0.3 * delay, 0)
        return filling * np.exp(-((over / self.washout) ** 1.3))


def make_bolus(rng: np.random.Generator, seconds: float) -> Bolus:
    """Draw an injection that fits a cine of ``seconds``: empty, full, clearing."""
    start = seconds * rng.uniform(0.04, 0.12)
    duration = seconds * rng.uniform(0.45, 0.62)
    # A short cine is not a faster heart, but it has to fill before it ends.
    speed = max(rng.uniform(130, 230), 260 / (0.42 * seconds))
    return Bolus(start, duration, speed, 0.16 * seconds * rng.uniform(0.7, 1.5))


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
