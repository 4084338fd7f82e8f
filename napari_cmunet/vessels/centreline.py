"""Centrelines, and the pixels of a vessel of given half widths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_SNAP = 8  # a point is this far from the mask at most


def length(points: np.ndarray) -> float:
    """Length in pixels of a curve of points (N, 2)."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum()) if len(points) > 1 else 0.0


def resample(points: ArrayLike, spacing: float = 1.0) -> np.ndarray:
    """Resample a curve (N, 2) at even spacing, keeping both ends."""
    points = np.asarray(points, float)
    if len(points) < 2:
        return points
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(2, round(along[-1] / spacing) + 1)
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, axis) for axis in points.T], axis=1)


def smooth(points: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth a pixel path, keeping both ends."""
    if len(points) < 3:
        return np.asarray(points, float)
    # Point reflection at the ends keeps them from being drawn inwards.
    pad = min(len(points) - 1, int(4 * sigma) + 1)
    before = 2 * points[0] - points[pad:0:-1]
    after = 2 * points[-1] - points[-2 : -pad - 2 : -1]
    padded = np.concatenate([before, points, after])
    return scipy.ndimage.gaussian_filter1d(padded, sigma, axis=0)[
        pad : pad + len(points)
    ]


def normals(points: np.ndarray) -> np.ndarray:
    """Unit normals (N, 2) of a curve of at least two points."""
    along = np.gradient(np.asarray(points, float), axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def path_between(
    mask: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray | None:
    """Pixels (N, 2) of the centreline of a mask from one point of it to another.

    None if the points do not lie in one component, or beside the mask.
    """
    from skimage.graph import MCP_Geometric  # slow to import

    inside = scipy.ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ends = []
    for point in (start, end):
        at = np.clip(np.round(point), 0, np.array(mask.shape) - 1).astype(int)
        low = np.maximum(at - _SNAP, 0)
        window = inside[low[0] : at[0] + _SNAP + 1, low[1] : at[1] + _SNAP + 1]
        if not window.any():
            return None
        rows, columns = np.nonzero(window)
        nearest = np.hypot(rows + low[0] - at[0], columns + low[1] - at[1]).argmin()
        ends.append((rows[nearest] + low[0], columns[nearest] + low[1]))
    cost = np.where(mask, 1 / np.maximum(inside, 0.5) ** 2, -1)  # -1: impassable
    search = MCP_Geometric(cost)
    total, _ = search.find_costs([ends[0]], [ends[1]])
    if not np.isfinite(total[ends[1]]):
        return None
    return np.array(search.traceback(ends[1]))


def tube(
    points: np.ndarray, radii: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose centre lies in a disc along a curve.

    Parameters
    ----------
    points : float array (N, 2)
        With a spacing of about one pixel.
    radii : float array (N,)
        In pixels.
    shape : tuple of int
        Of the frame; pixels outside are left out.

    Returns
    -------
    rows, columns : int arrays
    """
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    reach = int(np.ceil(radii.max())) + 1
    top, left = np.floor(points.min(axis=0)).astype(int) - reach
    bottom, right = np.ceil(points.max(axis=0)).astype(int) + reach + 1
    inside = np.zeros((bottom - top, right - left), bool)
    span = np.arange(-reach, reach + 1)
    base = np.round(points).astype(int)
    rows = base[:, 0, None] + span
    columns = base[:, 1, None] + span
    away = (rows - points[:, :1])[:, :, None] ** 2
    away = away + (columns - points[:, 1:])[:, None, :] ** 2
    # At least one pixel wide.
    hit = away <= (np.maximum(radii, 0.71) ** 2)[:, None, None]
    which, r, c = np.nonzero(hit)
    inside[rows[which, r] - top, columns[which, c] - left] = True
    rows, columns = np.nonzero(inside)
    rows, columns = rows + top, columns + left
    fits = (rows >= 0) & (columns >= 0) & (rows < shape[0]) & (columns < shape[1])
    return rows[fits], columns[fits]
