"""Centrelines, the width of a vessel along one, and the pixels of given half widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_cmunet.vessels.vesselness import FrameFeatures


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
