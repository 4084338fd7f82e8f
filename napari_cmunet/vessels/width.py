"""Width of a vessel along a path, from its edges in image and probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from napari_cmunet.vessels.centreline import normals

if TYPE_CHECKING:
    from napari_cmunet.vessels.vesselness import FrameFeatures

MAX_RADIUS = 11.0
"""Largest half width, in pixels of the working grid."""

MIN_RADIUS = 1.0
"""Smallest half width; annotators draw no vessel thinner than two pixels."""

MAX_SHIFT = 3.0
"""Largest distance of the centre from the path, in pixels of the working grid."""

_SPACING = 0.25
_ALONG = 3.0
_BEND = 0.12
_INWARDS = 0.06
_ACROSS = 0.7
_TRUST = 0.6
_OFF_PATH = 0.05


@dataclass(frozen=True)
class Lumen:
    """Centreline and half widths of a vessel.

    Parameters
    ----------
    centre : float array (N, 2)
        Points midway between the two edges.
    radii : float array (N,)
        Half widths in pixels.
    """

    centre: np.ndarray
    radii: np.ndarray


def measure_lumen(features: FrameFeatures, path: np.ndarray) -> Lumen:
    """Measure the vessel along a path from its two edges.

    The edges are where grey values and probability change most along a profile across
    the path. Dynamic programming along the path finds first the centre, then the half
    width, both smooth.

    Parameters
    ----------
    features : FrameFeatures
    path : float array (N, 2)
        With a spacing of about one pixel.
    """
    path = np.asarray(path, float)
    step = features.step
    if len(path) < 3:
        return Lumen(path, np.full(len(path), 1.0 * step))
    across = normals(path)
    most = round((MAX_RADIUS + MAX_SHIFT) / _SPACING)
    offsets = np.arange(-most, most + 1) * _SPACING * step
    edge = _edges(features, path[:, None] + offsets[None, :, None] * across[:, None])
    count = round(MAX_RADIUS / _SPACING)
    radii = np.arange(1, count + 1) * _SPACING * step
    # Favour the inner of two edges: the outer may belong to a neighbour.
    price = _INWARDS * radii / step
    shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 0.1, 0.5)
    around = np.stack(
        [_around(edge, most + round(s / _SPACING), count) + price for s in shifts]
    )
    away = _OFF_PATH * np.abs(shifts)
    middle = _smoothest(around.min(axis=2).T + away)
    cost = around[middle, np.arange(len(path))]
    half = gaussian_filter1d(radii[_smoothest(cost)], 2.0 * step, mode="nearest")
    moved = gaussian_filter1d(shifts[middle] * step, 3.0 * step, mode="nearest")
    return Lumen(path + moved[:, None] * across, np.maximum(half, MIN_RADIUS * step))


def _edges(features: FrameFeatures, where: np.ndarray) -> np.ndarray:
    """Slope along profiles (N, M, 2): to brighter, and to less probable pixels."""
    where = np.moveaxis(where, -1, 0)
    grey = map_coordinates(features.grey, where, order=1, mode="nearest")
    probability = map_coordinates(
        features.probability, where, np.float32, 1, mode="nearest"
    )
    slopes = [
        gaussian_filter1d(
            gaussian_filter1d(each, _ALONG * features.step, axis=0),
            _ACROSS / _SPACING,
            axis=1,
            order=1,
        )
        for each in (grey, -probability / 255)
    ]
    # Relative to the strongest edge of each profile; a weak probability counts less.
    return _scaled(slopes[0], 0.02) + _TRUST * _scaled(slopes[1], 0.1)


def _around(edge: np.ndarray, middle: int, count: int) -> np.ndarray:
    """Cost (N, count) of each half width around a column of the profiles."""
    right = edge[:, middle + 1 : middle + 1 + count]
    left = edge[:, middle - count : middle][:, ::-1]
    return (left - right) / 2


def _scaled(slope: np.ndarray, least: float) -> np.ndarray:
    return slope / np.maximum(np.abs(slope).max(axis=1, keepdims=True), least)


def _smoothest(cost: np.ndarray) -> np.ndarray:
    """Column per row of the path with the least cost and little change."""
    rows, columns = cost.shape
    back = np.zeros((rows, columns), np.int8)
    total = cost[0].copy()
    options = np.empty((3, columns))
    for row in range(1, rows):
        options[1] = total
        options[0, 1:] = total[:-1] + _BEND
        options[0, 0] = np.inf
        options[2, :-1] = total[1:] + _BEND
        options[2, -1] = np.inf
        choice = options.argmin(axis=0)
        total = options[choice, np.arange(columns)] + cost[row]
        back[row] = choice - 1
    chosen = np.empty(rows, int)
    chosen[-1] = total.argmin()
    for row in range(rows - 1, 0, -1):
        chosen[row - 1] = chosen[row] + back[row, chosen[row]]
    return chosen
