"""The C-arm: from millimetres in the patient to thickness maps on the detector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class CArm:
    """A view: angles, distances, and what a pixel measures.

    Attributes
    ----------
    lao, cranial
        Angulation in degrees; negative values are RAO and caudal.
    pitch
        Millimetres per pixel in the plane of the isocentre.
    centre
        Image position (column, row) onto which the origin falls.
    size
        Pixels along each side of the square image.
    source
        Distance (mm) from the X-ray source to the isocentre.
    """

    lao: float
    cranial: float
    pitch: float
    centre: tuple[float, float]
    size: int
    source: float = 750.0

    @property
    def basis(self) -> np.ndarray:
        """Rows: image right, image up, and the ray towards the detector."""
        a, b = np.deg2rad(self.lao), np.deg2rad(self.cranial)
        right = np.array([np.cos(a), np.sin(a), 0.0])
        level = np.array([np.sin(a), -np.cos(a), 0.0])
        head = np.array([0.0, 0.0, 1.0])
        ray = np.cos(b) * level + np.sin(b) * head
        up = np.cos(b) * head - np.sin(b) * level
        return np.stack([right, up, ray])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return image positions (n, 2) as (column, row), and pixels per mm."""
        right, up, depth = self.basis @ points.T
        scale = self.source / (self.source + depth) / self.pitch
        place = np.stack(
            [self.centre[0] + right * scale, self.centre[1] - up * scale], axis=1
        )
        return place, scale


def ellipsoid_thickness(
    view: CArm, middle: np.ndarray, axes: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Return the chord (mm) of every ray through an ellipsoid, as an image."""
    shape = (axes.T / np.asarray(radii, dtype=float) ** 2) @ axes
    right, up, ray = view.basis
    columns, rows = _grid(view.size)
    u = (columns - view.centre[0]) * view.pitch - right @ middle
    v = (view.centre[1] - rows) * view.pitch - up @ middle
    rr, uu, ray2 = right @ shape @ right, up @ shape @ up, ray @ shape @ ray
    ru, rd, ud = right @ shape @ up, right @ shape @ ray, up @ shape @ ray
    # u is a row and v a column: terms in one of them alone stay one-dimensional.
    root = (u * u) * (rd * rd - ray2 * rr) + (v * v) * (ud * ud - ray2 * uu) + ray2
    root = root + (u * (2 * (rd * ud - ray2 * ru))) * v
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    root *= 2 / ray2
    return root.astype(np.float32)


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(size, dtype=np.float32)
    return line[None, :], line[:, None]


@lru_cache(maxsize=64)
def _window(half: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(-half, half + 1)
    dy, dx = np.meshgrid(line, line, indexing="ij")
    return dx.ravel(), dy.ravel()


@dataclass(frozen=True)
class Tube:
    """A projected tube: positions and radii in pixels, and what it holds.

    ``density`` is contrast per sample (0 empty, 1 full); ``length`` is the way
    through space (pixels) for which each sample stands.
    """

    place: np.ndarray
    radius: np.ndarray
    density: np.ndarray
    length: np.ndarray


def tube(
    view: CArm,
    points: np.ndarray,
    radius: np.ndarray,
    density: np.ndarray | float = 1.0,
) -> Tube:
    """Project a tube of samples in space and sample it finely enough to draw."""
    place, scale = view.project(points)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    way = np.r_[0, np.cumsum(steps)] * scale.mean()
    thick = radius * scale
    stride = float(np.clip(np.median(thick) / 3.5, 0.4, 1.3))
    count = max(int(way[-1] / stride) + 1, 2)
    even = np.linspace(0, way[-1], count)
    density = np.broadcast_to(density, way.shape)
    return Tube(
        np.stack([np.interp(even, way, place[:, k]) for k in (0, 1)], axis=1),
        np.interp(even, way, thick),
        np.interp(even, way, density),
        np.full(count, way[-1] / max(count - 1, 1)),
    )


def join(tubes: list[Tube]) -> Tube:
    """Return all samples of several tubes as one."""
    return Tube(
        *(
            np.concatenate([getattr(t, name) for t in tubes])
            for name in ("place", "radius", "density", "length")
        )
    )


def draw(
    samples: Tube, size: int, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return thickness (pixels of full contrast) and the mask of ``seen`` samples.

    Each sample is a flat disc whose value is the way it stands for. Along a
    straight tube such discs add up to exactly the chord through a cylinder,
    lengthened where the tube runs along the ray; where arteries cross, they add.
    """
    total = np.zeros(size * size)
    mask = np.zeros(size * size, dtype=bool)
    x, y = samples.place.T
    radius = samples.radius
    inside = (x > -radius) & (x < size + radius) & (y > -radius) & (y < size + radius)
    halves = np.ceil(np.maximum(radius, 0.5) + 0.5).astype(int)
    for half in np.unique(halves[inside]):
        pick = np.flatnonzero(inside & (halves == half))
        dx, dy = _window(int(half))
        column, row = np.rint(x[pick]).astype(int), np.rint(y[pick]).astype(int)
        gap_x = ((column - x[pick])[:, None] + dx).astype(np.float32)
        gap_y = ((row - y[pick])[:, None] + dy).astype(np.float32)
        gap = np.sqrt(gap_x * gap_x + gap_y * gap_y)
        reach = radius[pick].astype(np.float32)[:, None]
        # A disc thinner than a pixel keeps its area by being fainter.
        soft = np.maximum(reach, 0.5)
        cover = np.clip(soft + 0.5 - gap, 0, 1)
        cover *= (reach / soft) ** 2
        column = column[:, None] + dx
        row = row[:, None] + dy
        keep = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        flat = row * size + column
        value = cover * (samples.density * samples.length)[pick, None]
        keep &= cover > 0
        total += np.bincount(flat[keep], value[keep], minlength=size * size)
        if seen is not None:
            keep &= (gap <= soft) & seen[pick, None]
            mask[flat[keep]] = True
    shape = (size, size)
    return total.reshape(shape).astype(np.float32), mask.reshape(shape)
