"""Gaps in a tree: two ends that look as if one vessel ran from one to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cmunet.core.vessels.tree import VesselTree

WIDEST_GAP = 48.0
"""In pixels of a frame 512 wide."""

_AHEAD = 0.35


@dataclass(frozen=True)
class Gap:
    """Where a vessel seems to be interrupted.

    Parameters
    ----------
    start, end : tuple of float
        Row and column of its two sides.
    """

    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def length(self) -> float:
        """In pixels, straight across."""
        return float(np.hypot(*np.subtract(self.start, self.end)))

    def distance(self, point: tuple[float, float]) -> float:
        """How far a point is from the straight line across the gap."""
        a, b, p = (np.asarray(x, float) for x in (self.start, self.end, point))
        across = b - a
        share = np.clip((p - a) @ across / max(across @ across, 1e-9), 0, 1)
        return float(np.hypot(*(a + share * across - p)))


def find_gaps(tree: VesselTree) -> list[Gap]:
    """Find where free ends look at another part of the mask, shortest first.

    An end is joined to the nearest centreline of another part that lies ahead of it;
    an end that points back is preferred. One gap at most for each end.
    """
    ends = [e for e in tree.free_ends() if len(e[0].points) > 2]
    if not ends:
        return []
    reach = WIDEST_GAP * max(tree.mask.shape) / 512
    parts = tree.components
    lines = np.concatenate([b.points for b in tree.branches])
    of_part = parts[tuple(lines.T)]
    end_points = np.array([point for _, point, _ in ends], float)
    end_outs = np.array([out for _, _, out in ends])
    end_parts = parts[tuple(end_points.astype(int).T)]
    gaps: dict[tuple, Gap] = {}
    for point, out, part in zip(end_points, end_outs, end_parts, strict=True):
        best, price = None, np.inf
        # Facing ends first: half price.
        for targets, target_parts, outs, factor in (
            (end_points, end_parts, end_outs, 0.5),
            (lines, of_part, None, 1.0),
        ):
            across = targets - point
            away = np.hypot(*across.T)
            ahead = (across @ out) / np.maximum(away, 1e-9)
            fits = (away <= reach) & (ahead > _AHEAD)
            if outs is None:
                fits &= target_parts != part
            else:
                # Two ends that look at each other, be they of one part: projections
                # have loops.
                facing = -np.einsum("ij,ij->i", across, outs) / np.maximum(away, 1e-9)
                fits &= facing > _AHEAD
            if not fits.any():
                continue
            cost = np.where(fits, factor * away * (1.6 - ahead), np.inf)
            nearest = cost.argmin()
            if cost[nearest] < price:
                best, price = targets[nearest], cost[nearest]
        if best is not None:
            gap = Gap(tuple(map(float, point)), tuple(map(float, best)))
            gaps.setdefault(tuple(sorted((gap.start, gap.end))), gap)
    return sorted(gaps.values(), key=lambda gap: gap.length)
