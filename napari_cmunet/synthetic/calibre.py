"""How wide the arteries are: Murray's law, taper, rough walls, stenoses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = 0.5
"""Distance (mm) between samples of a centreline."""


@dataclass
class Vessel:
    """One artery from its origin to its end.

    Attributes
    ----------
    local
        Centreline (n, 3) in the heart's own coordinates.
    radius
        Radius of the lumen (mm) at each sample.
    distance
        Way (mm) that contrast has gone from the ostium to each sample.
    covered
        Length (mm) of its beginning that lies inside the parent's lumen.
    """

    name: str
    local: np.ndarray
    share: float = 1.0
    at: float = 0.0
    radius: np.ndarray = field(default_factory=lambda: np.zeros(0))
    distance: np.ndarray = field(default_factory=lambda: np.zeros(0))
    covered: float = 0.0
    children: list[Vessel] = field(default_factory=list)

    @property
    def length(self) -> float:
        """Length (mm) of the relaxed artery."""
        return STEP * (len(self.local) - 1)

    def walk(self) -> Iterator[Vessel]:
        """Yield this artery and all that come from it."""
        yield self
        for child in self.children:
            yield from child.walk()


def give_calibre(vessel: Vessel, width: float, way: float = 0.0) -> None:
    """Set radii by Murray's law, from the root to the twigs.

    At each branch the cube of the radius is shared: what the branch takes, the
    artery behind it has less. Between branches it tapers slowly, for the many
    branches too thin to draw.
    """
    count = len(vessel.local)
    radius = np.empty(count)
    current = width
    position = 0
    taper = np.exp(-0.0035 * STEP)
    vessel.distance = way + np.arange(count) * STEP
    for child in sorted(vessel.children, key=lambda c: c.at):
        index = min(round(child.at * (count - 1)), count - 1)
        run = np.arange(max(index - position, 0))
        radius[position : position + len(run)] = current * taper**run
        current *= taper ** len(run)
        position += len(run)
        share = min(child.share, 0.93)
        give_calibre(child, current * share, vessel.distance[index])
        child.covered = 0.8 * current
        if child.at < 0.97:
            current *= (1 - share**3) ** (1 / 3)
    radius[position:] = current * taper ** np.arange(count - position)
    radius = gaussian_filter1d(radius, 3, mode="nearest")
    if not any(child.at > 0.97 for child in vessel.children):
        end = np.arange(count)[::-1] * STEP
        fade = 0.35 * vessel.length + 1e-6
        radius *= 0.45 + 0.55 * np.clip(end / fade, 0, 1)
    vessel.radius = np.maximum(radius, 0.14)


def roughen(vessels: list[Vessel], rng: np.random.Generator) -> None:
    """Make the walls uneven, some patients' more than others'."""
    amount = rng.uniform(0.04, 0.12)
    for vessel in vessels:
        noise = rng.standard_normal(len(vessel.radius) + 20)
        noise = gaussian_filter1d(noise, 5)[10:-10]
        noise /= noise.std() + 1e-6
        vessel.radius = vessel.radius * (1 + amount * noise).clip(0.7, 1.3)


def narrow(vessels: list[Vessel], expected: float, rng: np.random.Generator) -> None:
    """Put stenoses, ``expected`` of them on average, into the larger arteries."""
    large = [v for v in vessels if v.radius.mean() > 0.6 and v.length > 18]
    for _ in range(rng.poisson(expected) if large else 0):
        vessel = large[rng.integers(len(large))]
        way = np.arange(len(vessel.radius)) * STEP
        middle = rng.uniform(0.08, 0.85) * vessel.length
        span = rng.uniform(1.5, 6.0)
        depth = rng.uniform(0.25, 0.85)
        shape = np.exp(-(np.abs((way - middle) / span) ** rng.uniform(1.6, 4.0)))
        vessel.radius = vessel.radius * (1 - depth * shape)
