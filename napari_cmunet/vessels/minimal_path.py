"""The vessel between two clicks: a minimal path, ready while the cursor moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.graph import MCP_Geometric

from napari_cmunet.vessels.centreline import resample, smooth
from napari_cmunet.vessels.features import coarse

if TYPE_CHECKING:
    from napari_cmunet.vessels.features import Evidence
    from napari_cmunet.vessels.tree import VesselTree

SNAP_TO_TREE = 6.0
"""How near (pixels of the working grid) a click must be to take hold of the tree."""

SNAP_TO_RIDGE = 2
"""How far a click in the open is drawn to the middle of what it points at."""

IN_MASK = 10.0
"""What a path pays for a pixel of the working grid that is artery already."""

_CORRIDOR = 4
_AROUND = 12
_SMOOTH = 2.0


class Tracer:
    """Paths from one start to wherever the cursor is.

    Costs from the start are summed up over a grid of half the working resolution
    once, in some 30 ms. A path is then read off and made exact within a corridor
    around it, in a few milliseconds.

    Parameters
    ----------
    evidence : Evidence
    start : tuple of float
        Row and column in pixels of the frame.
    mask : array (Y, X), optional
        What is artery already. Whoever traces a vessel wants one that is not there
        yet, so no path gains from a detour through this.
    """

    def __init__(
        self,
        evidence: Evidence,
        start: tuple[float, float],
        mask: np.ndarray | None = None,
    ) -> None:
        self._evidence = evidence
        self.start = (float(start[0]), float(start[1]))
        self._cost = evidence.cost
        if mask is not None:
            known = coarse(mask > 0, evidence.step, np.max)
            self._cost = np.where(known, IN_MASK, self._cost)
        self._half = _pool_least(self._cost)
        self._flood = MCP_Geometric(self._half)
        self._flood.find_costs([self._on_half(self._on_grid(self.start))])

    def path_to(self, end: tuple[float, float]) -> np.ndarray:
        """The cheapest way to a point.

        Parameters
        ----------
        end : tuple of float
            Row and column in pixels of the frame.

        Returns
        -------
        float array (N, 2)
            Smooth, one pixel of the frame from point to point, both ends exact.
        """
        first, last = self._on_grid(self.start), self._on_grid(end)
        rough = np.array(self._flood.traceback(self._on_half(last)))
        points = _refine(self._cost, rough * 2, first, last)
        step = self._evidence.step
        points = (points + 0.5) * step - 0.5
        points[0], points[-1] = self.start, end
        return resample(smooth(resample(points), _SMOOTH * step))

    def _on_grid(self, point: tuple[float, float]) -> tuple[int, int]:
        limits = self._evidence.cost.shape
        return tuple(
            int(np.clip(p / self._evidence.step, 0, n - 1))
            for p, n in zip(np.round(point), limits, strict=True)
        )

    def _on_half(self, point: tuple[int, int]) -> tuple[int, int]:
        return point[0] // 2, point[1] // 2


def short_path(
    evidence: Evidence, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    """The cheapest way between two near points, in a few milliseconds.

    Parameters
    ----------
    evidence : Evidence
    start, end : tuple of float
        Row and column in pixels of the frame.

    Returns
    -------
    float array (N, 2)
    """
    step = evidence.step
    limit = np.array(evidence.cost.shape) - 1
    ends = np.clip(np.round(np.array([start, end]) / step), 0, limit).astype(int)
    top, left = np.maximum(ends.min(axis=0) - _AROUND, 0)
    bottom, right = ends.max(axis=0) + _AROUND + 1
    search = MCP_Geometric(evidence.cost[top:bottom, left:right])
    corner = np.array([top, left])
    first, last = (tuple(e) for e in ends - corner)
    search.find_costs([first], [last])
    points = (np.array(search.traceback(last), float) + corner + 0.5) * step - 0.5
    points[0], points[-1] = start, end
    return resample(smooth(resample(points), _SMOOTH * step))


def _pool_least(cost: np.ndarray) -> np.ndarray:
    padded = np.pad(cost, [(0, n % 2) for n in cost.shape], mode="edge")
    rows, columns = (n // 2 for n in padded.shape)
    # The mean of the dearest and the cheapest: a thin vessel stays open, and one that
    # is not there does not open up.
    blocks = padded.reshape(rows, 2, columns, 2)
    return (blocks.min(axis=(1, 3)) + blocks.mean(axis=(1, 3))) / 2


def _refine(cost, rough, first, last) -> np.ndarray:
    """The cheapest path within a corridor around a rough one."""
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
    inside = np.where(open_, window, -1)  # below 0 is closed
    start = (first[0] - top, first[1] - left)
    goal = (last[0] - top, last[1] - left)
    search = MCP_Geometric(inside)
    search.find_costs([start], [goal])
    return np.array(search.traceback(goal), float) + np.array([top, left])


def snap(
    point: tuple[float, float], evidence: Evidence, tree: VesselTree | None
) -> tuple[tuple[float, float], bool]:
    """Draw a click to the tree, or to the middle of the ridge under it.

    Parameters
    ----------
    point : tuple of float
        Row and column in pixels of the frame.
    evidence : Evidence
    tree : VesselTree or None
        Of the mask as it is.

    Returns
    -------
    point : tuple of float
    on_tree : bool
    """
    step = evidence.step
    if tree is not None and tree.branches:
        lines = np.concatenate([branch.points for branch in tree.branches])
        away = np.hypot(*(lines - point).T)
        nearest = away.argmin()
        inside = _at(tree.mask, point) and away[nearest] <= 4 * SNAP_TO_TREE * step
        if inside or away[nearest] <= SNAP_TO_TREE * step:
            return (float(lines[nearest][0]), float(lines[nearest][1])), True
    reach = SNAP_TO_RIDGE
    shape = evidence.cost.shape
    row, column = (
        int(np.clip(round(p / step), 0, n - 1))
        for p, n in zip(point, shape, strict=True)
    )
    top, left = max(0, row - reach), max(0, column - reach)
    window = evidence.cost[top : row + reach + 1, left : column + reach + 1]
    rows, columns = np.indices(window.shape)
    away = np.hypot(rows + top - row, columns + left - column)
    # A cheap place is worth going to, but not far.
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
