"""From a centreline and its half widths to the pixels of a vessel."""

from __future__ import annotations

import numpy as np


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
