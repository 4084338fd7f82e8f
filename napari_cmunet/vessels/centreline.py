"""From a centreline and its half widths to the pixels of a vessel."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d


def length(points: np.ndarray) -> float:
    """Length in pixels of a curve of points (N, 2)."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum()) if len(points) > 1 else 0.0


def resample(points: np.ndarray, spacing: float = 1.0) -> np.ndarray:
    """Points (N, 2) along a curve, evenly spaced; both ends stay."""
    points = np.asarray(points, float)
    if len(points) < 2:
        return points
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(2, round(along[-1] / spacing) + 1)
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, axis) for axis in points.T], axis=1)


def smooth(points: np.ndarray, sigma: float) -> np.ndarray:
    """Take the stairs of a pixel path away; both ends stay where they are."""
    if len(points) < 3:
        return np.asarray(points, float)
    # Mirrored through the ends, so that those are not drawn inwards.
    pad = min(len(points) - 1, int(4 * sigma) + 1)
    before = 2 * points[0] - points[pad:0:-1]
    after = 2 * points[-1] - points[-2 : -pad - 2 : -1]
    padded = np.concatenate([before, points, after])
    return gaussian_filter1d(padded, sigma, axis=0)[pad : pad + len(points)]


def normals(points: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 2) at right angles to a curve of two points or more."""
    along = np.gradient(np.asarray(points, float), axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def tube(
    points: np.ndarray, radii: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose centre lies in one of the discs along a curve.

    Parameters
    ----------
    points : float array (N, 2)
        About one pixel from point to point.
    radii : float array (N,)
        In pixels.
    shape : tuple of int
        Of the frame; what lies outside is left out.

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
    # A vessel that is there is one pixel wide at least.
    hit = away <= (np.maximum(radii, 0.71) ** 2)[:, None, None]
    which, r, c = np.nonzero(hit)
    inside[rows[which, r] - top, columns[which, c] - left] = True
    rows, columns = np.nonzero(inside)
    rows, columns = rows + top, columns + left
    fits = (rows >= 0) & (columns >= 0) & (rows < shape[0]) & (columns < shape[1])
    return rows[fits], columns[fits]
