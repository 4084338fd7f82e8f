"""How wide a vessel is where it runs, from the image and the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from napari_cmunet.vessels.centreline import normals

if TYPE_CHECKING:
    from napari_cmunet.vessels.features import Evidence

WIDEST = 11.0
"""Largest half width looked for, in pixels of the working grid."""

THINNEST = 1.0
"""Smallest half width: readers draw no vessel that is less than two pixels wide."""

FARTHEST = 3.0
"""How far the middle may lie from the path, in pixels of the working grid."""

_SPACING = 0.25
_ALONG = 3.0
_BEND = 0.12
_INWARDS = 0.06
_ACROSS = 0.7
_TRUST = 0.6
_OFF_PATH = 0.05


@dataclass(frozen=True)
class Lumen:
    """Where a vessel runs and how wide it is.

    Parameters
    ----------
    centre : float array (N, 2)
        Points in the middle between the two edges.
    radii : float array (N,)
        Half widths in pixels.
    """

    centre: np.ndarray
    radii: np.ndarray


def find_lumen(evidence: Evidence, path: np.ndarray) -> Lumen:
    """Find both edges of the vessel along a path.

    At each point a line is laid across. The edges are where grey values, and the
    network's probability where it has any, change most from within to without;
    neighbouring points agree on them (dynamic programming over the whole path). First
    the middle is found, then the half width around it.

    Parameters
    ----------
    evidence : Evidence
    path : float array (N, 2)
        About one pixel from point to point.
    """
    path = np.asarray(path, float)
    step = evidence.step
    if len(path) < 3:
        return Lumen(path, np.full(len(path), 1.0 * step))
    across = normals(path)
    most = round((WIDEST + FARTHEST) / _SPACING)
    offsets = np.arange(-most, most + 1) * _SPACING * step
    edge = _edges(evidence, path[:, None] + offsets[None, :, None] * across[:, None])
    count = round(WIDEST / _SPACING)
    radii = np.arange(1, count + 1) * _SPACING * step
    # The first edge outwards is the vessel's own; one farther out is a neighbour's.
    price = _INWARDS * radii / step
    shifts = np.arange(-FARTHEST, FARTHEST + 0.1, 0.5)
    around = np.stack(
        [_around(edge, most + round(s / _SPACING), count) + price for s in shifts]
    )
    away = _OFF_PATH * np.abs(shifts)
    middle = _smoothest(around.min(axis=2).T + away)
    cost = around[middle, np.arange(len(path))]
    half = gaussian_filter1d(radii[_smoothest(cost)], 2.0 * step, mode="nearest")
    moved = gaussian_filter1d(shifts[middle] * step, 3.0 * step, mode="nearest")
    return Lumen(path + moved[:, None] * across, np.maximum(half, THINNEST * step))


def _edges(evidence: Evidence, where: np.ndarray) -> np.ndarray:
    """How much it gets brighter, or less of an artery, along lines across (N, M, 2)."""
    where = np.moveaxis(where, -1, 0)
    grey = map_coordinates(evidence.grey, where, order=1, mode="nearest")
    sure = map_coordinates(evidence.probability, where, np.float32, 1, mode="nearest")
    slopes = [
        gaussian_filter1d(
            gaussian_filter1d(each, _ALONG * evidence.step, axis=0),
            _ACROSS / _SPACING,
            axis=1,
            order=1,
        )
        for each in (grey, -sure / 255)
    ]
    # Each in units of its own strongest edge at that place, the network's less where
    # it hardly sees anything.
    return _scaled(slopes[0], 0.02) + _TRUST * _scaled(slopes[1], 0.1)


def _around(edge: np.ndarray, middle: int, count: int) -> np.ndarray:
    """Cost (N, count) of half widths around a column of the lines across."""
    right = edge[:, middle + 1 : middle + 1 + count]
    left = edge[:, middle - count : middle][:, ::-1]
    return (left - right) / 2


def _scaled(slope: np.ndarray, least: float) -> np.ndarray:
    return slope / np.maximum(np.abs(slope).max(axis=1, keepdims=True), least)


def _smoothest(cost: np.ndarray) -> np.ndarray:
    """Column of each row, so that the sum is least and neighbours differ little."""
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
