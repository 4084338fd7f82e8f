"""Edits of a mask: pixels to set. Functions here do not change the mask themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.vessels.centreline import tube
from napari_cmunet.vessels.width import measure_lumen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.vessels.tree import Branch, VesselTree
    from napari_cmunet.vessels.vesselness import FrameFeatures


@dataclass(frozen=True)
class Edit:
    """Pixels of a frame to set.

    Parameters
    ----------
    rows, columns : int arrays
    values : uint8 array
        1 artery, 0 background, one for each pixel.
    """

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def where(self) -> tuple[np.ndarray, np.ndarray]:
        """Index into a frame."""
        return self.rows, self.columns

    def apply(self, mask: np.ndarray) -> None:
        """Apply the edit to an array (Y, X)."""
        mask[self.where] = self.values


def edit_between(mask: np.ndarray, wanted: np.ndarray) -> Edit:
    """Edit that turns a mask (Y, X) of any values into a bool mask (Y, X)."""
    rows, columns = np.nonzero((mask != 0) != wanted)
    return Edit(rows, columns, wanted[rows, columns].astype(np.uint8))


def _edit(mask: np.ndarray, added: np.ndarray, removed: np.ndarray | None) -> Edit:
    """Edit of the pixels that change."""
    change = added & (mask == 0)
    if removed is not None:
        change |= removed & (mask != 0)
    rows, columns = np.nonzero(change)
    return Edit(rows, columns, added[rows, columns].astype(np.uint8))


def draw_vessel(features: FrameFeatures, mask: np.ndarray, path: np.ndarray) -> Edit:
    """Add the vessel along a path, with its width measured in the image.

    Nothing is added where the path starts or ends within the mask.

    Parameters
    ----------
    features : FrameFeatures
    mask : array (Y, X)
        Above 0 is artery.
    path : float array (N, 2)
        Centreline, from :class:`~napari_cmunet.vessels.minimal_path.Tracer`.
    """
    added = np.zeros(mask.shape, bool)
    at = np.round(path).astype(int)
    at = np.clip(at, 0, np.array(mask.shape) - 1)
    outside = np.flatnonzero(mask[tuple(at.T)] == 0)
    if len(outside):
        # Overlaps the mask a little, so that it is connected.
        first, last = max(0, outside[0] - 2), outside[-1] + 3
        stretch = path[first:last]
        found = measure_lumen(features, stretch)
        added[tube(found.centre, found.radii, mask.shape)] = True
    return _edit(mask, added, None)


def remove_branches(tree: VesselTree, branches: Iterable[Branch]) -> Edit:
    """Remove branches, each up to its bifurcations.

    Parameters
    ----------
    tree : VesselTree
        Of the mask.
    branches : iterable of Branch
    """
    gone = np.isin(tree.numbers, [branch.number for branch in branches])
    return _edit(tree.mask, np.zeros_like(gone), gone)


def follow_run(tree: VesselTree, branch: Branch) -> list[Branch]:
    """Return the branches that continue a branch: a catheter, a wire, a rib.

    A component other than the largest is returned whole. In the largest, which holds
    the arteries, the run continues through a bifurcation where it is straight and
    keeps its width. Short side branches with free ends belong to the run.
    """
    if tree.is_detached(branch):
        parts = tree.components
        mine = parts[tuple(branch.points[0])]
        return [b for b in tree.branches if parts[tuple(b.points[0])] == mine]
    run = [branch]
    for side in (0, 1):
        _follow(tree, branch, side, run)
    joints = {j for b in run for j in b.joints if j >= 0}
    short = [
        b
        for b in tree.branches
        if b not in run
        and sum(j in joints for j in b.joints) >= 1
        and (b.length < 4 * branch.radius + 4)
        and all(j < 0 or j in joints for j in b.joints)
    ]
    return run + short


def _follow(tree: VesselTree, branch: Branch, side: int, run: list[Branch]) -> None:
    while (joint := branch.joints[side]) >= 0:
        heading = _direction(branch, side)
        best, best_turn = None, np.cos(np.deg2rad(35))
        for other in tree.neighbours(branch, joint):
            enter = other.joints.index(joint)
            straight = float(heading @ -_direction(other, enter))
            wide = max(other.radius, branch.radius) / min(other.radius, branch.radius)
            if other not in run and straight > best_turn and wide < 1.5:
                best, best_turn = other, straight
        if best is None:
            return
        run.append(best)
        side = 1 - best.joints.index(joint)
        branch = best


def _direction(branch: Branch, side: int) -> np.ndarray:
    """Outward unit vector at one end of a branch."""
    points = branch.points if side == 0 else branch.points[::-1]
    out = (points[0] - points[min(len(points) - 1, 8)]).astype(float)
    return out / max(np.hypot(*out), 1e-9)
