"""Edits of a mask: pixels to set. Functions here do not change the mask themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.vessels.centreline import measure_lumen, resample, tube

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.vessels.tree import Branch, VesselTree
    from napari_cmunet.vessels.vesselness import FrameFeatures


@dataclass(frozen=True)
class Edit:
    """Pixels of a frame to set."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray  # uint8 array; 1 artery, 0 background, one for each pixel

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


def draw_vessel(
    features: FrameFeatures, mask: np.ndarray, path: np.ndarray, widening: float = 1.0
) -> Edit:
    """Add the vessel along a path, with its width measured in the image.

    Nothing is added where the path starts or ends within the mask.

    Parameters
    ----------
    mask : array (Y, X)
        Above 0 is artery.
    path : float array (N, 2)
        Centreline, from :class:`~napari_cmunet.vessels.minimal_path.Tracer`.
    widening : float
        Factor on the measured width.
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
        added[tube(found.centre, widening * found.radii, mask.shape)] = True
    return _edit(mask, added, None)


def remove_branches(tree: VesselTree, branches: Iterable[Branch]) -> Edit:
    """Remove branches, but not the lumen of those that they leave or cross.

    Parameters
    ----------
    tree : VesselTree
        Of the mask.
    """
    numbers = {branch.number for branch in branches}
    gone = np.isin(tree.numbers, list(numbers))
    joints = {
        joint
        for number in numbers
        for joint in tree.branches[number].joints
        if joint >= 0
    }
    for joint in joints:
        gone &= ~_lumen_at(tree, joint, numbers)
    return _edit(tree.mask, np.zeros_like(gone), gone)


def _lumen_at(tree: VesselTree, joint: int, removed: set[int]) -> np.ndarray:
    """Lumen at a bifurcation of the branches that stay, bool (Y, X)."""
    row, column, radius = tree.joints[joint]
    height, width = tree.mask.shape
    lumen = np.zeros((height, width), bool)
    staying = [
        b for b in tree.branches if joint in b.joints and b.number not in removed
    ]
    if len(staying) < 2:  # one alone ends here
        return lumen
    near = int(4 * radius) + 8
    for branch in staying:
        points = branch.points if branch.joints[0] == joint else branch.points[::-1]
        points = np.concatenate([[(row, column)], points[:near]])
        line = resample(points.astype(float), 0.5)
        # The distance to the border is too large where vessels meet.
        radii = np.full(len(line), branch.radius + 0.25)
        lumen[tube(line, radii, (height, width))] = True
    return lumen


def follow_run(tree: VesselTree, branch: Branch) -> list[Branch]:
    """Return the branches that continue a branch: a catheter, a wire, a rib.

    A component other than the largest is returned whole. In the largest, which holds
    the arteries, the run continues from each end in its direction and at its width,
    through bifurcations, along arteries that it crosses, and across gaps. Short side
    branches with free ends belong to the run.
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
        and min(b.joints) < 0
        and all(j < 0 or j in joints for j in b.joints)
    ]
    return run + short


MAX_TURN = 35.0
"""Degrees by which a run may turn where it is followed."""

_MAX_WIDENING = 1.5
_STRIDE = 40.0  # pixels of a frame 512 wide, across a crossing or a gap


def _follow(tree: VesselTree, branch: Branch, side: int, run: list[Branch]) -> None:
    """Extend a run from one end of a branch as far as it goes."""
    stride = _STRIDE * max(1.0, max(tree.mask.shape) / 512)
    typical = branch.radius
    while True:
        found = _continuation(tree, branch, side, run, typical, stride)
        if found is None:
            return
        branch, side = found
        run.append(branch)


def _continuation(
    tree: VesselTree,
    branch: Branch,
    side: int,
    run: list[Branch],
    radius: float,
    stride: float,
) -> tuple[Branch, int] | None:
    """Next branch of a run and its far side: the straightest one ahead."""
    tip = branch.points[0 if side == 0 else -1].astype(float)
    heading = _direction(branch, side)
    least = np.cos(np.deg2rad(MAX_TURN))
    best, best_price = None, np.inf
    for other in tree.branches:
        if other in run or len(other.points) < 3:
            continue
        wide = max(other.radius, radius) / min(other.radius, radius)
        if wide > _MAX_WIDENING:
            continue
        for enter in (0, 1):
            start = other.points[0 if enter == 0 else -1].astype(float)
            across = start - tip
            away = float(np.hypot(*across))
            touching = branch.joints[side] >= 0 and (
                other.joints[enter] == branch.joints[side]
            )
            if away > stride and not touching:
                continue
            straight = float(heading @ -_direction(other, enter))
            # Over some pixels the way across must lie ahead, too.
            ahead = 1.0 if away < 4 or touching else float(heading @ across) / away
            if straight < least or ahead < least:
                continue
            # Beyond a touching branch only one that is straighter is preferred.
            price = away / stride + 4 * (2 - straight - ahead) + (not touching) * 0.3
            if price < best_price:
                best, best_price = (other, 1 - enter), price
    return best


def _direction(branch: Branch, side: int) -> np.ndarray:
    """Outward unit vector at one end of a branch."""
    points = branch.points if side == 0 else branch.points[::-1]
    out = (points[0] - points[min(len(points) - 1, 16)]).astype(float)
    return out / max(np.hypot(*out), 1e-9)
