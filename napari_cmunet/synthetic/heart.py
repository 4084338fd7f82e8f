"""Contrast agent on its way through the tree: wash-in, plateau, wash-out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

RING = np.deg2rad(-18.0)
"""Latitude of the atrioventricular groove, where RCA and LCx run."""


@dataclass(frozen=True)
class Heart:
    """Size, pose and state of contraction of the heart.

    Attributes
    ----------
    axes
        Rows are unit vectors: to the anterior groove, to the left lateral wall,
        to the apex.
    radii
        Half lengths (mm) along those three vectors.
    centre
        Middle of the ellipsoid (mm).
    twist
        Turn of the apex about the long axis (radians).
    """

    axes: np.ndarray
    radii: tuple[float, float, float]
    centre: np.ndarray
    twist: float = 0.0

    def to_patient(self, local: np.ndarray) -> np.ndarray:
        """Return patient coordinates (n, 3) of local points (phi, theta, rho)."""
        phi, theta, rho = local.T
        phi = phi + self.twist * theta / (np.pi / 2)
        front, side, length = self.radii
        across = rho * np.cos(theta)
        own = np.stack(
            [
                front * across * np.cos(phi),
                side * across * np.sin(phi),
                length * np.sin(theta) * (0.5 + 0.5 * rho),
            ],
            axis=1,
        )
        return own @ self.axes + self.centre

    def contracted(self, amount: float) -> Heart:
        """Return the heart at a contraction between 0 (full) and 1 (systole).

        The apex stays nearly where it is and the base comes down to it, which
        is what carries the grooves along in an angiogram.
        """
        front, side, length = self.radii
        shorter = 0.13 * amount
        return replace(
            self,
            radii=(
                front * (1 - 0.13 * amount),
                side * (1 - 0.15 * amount),
                length * (1 - shorter),
            ),
            centre=self.centre + self.axes[2] * length * shorter * 0.9,
            twist=self.twist + np.deg2rad(11.0) * amount,
        )

    def moved(self, shift: np.ndarray) -> Heart:
        """Return the heart shifted by ``shift`` (mm), as breathing does."""
        return replace(self, centre=self.centre + shift)


def make_heart(rng: np.random.Generator) -> Heart:
    """Draw a heart: size and pose differ from patient to patient."""
    apex = np.array([0.64, -0.60, -0.48]) + rng.normal(0, 0.09, 3)
    apex /= np.linalg.norm(apex)
    front = np.array([0.08, -0.58, 0.81]) + rng.normal(0, 0.09, 3)
    front -= apex * (front @ apex)
    front /= np.linalg.norm(front)
    side = np.cross(front, apex)
    size = rng.uniform(0.95, 1.2)
    radii = (
        size * rng.uniform(38, 44),
        size * rng.uniform(40, 47),
        size * rng.uniform(53, 64),
    )
    return Heart(np.stack([front, side, apex]), radii, np.zeros(3))


def contraction(phase: np.ndarray | float) -> np.ndarray:
    """Return contraction 0..1 for a phase of the heartbeat (cycles).

    Systole takes about a third of the beat; relaxation is quick at first, then
    the heart rests until the next beat.
    """
    phase = np.mod(phase, 1.0)
    rise = np.sin(np.clip(phase / 0.36, 0, 1) * np.pi / 2) ** 2
    fall = np.cos(np.clip((phase - 0.36) / 0.26, 0, 1) * np.pi / 2) ** 2
    return rise * fall


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
