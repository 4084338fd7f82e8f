"""Minimal paths along vessels, fast enough to follow the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.vessels.centreline import resample, smooth
from napari_cmunet.vessels.vesselness import reduce_to_grid

if TYPE_CHECKING:
    from napari_cmunet.vessels.tree import VesselTree
    from napari_cmunet.vessels.vesselness import FrameFeatures

SNAP_TO_TREE = 6.0
"""Distance (pixels of the working grid) at which a click snaps to the tree."""

SNAP_TO_VESSEL = 2
"""Distance at which a click elsewhere snaps to a vessel."""

COST_IN_MASK = 10.0
"""Cost of a pixel of the working grid that is already in the mask."""

_CORRIDOR = 4
_AROUND = 12
_SMOOTH = 2.0


def _path_search(cost: np.ndarray) -> Any:
    from skimage.graph import MCP_Geometric  # slow to import

    return MCP_Geometric(cost)


class Tracer:
    """Minimal paths from one start to any end.

    Costs are accumulated once, on a grid of half the working resolution. Each path is
    traced back on that grid, then refined within a corridor around it.

    Parameters
    ----------
    start : tuple of float
        Row and column in pixels of the frame.
    mask : array (Y, X), optional
        Paths avoid what is artery already: a new vessel is wanted.
    """

    def __init__(
        self,
        features: FrameFeatures,
        start: tuple[float, float],
        mask: np.ndarray | None = None,
    ) -> None:
        self._features = features
        self.start = (float(start[0]), float(start[1]))
        self._cost = features.cost
        if mask is not None:
            known = reduce_to_grid(mask > 0, features.step, np.max)
            self._cost = np.where(known, COST_IN_MASK, self._cost)
        self._half = _pool_least(self._cost)
        self._flood = _path_search(self._half)
        self._flood.find_costs([self._on_half(self._on_grid(self.start))])

    def path_to(self, end: tuple[float, float]) -> np.ndarray:
        """Return the minimal path to a point.

        Parameters
        ----------
        end : tuple of float
            Row and column in pixels of the frame.

        Returns
        -------
        float array (N, 2)
            Smooth, with a spacing of one pixel of the frame and exact ends.
        """
        first, last = self._on_grid(self.start), self._on_grid(end)
        rough = np.array(self._flood.traceback(self._on_half(last)))
        points = _refine(self._cost, rough * 2, first, last)
        step = self._features.step
        points = (points + 0.5) * step - 0.5
        points[0], points[-1] = self.start, end
        return resample(smooth(resample(points), _SMOOTH * step))

    def _on_grid(self, point: tuple[float, float]) -> tuple[int, int]:
        limits = self._features.cost.shape
        row, column = (
            int(np.clip(p / self._features.step, 0, n - 1))
            for p, n in zip(np.round(point), limits, strict=True)
        )
        return row, column

    def _on_half(self, point: tuple[int, int]) -> tuple[int, int]:
        return point[0] // 2, point[1] // 2


def short_path(
    features: FrameFeatures, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    """Minimal path between two nearby points.

    Parameters
    ----------
    start, end : tuple of float
        Row and column in pixels of the frame.

    Returns
    -------
    float array (N, 2)
    """
    step = features.step
    limit = np.array(features.cost.shape) - 1
    ends = np.clip(np.round(np.array([start, end]) / step), 0, limit).astype(int)
    top, left = np.maximum(ends.min(axis=0) - _AROUND, 0)
    bottom, right = ends.max(axis=0) + _AROUND + 1
    search = _path_search(features.cost[top:bottom, left:right])
    corner = np.array([top, left])
    first, last = (tuple(e) for e in ends - corner)
    search.find_costs([first], [last])
    points = (np.array(search.traceback(last), float) + corner + 0.5) * step - 0.5
    points[0], points[-1] = start, end
    return resample(smooth(resample(points), _SMOOTH * step))


def _pool_least(cost: np.ndarray) -> np.ndarray:
    padded = np.pad(cost, [(0, n % 2) for n in cost.shape], mode="edge")
    rows, columns = (n // 2 for n in padded.shape)
    # Between minimum and mean: keeps thin vessels open without inventing others.
    blocks = padded.reshape(rows, 2, columns, 2)
    return (blocks.min(axis=(1, 3)) + blocks.mean(axis=(1, 3))) / 2


def _refine(
    cost: np.ndarray,
    rough: np.ndarray,
    first: tuple[int, int],
    last: tuple[int, int],
) -> np.ndarray:
    """Minimal path within a corridor around a rough one."""
    margin = _CORRIDOR + 2
    points = np.concatenate([rough, [first, last]])
    top, left = np.maximum(points.min(axis=0) - margin, 0)
    bottom, right = points.max(axis=0) + margin + 1
    window = cost[top:bottom, left:right]
    open_ = np.zeros(window.shape, bool)
    for row in range(-_CORRIDOR, _CORRIDOR + 1):
        for column in range(-_CORRIDOR, _CORRIDOR + 1):
            rows = np.clip(points[:, 0] - top + row, 0, window.shape[0] - 1)
            columns = np.clip(points[:, 1] - left + column, 0, window.shape[1] - 1)
            open_[rows, columns] = True
    inside = np.where(open_, window, -1)  # negative is impassable
    start = (first[0] - top, first[1] - left)
    goal = (last[0] - top, last[1] - left)
    search = _path_search(inside)
    search.find_costs([start], [goal])
    return np.array(search.traceback(goal), float) + np.array([top, left])


def snap(
    point: tuple[float, float], features: FrameFeatures, tree: VesselTree | None
) -> tuple[tuple[float, float], bool]:
    """Snap a click to the tree, or else to the vessel under it.

    Parameters
    ----------
    point : tuple of float
        Row and column in pixels of the frame.
    tree : VesselTree or None
        Of the current mask.

    Returns
    -------
    point : tuple of float
    on_tree : bool
    """
    step = features.step
    if tree is not None and tree.branches:
        lines = np.concatenate([branch.points for branch in tree.branches])
        away = np.hypot(*(lines - point).T)
        nearest = away.argmin()
        inside = _at(tree.mask, point) and away[nearest] <= 4 * SNAP_TO_TREE * step
        if inside or away[nearest] <= SNAP_TO_TREE * step:
            return (float(lines[nearest][0]), float(lines[nearest][1])), True
    reach = SNAP_TO_VESSEL
    shape = features.cost.shape
    row, column = (
        int(np.clip(round(p / step), 0, n - 1))
        for p, n in zip(point, shape, strict=True)
    )
    top, left = max(0, row - reach), max(0, column - reach)
    window = features.cost[top : row + reach + 1, left : column + reach + 1]
    rows, columns = np.indices(window.shape)
    away = np.hypot(rows + top - row, columns + left - column)
    price = np.where(away <= reach, window * (1 + 0.15 * away), np.inf)
    best = np.unravel_index(price.argmin(), window.shape)
    found = np.array([best[0] + top, best[1] + left], float)
    found = (found + 0.5) * step - 0.5
    return (float(found[0]), float(found[1])), False


def _at(mask: np.ndarray, point: tuple[float, float]) -> bool:
    row, column = (
        int(np.clip(round(p), 0, n - 1)) for p, n in zip(point, mask.shape, strict=True)
    )
    return bool(mask[row, column])
