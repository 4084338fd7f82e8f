"""Coronary trees: which arteries there are, where they run, how wide they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsInt

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from napari_cmunet.synthetic.heart import RING, Heart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


@dataclass(frozen=True)
class TreeStyle:
    """What may differ from tree to tree.

    Attributes
    ----------
    side
        ``"left"`` or ``"right"``.
    calibre
        Factor on all diameters.
    richness
        Factor on the number of side branches and twigs.
    tortuosity
        Factor on how much the arteries wind.
    disease
        Expected number of stenoses.
    """

    side: str
    calibre: float = 1.0
    richness: float = 1.0
    tortuosity: float = 1.0
    disease: float = 1.2


class TreeMaker:
    """Draws one coronary tree on a heart from one random generator."""

    def __init__(self, heart: Heart, style: TreeStyle, rng: np.random.Generator):
        self.heart = heart
        self.style = style
        self.rng = rng

    def make(self) -> list[Vessel]:
        """Return all arteries of the tree, the trunk first."""
        root = self._left() if self.style.side == "left" else self._right()
        rng = self.rng
        width = (
            rng.uniform(1.95, 2.5)
            if self.style.side == "left"
            else (rng.uniform(1.7, 2.35))
        )
        give_calibre(root, width * self.style.calibre)
        vessels = list(root.walk())
        roughen(vessels, rng)
        narrow(vessels, self.style.disease, rng)
        return vessels

    # The named arteries ---------------------------------------------------

    def _left(self) -> Vessel:
        rng = self.rng
        fork = np.array([rng.uniform(0.06, 0.12) * np.pi, RING + 0.06, 0.98])
        ostium = np.array([0.16 * np.pi, RING - rng.uniform(0.0, 0.22), 0.55])
        left_main = Vessel("LM", self._through([ostium, (ostium + fork) / 2, fork], 0))
        end = np.deg2rad(rng.uniform(70, 118))
        wander = rng.normal(0, 0.05, 3) * np.pi
        lad = Vessel(
            "LAD",
            self._through(
                [
                    fork,
                    [0.02 * np.pi + wander[0] * 0.5, RING + 0.35, 1.01],
                    [wander[1] * 0.7, 0.45 * end, 1.0],
                    [wander[2], 0.75 * end, 1.0],
                    [wander[2] * 0.6 + rng.normal(0, 0.1), end, 1.0],
                ],
                0.7,
            ),
            share=rng.uniform(0.76, 0.86),
            at=1.0,
        )
        reach = rng.choice([rng.uniform(0.45, 0.7), rng.uniform(0.7, 0.98)])
        dominant = rng.random() < 0.15
        reach = 0.97 if dominant else reach
        level = RING + rng.normal(0, 0.05, 3)
        lcx = Vessel(
            "LCx",
            self._through(
                [
                    fork,
                    [0.18 * np.pi, level[0] - 0.02, 1.0],
                    [(0.2 + 0.4 * (reach - 0.2)) * np.pi, level[1], 1.0],
                    [(0.2 + 0.75 * (reach - 0.2)) * np.pi, level[2], 1.0],
                    [reach * np.pi, RING + rng.uniform(0.0, 0.25), 1.0],
                ],
                0.9,
            ),
            share=rng.uniform(0.68, 0.85),
            at=1.0,
        )
        left_main.children = [lad, lcx]
        for at in self._places(0.12, 0.72, rng.integers(2, 5)):
            self._branch(lad, at, "D", (0.75, 0.9), (28, 62), (0.45, 0.72))
        for at in self._places(0.1, 0.7, rng.integers(3, 9)):
            self._septal(lad, at, down=True)
        for at in self._places(0.18, 0.92, rng.integers(2, 5)):
            self._branch(lcx, at, "OM", (0.25, 1.0), (30, 68), (0.55, 0.85))
        for at in self._places(0.1, 0.8, rng.integers(0, 3)):
            self._branch(lcx, at, "LA", (0.3, -1.0), (18, 40), (0.28, 0.42), 1.8)
        if rng.random() < 0.3:
            self._branch(left_main, 0.99, "RI", (0.5, 0.85), (40, 70), (0.5, 0.7))
        if dominant:
            pda = self._branch(lcx, 0.93, "PDA", (0.1, 1.0), (45, 70), (0.6, 0.8))
            for at in self._places(0.2, 0.8, 4):
                self._septal(pda, at, down=False)
        self._twigs(lad, 4)
        return self._crown(left_main)

    def _right(self) -> Vessel:
        rng = self.rng
        ostium = np.array([-0.2 * np.pi, RING - rng.uniform(-0.05, 0.15), 0.5])
        level = RING + rng.normal(0, 0.06, 4)
        bow = rng.uniform(1.0, 1.12)
        rca = Vessel(
            "RCA",
            self._through(
                [
                    ostium,
                    [-0.23 * np.pi, level[0] - 0.1, 0.85],
                    [-0.32 * np.pi, level[0], 1.02],
                    [-0.48 * np.pi, level[1], bow],
                    [-0.68 * np.pi, level[2] + 0.05, bow],
                    [-0.84 * np.pi, level[3] + 0.03, 1.02],
                    [-0.97 * np.pi, RING + 0.06, 1.0],
                ],
                0.8,
            ),
        )
        for at in self._places(0.03, 0.16, rng.integers(1, 3)):
            self._branch(rca, at, "CB", (0.7, 0.5), (18, 45), (0.3, 0.45), 1.3)
        if rng.random() < 0.7:
            self._branch(rca, 0.12, "SN", (0.4, -1.0), (25, 50), (0.25, 0.4), 1.6)
        for at in self._places(0.25, 0.8, rng.integers(2, 6)):
            self._branch(rca, at, "RV", (-0.15, 1.0), (25, 62), (0.32, 0.55))
        if rng.random() < 0.93:
            pda = self._branch(rca, 0.985, "PDA", (-0.3, 1.0), (45, 78), (0.62, 0.8))
            for at in self._places(0.1, 0.85, rng.integers(3, 8)):
                self._septal(pda, at, down=False)
            pl = self._branch(rca, 1.0, "PL", (-1.0, 0.25), (38, 72), (0.7, 0.85), 0.9)
            for at in self._places(0.15, 0.85, rng.integers(1, 4)):
                self._branch(pl, at, "PLB", (-0.35, 1.0), (22, 52), (0.5, 0.8))
        return self._crown(rca)

    # How an artery runs ---------------------------------------------------

    def _places(self, low: float, high: float, some: SupportsInt) -> np.ndarray:
        """Spread about ``some`` origins along an artery, not quite evenly."""
        count = round(int(some) * self.style.richness)
        if count < 1:
            return np.zeros(0)
        slots = np.linspace(low, high, count + 1)
        return slots[:-1] + np.diff(slots) * self.rng.uniform(0.1, 0.9, count)

    def _flat(self, local: np.ndarray, heading: np.ndarray) -> np.ndarray:
        """Turn a step in mm on the surface into a step of (phi, theta, rho)."""
        _, side, length = self.heart.radii
        around = side * max(np.cos(local[1]), 0.4)
        return np.array([heading[0] / around, heading[1] / length, 0.0])

    def _branch(
        self,
        parent: Vessel,
        at: float,
        name: str,
        towards: tuple[float, float],
        length: tuple[float, float],
        share: tuple[float, float],
        winding: float = 1.0,
    ) -> Vessel:
        """Grow a side branch over the surface.

        ``towards`` is its general heading (around the heart, to the apex); it
        leaves the parent at an acute angle and turns that way.
        """
        rng = self.rng
        start, along = self._origin(parent, at)
        goal = np.array(towards) + rng.normal(0, 0.18, 2)
        goal /= np.linalg.norm(goal)
        first = along * rng.uniform(0.5, 1.1) + goal
        first /= np.linalg.norm(first) + 1e-6
        reach = rng.uniform(*length) * self.heart.radii[2] / 58
        reach *= rng.choice([1.0, 1.0, 0.6])
        bend = rng.normal(0, 0.16) * np.array([-goal[1], goal[0]])
        stops = [start]
        for part, turn in ((0.3, 0.25), (0.65, 0.75), (1.0, 1.0)):
            heading = (1 - turn) * first + turn * goal + bend * np.sin(part * np.pi)
            last = stops[-1]
            step = reach * (part - (0.0, 0.3, 0.65)[len(stops) - 1])
            stop = last + self._flat(last, heading * step)
            stop[2] = min(1.02, last[2] + 0.4 * (1.0 - last[2]))
            stops.append(stop)
        child = Vessel(name, self._through(stops, winding), rng.uniform(*share), at)
        parent.children.append(child)
        return child

    def _septal(self, parent: Vessel, at: float, *, down: bool) -> Vessel:
        """Grow a septal branch: thin, fairly straight, into the wall."""
        rng = self.rng
        start, _ = self._origin(parent, at)
        depth = rng.uniform(0.25, 0.75) if down else rng.uniform(0.2, 0.45)
        lean = rng.uniform(0.05, 0.35)
        end = start + np.array([rng.normal(0, 0.12), lean, -depth])
        middle = (start + end) / 2 + np.array([rng.normal(0, 0.05), -0.2 * lean, 0.03])
        child = Vessel(
            "S", self._through([start, middle, end], 0.4), rng.uniform(0.2, 0.4), at
        )
        parent.children.append(child)
        return child

    def _twigs(self, vessel: Vessel, count: int) -> None:
        for at in self._places(0.2, 0.97, count):
            side = self.rng.choice([-1.0, 1.0])
            towards = (side * self.rng.uniform(0.4, 1.2), self.rng.uniform(0.1, 1.0))
            self._branch(vessel, at, "t", towards, (7, 26), (0.22, 0.5), 1.3)

    def _crown(self, root: Vessel) -> Vessel:
        """Give every named branch its twigs, and those twigs of their own."""
        stack = list(root.children)
        while stack:
            vessel = stack.pop()
            stack.extend(vessel.children)
            if vessel.name == "S":
                continue
            per_mm = 1 / (14 if vessel.name in ("t", "tt") else 17)
            count = int(vessel.length * per_mm * self.rng.uniform(0.5, 1.5))
            if vessel.name == "tt" or vessel.length < 10:
                continue
            before = len(vessel.children)
            self._twigs(vessel, count)
            if vessel.name == "t":
                for child in vessel.children[before:]:
                    child.name = "tt"
        return root

    def _origin(self, parent: Vessel, at: float) -> tuple[np.ndarray, np.ndarray]:
        index = round(at * (len(parent.local) - 1))
        back, ahead = max(index - 6, 0), min(index + 6, len(parent.local) - 1)
        step = parent.local[ahead] - parent.local[back]
        _, side, length = self.heart.radii
        mid = parent.local[index]
        along = np.array([step[0] * side * max(np.cos(mid[1]), 0.4), step[1] * length])
        return mid, along / (np.linalg.norm(along) + 1e-6)

    def _through(self, stops: Sequence[Any], winding: float) -> np.ndarray:
        """Lay a smooth, winding centreline through ``stops``, STEP apart."""
        points = np.asarray(stops, dtype=float)
        corner = self.heart.to_patient(points)
        knots = np.r_[0, np.cumsum(np.linalg.norm(np.diff(corner, axis=0), axis=1))]
        knots[1:] += 1e-3 * np.arange(1, len(knots))
        fine = CubicSpline(knots, points)(np.linspace(0, knots[-1], 400))
        local = _resample(self.heart, fine)
        if winding == 0:
            return local
        rng = self.rng
        count = len(local)
        way = np.arange(count) * STEP
        strength = winding * self.style.tortuosity * rng.lognormal(0, 0.35)
        grow = np.clip(way / max(way[-1], 1), 0.15, 1) ** 0.8
        grow = grow * np.clip(way / 6.0, 0, 1) * strength
        offset = np.zeros((count, 3))
        for wave, size in ((3.5, 0.35), (8.0, 1.1), (16.0, 1.7), (30.0, 2.1)):
            noise = rng.standard_normal((count + 8, 3))
            noise = gaussian_filter1d(noise, wave / STEP / 2.5, axis=0)[4:-4]
            noise /= noise.std() + 1e-6
            offset += size * noise
        if rng.random() < 0.14:  # a corkscrew, as in long-standing hypertension
            wave = rng.uniform(7, 12)
            turns = 2 * np.pi * way / wave + rng.uniform(0, 6)
            late = np.clip((way / way[-1] - rng.uniform(0.2, 0.6)) * 4, 0, 1)
            size = rng.uniform(0.8, 1.9)
            offset[:, 0] += late * size * np.sin(turns)
            offset[:, 1] += late * size * np.cos(turns + 0.8)
        _, side, length = self.heart.radii
        offset *= grow[:, None]
        local[:, 0] += offset[:, 0] / (side * np.maximum(np.cos(local[:, 1]), 0.4))
        local[:, 1] += offset[:, 1] / length
        local[:, 2] += 0.3 * offset[:, 2] / side
        return _resample(self.heart, local)


def _resample(heart: Heart, local: np.ndarray) -> np.ndarray:
    points = heart.to_patient(local)
    way = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    count = max(int(way[-1] / STEP) + 1, 4)
    even = np.linspace(0, way[-1], count)
    return np.stack([np.interp(even, way, local[:, k]) for k in range(3)], axis=1)
