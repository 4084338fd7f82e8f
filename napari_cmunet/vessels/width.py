"""Width of a vessel along a path, from its edges in image and probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

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
_WEIGHTS = (1.0, 0.6)  # of grey values and probability
_LEAST = (0.02, 0.1)  # weakest edge that counts fully
_REGION = (0.5, 0.0)  # of contrast, against that of edges
_MARGIN = 4.0
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
    most = round((MAX_RADIUS + MAX_SHIFT + _MARGIN) / _SPACING)
    offsets = np.arange(-most, most + 1) * _SPACING * step
    parts = _profiles(
        features, path[:, None] + offsets[None, :, None] * across[:, None]
    )
    edge = np.zeros(parts[0].shape)
    for part, weight, least in zip(parts, _WEIGHTS, _LEAST, strict=True):
        edge += weight * _scaled(_slope(part), least)
    count = round(MAX_RADIUS / _SPACING)
    radii = np.arange(1, count + 1) * _SPACING * step
    # Favour the inner of two edges: the outer may belong to a neighbour.
    price = _INWARDS * radii / step
    shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 0.1, 0.5)
    around = []
    for shift in shifts:
        middle = most + round(shift / _SPACING)
        cost = _around(edge, middle, count) + price
        for part, weight, least in zip(parts, _REGION, _LEAST, strict=True):
            cost = cost - weight * _scaled(_contrast(part, middle, count), least)
        around.append(cost)
    costs = np.stack(around)
    away = _OFF_PATH * np.abs(shifts)
    centre = smoothest_path(costs.min(axis=2).T + away)
    cost = costs[centre, np.arange(len(path))]
    half = scipy.ndimage.gaussian_filter1d(
        radii[smoothest_path(cost)], 2.0 * step, mode="nearest"
    )
    moved = scipy.ndimage.gaussian_filter1d(
        shifts[centre] * step, 3.0 * step, mode="nearest"
    )
    return Lumen(path + moved[:, None] * across, np.maximum(half, MIN_RADIUS * step))


def _profiles(
    features: FrameFeatures, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Grey values and negative probability along profiles (N, M, 2), smoothed."""
    where = np.moveaxis(where, -1, 0)
    grey = scipy.ndimage.map_coordinates(features.grey, where, order=1, mode="nearest")
    probability = scipy.ndimage.map_coordinates(
        features.probability, where, np.float32, 1, mode="nearest"
    )
    along = _ALONG * features.step
    return (
        scipy.ndimage.gaussian_filter1d(grey, along, axis=0),
        scipy.ndimage.gaussian_filter1d(-probability / 255, along, axis=0),
    )


def _slope(profile: np.ndarray) -> np.ndarray:
    return scipy.ndimage.gaussian_filter1d(profile, _ACROSS / _SPACING, axis=1, order=1)


def _around(edge: np.ndarray, middle: int, count: int) -> np.ndarray:
    """Cost (N, count) of each half width around a column of the profiles."""
    right = edge[:, middle + 1 : middle + 1 + count]
    left = edge[:, middle - count : middle][:, ::-1]
    return (left - right) / 2


def _contrast(profile: np.ndarray, middle: int, count: int) -> np.ndarray:
    """Mean outside less mean inside (N, count), for each half width."""
    sums = np.cumsum(np.pad(profile, ((0, 0), (1, 0))), axis=1)
    half = np.arange(1, count + 1)
    far = half + np.maximum(half // 2, round(_MARGIN / _SPACING / 2))
    last = profile.shape[1] - 1
    right = np.minimum(middle + far, last)
    left = np.maximum(middle - far, 0)
    inside = (sums[:, middle + half + 1] - sums[:, middle - half]) / (2 * half + 1)
    outer = (sums[:, right + 1] - sums[:, middle + half + 1]) + (
        sums[:, middle - half] - sums[:, left]
    )
    size = np.maximum((right - middle - half) + (middle - half - left), 1)
    return outer / size - inside


def _scaled(slope: np.ndarray, least: float) -> np.ndarray:
    return slope / np.maximum(np.abs(slope).max(axis=1, keepdims=True), least)


def smoothest_path(
    cost: np.ndarray, bend: float = _BEND, steepest: int = 1
) -> np.ndarray:
    """Column per row of the path of least cost.

    Each column aside costs ``bend``; up to ``steepest`` are allowed from row to row.
    """
    rows, columns = cost.shape
    back = np.zeros((rows, columns), np.int8)
    steps = np.arange(-steepest, steepest + 1)
    price, every = bend * np.abs(steps), np.arange(columns)
    total = np.full(columns + 2 * steepest, np.inf)
    inner = total[steepest : columns + steepest]
    inner[:] = cost[0]
    near = np.lib.stride_tricks.sliding_window_view(total, len(steps))
    for row in range(1, rows):
        options = near + price
        choice = options.argmin(axis=1)
        inner[:] = options[every, choice] + cost[row]
        back[row] = choice - steepest
    total = inner
    chosen = np.empty(rows, int)
    chosen[-1] = total.argmin()
    for row in range(rows - 1, 0, -1):
        chosen[row - 1] = chosen[row] + back[row, chosen[row]]
    return chosen
