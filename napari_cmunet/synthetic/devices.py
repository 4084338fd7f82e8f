"""Things that are not the patient: catheter, wires, leads, electrodes, clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from napari_cmunet.synthetic.c_arm import CArm, draw, join, tube


@dataclass(frozen=True)
class Catheter:
    """A guiding catheter from the ostium back to where it entered the aorta.

    Attributes
    ----------
    points
        Path (n, 3) in mm at rest, the tip first.
    radius
        Outer radius (mm) along it.
    wall
        Attenuation of the empty catheter relative to one full of contrast.
    """

    points: np.ndarray
    radius: np.ndarray
    wall: float

    def at(self, shift: np.ndarray) -> np.ndarray:
        """Return the path while the ostium is displaced by ``shift`` (mm)."""
        way = 0.5 * np.arange(len(self.points))
        return self.points + np.exp(-((way / 28) ** 2))[:, None] * shift

    def thickness(self, view: CArm, shift: np.ndarray, filled: float) -> np.ndarray:
        """Return its thickness map (mm of full contrast)."""
        points = self.at(shift)
        outer = tube(view, points, self.radius)
        total, _ = draw(outer, view.size)
        inner = tube(view, points, self.radius * 0.7)
        lumen, _ = draw(inner, view.size)
        hollow = self.wall * (total - 0.55 * lumen)
        return (hollow + filled * (0.8 * lumen - 0.25 * hollow)) * view.pitch


def make_catheter(
    rng: np.random.Generator, trunk: np.ndarray, calibre: float
) -> Catheter:
    """Lay a catheter into the ostium at which ``trunk`` (n, 3) begins."""
    ostium = trunk[0]
    back = trunk[0] - trunk[min(12, len(trunk) - 1)]
    back /= np.linalg.norm(back) + 1e-6
    tip = trunk[min(int(rng.integers(2, 8)), len(trunk) - 1)]
    rising = ostium + np.array([-8, -2, 36]) + rng.normal(0, 4, 3)
    turn = ostium + back * rng.uniform(8, 16) + np.array([0, 0, rng.uniform(-6, 10)])
    stops = [tip, ostium, turn, (turn + rising) / 2 + back * 4, rising]
    arch = np.array([-14, 22, 98]) + rng.normal(0, 5, 3)
    if rng.random() < 0.55:  # through the groin: over the arch and down the back
        stops += [
            (rising + arch) / 2 + np.array([-5, -6, 6]),
            arch,
            np.array([-8, 48, 84]) + rng.normal(0, 4, 3),
            np.array([-10, 56, 30]) + rng.normal(0, 4, 3),
            np.array([-14, 57, -40]) + rng.normal(0, 4, 3),
            np.array([-14, 55, -170]),
        ]
    else:  # through the right arm
        stops += [
            (rising + arch) / 2 + np.array([-9, -4, 4]),
            np.array([-32, 8, 104]) + rng.normal(0, 4, 3),
            np.array([-58, 12, 160]),
        ]
    points = _curve(np.array(stops), 0.5)
    radius = np.full(len(points), rng.uniform(0.85, 1.2) * calibre)
    radius[:6] *= np.linspace(0.8, 1, 6)
    return Catheter(points, radius, rng.uniform(0.35, 0.8))


def reflux(view: CArm, ostium: np.ndarray, way: np.ndarray, size: float) -> np.ndarray:
    """Return the cloud (mm of full contrast) that spills back into the aortic root.

    ``way`` is the unit vector from the ostium into the root.
    """
    steps = np.linspace(0, 1, 14)[:, None]
    swirl = np.array([0.0, 0.15, 0.5]) * np.sin(3 * steps)
    points = ostium + size * (steps * way + swirl)
    radius = size * (0.25 + 0.6 * np.sin(np.pi * steps[:, 0]))
    cloud, _ = draw(tube(view, points, radius), view.size)
    cloud = gaussian_filter(cloud, 0.22 * size / view.pitch, truncate=2.0)
    return 0.07 * view.pitch * cloud


def _curve(stops: np.ndarray, step: float) -> np.ndarray:
    knots = np.r_[0, np.cumsum(np.linalg.norm(np.diff(stops, axis=0), axis=1) ** 0.7)]
    knots += 1e-4 * np.arange(len(knots))
    fine = CubicSpline(knots, stops)(np.linspace(0, knots[-1], 900))
    way = np.r_[0, np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))]
    even = np.arange(0, way[-1], step)
    return np.stack([np.interp(even, way, axis) for axis in fine.T], axis=1)


def make_clutter(rng: np.random.Generator, view: CArm, amount: float) -> np.ndarray:
    """Return the attenuation of leads, electrodes, wires and clips now and then.

    ``amount`` scales how often each of them is there.
    """
    field = np.zeros((view.size, view.size), dtype=np.float32)
    tubes = []
    if rng.random() < 0.03 * amount:  # sternal wires: a row of twisted loops
        across = rng.normal(0, 25)
        for level in np.arange(70, -60, -rng.uniform(24, 32)):
            tubes.append(_loop(rng, view, across + rng.normal(0, 2), level))
    for _ in range(rng.poisson(0.3 * amount)):  # an ECG or monitor lead
        tubes.append(_lead(rng, view, rng.uniform(0.5, 1.3), rng.uniform(0.1, 0.5)))
    if rng.random() < 0.06 * amount:  # a pacing lead, denser
        tubes.append(_lead(rng, view, rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.6)))
    for _ in range(rng.poisson(0.12 * amount)):  # surgical clips
        place = rng.uniform(-70, 70, 2)
        turn = rng.uniform(0, np.pi)
        reach = np.array([np.cos(turn), np.sin(turn)]) * rng.uniform(1.5, 3.5)
        line = np.linspace(place - reach, place + reach, 12)
        tubes.append(_flat_tube(view, line, 0.35, 4.0))
    if tubes:
        samples = join(tubes)
        drawn, _ = draw(samples, view.size)
        field += 0.25 * view.pitch * drawn
    if rng.random() < 0.06 * amount:
        field += _electrode(rng, view)
    return field


def _flat_tube(view: CArm, line: np.ndarray, radius: float, dense: float):
    right, up, _ = view.basis
    points = line[:, :1] * right + line[:, 1:] * up
    return tube(view, points, np.full(len(points), radius), dense)


def _lead(rng: np.random.Generator, view: CArm, radius: float, dense: float):
    """Draw a cable from one side of the image to another."""
    turn = rng.uniform(0, 2 * np.pi)
    reach = 0.75 * view.size * view.pitch
    heading = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-heading[1], heading[0]]) * rng.normal(0, 0.5) * reach
    stops = np.linspace(-reach, reach, 6)[:, None] * heading + across
    stops = stops + rng.normal(0, 7, stops.shape)
    line = CubicSpline(np.arange(6), stops)(np.linspace(0, 5, 300))
    return _flat_tube(view, line, radius, dense)


def _loop(rng: np.random.Generator, view: CArm, across: float, level: float):
    """Draw a sternal wire: a dented loop whose ends are twisted together."""
    turn = np.linspace(0, 2 * np.pi * rng.uniform(0.75, 1.0), 80)
    turn = turn + rng.uniform(0, 6)
    width, height = rng.uniform(5, 10), rng.uniform(2.5, 6)
    dent = (
        1 + rng.normal(0, 0.12) * np.cos(2 * turn) + rng.normal(0, 0.1) * np.sin(turn)
    )
    line = np.stack(
        [across + width * dent * np.cos(turn), level + height * dent * np.sin(turn)],
        axis=1,
    )
    lean = rng.normal(0, 0.25)
    line[:, 1] += lean * (line[:, 0] - across)
    twist = line[-1] + np.cumsum(rng.normal(0, 0.45, (10, 2)), axis=0)
    return _flat_tube(view, np.concatenate([line, twist]), 0.36, 3.0)


def _electrode(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw the press stud of an ECG electrode: concentric rings."""
    place = rng.uniform(0.05, 0.95, 2) * view.size
    line = np.arange(view.size, dtype=np.float32)
    gap = np.hypot(line[None, :] - place[0], line[:, None] - place[1]) * view.pitch
    size = rng.uniform(4.0, 6.5)
    disc = 0.5 - 0.5 * np.tanh((gap - size) / 0.4)
    ring = np.exp(-(((gap - 0.55 * size) / 0.6) ** 2)) + np.exp(
        -(((gap - 0.15 * size) / 0.5) ** 2)
    )
    return (rng.uniform(0.1, 0.3) * disc + rng.uniform(0.2, 0.6) * ring).astype(
        np.float32
    )
