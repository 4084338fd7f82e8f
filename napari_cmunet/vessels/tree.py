"""The tree of a mask: its branches, bifurcations and gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy

from napari_cmunet.vessels.centreline import length

Joint = tuple[int, int, float]
Piece = tuple[np.ndarray, tuple[int, int]]

_EIGHT = np.ones((3, 3), int)
# A spur of the skeleton ends this close to the border of the lumen.
_SPUR = 2.0


@dataclass(frozen=True)
class Branch:
    """A stretch of vessel between two bifurcations or free ends."""

    number: int  # index in the tree
    points: np.ndarray  # int array (N, 2); centreline pixels in order
    radii: np.ndarray  # float array (N,); half the width of the mask at each, in pixels
    joints: tuple[int, int]  # index of the bifurcation at either end, -1 for a free end

    @property
    def length(self) -> float:
        """Along the centreline, in pixels."""
        return length(self.points)

    @property
    def radius(self) -> float:
        """Median half width, in pixels."""
        return float(np.median(self.radii))

    @property
    def end_radii(self) -> tuple[float, float]:
        """Mean half width of the first and of the last third, in pixels."""
        third = max(1, len(self.radii) // 3)
        return float(self.radii[:third].mean()), float(self.radii[-third:].mean())


@dataclass(frozen=True)
class VesselTree:
    """All branches of a mask; see :func:`build_tree`."""

    mask: np.ndarray  # bool array (Y, X)
    branches: list[Branch]
    #: Row, column and half width of each bifurcation.
    joints: list[Joint] = field(default_factory=list)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Index of the branch of each pixel, int32 (Y, X); -1 for background.

        A pixel belongs to the nearest centreline. The disc at a bifurcation belongs
        to its widest branch, so that removing a side branch leaves the main vessel
        intact.
        """
        from skimage.draw import disk

        seeds = np.full(self.mask.shape, -1, np.int32)
        for branch in self.branches:
            seeds[tuple(branch.points.T)] = branch.number
        for number, (row, column, radius) in enumerate(self.joints):
            meeting = [b for b in self.branches if number in b.joints]
            if meeting:
                widest = max(meeting, key=lambda b: b.radius).number
                where = disk((row, column), max(radius, 1.0), shape=self.mask.shape)
                seeds[where] = widest
        if not self.branches:
            return seeds
        nearest = scipy.ndimage.distance_transform_edt(
            seeds < 0, return_distances=False, return_indices=True
        )
        return np.where(self.mask, seeds[tuple(nearest)], -1)

    @cached_property
    def components(self) -> np.ndarray:
        """Connected component of each pixel, 0 for background."""
        return scipy.ndimage.label(self.mask, _EIGHT)[0]

    def pixels(self, branch: Branch) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of a branch."""
        rows, columns = np.nonzero(self.numbers == branch.number)
        return rows, columns

    def branch_at(self, point: tuple[float, float], reach: float = 6) -> Branch | None:
        """The branch under a point (row, column), or the nearest within ``reach``."""
        numbers = self.numbers
        row, column = round(point[0]), round(point[1])
        if 0 <= row < numbers.shape[0] and 0 <= column < numbers.shape[1]:
            if numbers[row, column] >= 0:
                return self.branches[numbers[row, column]]
        margin = int(np.ceil(reach))
        top, left = max(0, row - margin), max(0, column - margin)
        window = numbers[top : row + margin + 1, left : column + margin + 1]
        rows, columns = np.nonzero(window >= 0)
        if not len(rows):
            return None
        away = np.hypot(rows + top - point[0], columns + left - point[1])
        nearest = away.argmin()
        if away[nearest] > reach:
            return None
        return self.branches[window[rows[nearest], columns[nearest]]]

    def is_detached(self, branch: Branch) -> bool:
        """Whether a branch is not connected to the largest component."""
        parts = self.components
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        return bool(parts[tuple(branch.points[0])] != sizes.argmax())

    def downstream(self, branch: Branch) -> tuple[np.ndarray, list[Joint]]:
        """Points of a branch from its wider end on, and what is at both ends.

        Bifurcations, and free ends, where the mask tapers.
        """
        ends = [
            self.joints[joint]
            if joint >= 0
            else (int(end[0]), int(end[1]), branch.radius)
            for joint, end in zip(branch.joints, branch.points[[0, -1]], strict=True)
        ]
        first, last = branch.end_radii
        if first < last:
            return branch.points[::-1], ends
        return branch.points, ends

    def joints_on(self, path: np.ndarray) -> list[Joint]:
        """Bifurcations that a path of pixels (N, 2) passes."""
        return [
            joint
            for joint in self.joints
            if np.hypot(*(path - joint[:2]).T).min() <= joint[2] + 1
        ]

    def free_ends(self) -> list[tuple[Branch, np.ndarray, np.ndarray]]:
        """Branch, point (2,) and outward direction (2,) of every free end."""
        ends = []
        for branch in self.branches:
            for side, joint in enumerate(branch.joints):
                if joint < 0:
                    points = branch.points if side == 0 else branch.points[::-1]
                    inner = points[min(len(points) - 1, 10)]
                    out = (points[0] - inner).astype(float)
                    out /= max(np.hypot(*out), 1e-9)
                    ends.append((branch, points[0], out))
        return ends


def build_tree(mask: np.ndarray, skeleton: np.ndarray | None = None) -> VesselTree:
    """Split a mask into branches.

    Parameters
    ----------
    mask : array (Y, X)
        Above 0 is artery.
    skeleton : bool array (Y, X), optional
        Of the mask, where it is known; left as it is.

    Returns
    -------
    VesselTree
        Branches in no particular order. A component without a branch, such as a
        blob, becomes a branch of a single point.
    """
    from skimage.morphology import skeletonize  # slow to import

    mask = np.asarray(mask) > 0
    skeleton = skeletonize(mask) if skeleton is None else skeleton.copy()
    width = _half_widths(mask, skeleton)
    for _ in range(2):
        pieces, joints = _split(skeleton, width, short=True)
        spurs = [p for p, ends in pieces if _is_spur(p, ends, joints)]
        if not spurs:
            break
        for spur in spurs:
            skeleton[tuple(spur.T)] = False
        skeleton = skeletonize(skeleton)
    pieces, joints = _split(skeleton, width)
    radii = np.maximum(width - 0.5, 0.5)
    branches = [
        Branch(number, points, radii[tuple(points.T)], ends)
        for number, (points, ends) in enumerate(pieces)
    ]
    return VesselTree(mask, branches, joints)


def _half_widths(mask: np.ndarray, skeleton: np.ndarray) -> np.ndarray:
    """Distance of each skeleton pixel from the background; elsewhere 0."""
    from scipy.spatial import cKDTree  # slow to import

    # Padded with background, so that a vessel ends at the border of the frame.
    padded = np.pad(mask, 1)
    around = scipy.ndimage.binary_dilation(np.pad(mask, 2))[1:-1, 1:-1] & ~padded
    width = np.zeros(mask.shape)
    points = np.argwhere(skeleton)
    width[skeleton] = cKDTree(np.argwhere(around) - 1).query(points)[0]
    return width


def _is_spur(points: np.ndarray, ends: tuple[int, int], joints: list[Joint]) -> bool:
    if (ends[0] < 0) == (ends[1] < 0):
        return False
    joint = joints[max(ends)]
    return len(points) < joint[2] + _SPUR


def _split(
    skeleton: np.ndarray, width: np.ndarray, *, short: bool = False
) -> tuple[list[Piece], list[Joint]]:
    """Pieces of a skeleton (points, joints at both ends), and its joints.

    Pieces that are too long for a spur are left out where ``short`` is set.
    """
    height, wide = skeleton.shape
    padded = np.pad(skeleton, 1).astype(np.uint8)
    neighbours = -padded[1:-1, 1:-1]
    for row, column in np.ndindex(3, 3):
        neighbours += padded[row : row + height, column : column + wide]
    crossing = skeleton & (neighbours > 2)
    knots, count = scipy.ndimage.label(crossing, _EIGHT)
    joints: list[Joint] = []
    rows, columns = np.nonzero(crossing)
    order = np.argsort(knots[rows, columns], kind="stable")
    firsts = np.searchsorted(knots[rows, columns][order], np.arange(1, count + 2))
    for first, last in pairwise(firsts):
        r, c = rows[order[first:last]], columns[order[first:last]]
        widest = width[r, c].argmax()
        joints.append((int(r[widest]), int(c[widest]), float(width[r, c][widest])))
    loose = skeleton & ~crossing
    parts, count = scipy.ndimage.label(loose, _EIGHT)
    rows, columns = np.nonzero(loose)
    order = np.argsort(parts[rows, columns], kind="stable")
    points = np.stack([rows, columns], axis=1)[order]
    firsts = np.searchsorted(parts[rows, columns][order], np.arange(1, count + 2))
    pieces: list[Piece] = []
    longest = max((j[2] for j in joints), default=0) + _SPUR if short else np.inf
    for first, last in pairwise(firsts):
        if last - first >= longest:
            continue
        ordered = _in_order(points[first:last])
        pieces.append((ordered, _ends(ordered, knots)))
    # A component of crossings only, such as a plus sign, is a branch as well.
    met = {number for _, ends in pieces for number in ends}
    alone: list[Piece] = [
        (np.array([[row, column]]), (-1, -1))
        for number, (row, column, _) in enumerate(joints)
        if number not in met
    ]
    return pieces + alone, joints


def _in_order(points: np.ndarray) -> np.ndarray:
    """Order the pixels of a line without crossings from end to end."""
    if len(points) < 3:
        return points
    # As flat indices, with a margin so that no step leads around the side.
    width = int(points[:, 1].max()) + 3
    # Straight neighbours first: a diagonal step would skip a corner.
    steps = (1, width, -1, -width, width + 1, width - 1, 1 - width, -1 - width)
    pixels = (points[:, 0] * width + points[:, 1] + 1).tolist()
    left = set(pixels)
    here = next(
        (p for p in pixels if sum(p + step in left for step in steps) < 2), pixels[0]
    )
    path = [here]
    left.remove(here)
    while left:
        following = next((here + s for s in steps if here + s in left), None)
        if following is None:
            break
        path.append(here := following)
        left.remove(here)
    rows, columns = np.divmod(path, width)
    return np.stack([rows, columns - 1], axis=1)


def _ends(points: np.ndarray, knots: np.ndarray) -> tuple[int, int]:
    """Joint at each end of a piece, -1 for none."""
    found = []
    for row, column in (points[0], points[-1]):
        window = knots[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        found.append([n - 1 for n in sorted(set(window.ravel().tolist()) - {0})])
    first, last = found
    if len(points) == 1 and len(first) > 1:
        return first[0], first[1]
    # A short piece, like a loop, may touch the same joint with both ends.
    if len(points) == 1 or (len(points) == 2 and first == last):
        return (first[0] if first else -1), -1
    return (first[0] if first else -1), (last[0] if last else -1)


MAX_GAP = 48.0
"""In pixels of a frame 512 pixels wide."""

_MIN_COSINE = 0.35


@dataclass(frozen=True)
class Gap:
    """A place where a vessel seems to be interrupted."""

    #: start, end: row and column of its two sides.
    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def length(self) -> float:
        """Straight across, in pixels."""
        return float(np.hypot(*np.subtract(self.start, self.end)))

    def distance(self, point: tuple[float, float]) -> float:
        """Distance of a point from the straight line across the gap."""
        a, b, p = (np.asarray(x, float) for x in (self.start, self.end, point))
        across = b - a
        share = np.clip((p - a) @ across / max(across @ across, 1e-9), 0, 1)
        return float(np.hypot(*(a + share * across - p)))


def find_gaps(tree: VesselTree) -> list[Gap]:
    """Find where free ends point at another part of the mask, shortest gap first.

    Each free end is joined to the nearest centreline ahead of it in another
    component, preferably to another free end that points back at it.
    """
    ends = [e for e in tree.free_ends() if len(e[0].points) > 2]
    if not ends:
        return []
    reach = MAX_GAP * max(tree.mask.shape) / 512
    parts = tree.components
    lines = np.concatenate([b.points for b in tree.branches])
    of_part = parts[tuple(lines.T)]
    end_points = np.array([point for _, point, _ in ends], float)
    end_outs = np.array([out for _, _, out in ends])
    end_parts = parts[tuple(end_points.astype(int).T)]
    gaps: dict[tuple[tuple[float, float], ...], Gap] = {}
    for point, out, part in zip(end_points, end_outs, end_parts, strict=True):
        best, price = None, np.inf
        # A facing end costs half.
        for targets, target_parts, outs, factor in (
            (end_points, end_parts, end_outs, 0.5),
            (lines, of_part, None, 1.0),
        ):
            across = targets - point
            away = np.hypot(*across.T)
            ahead = (across @ out) / np.maximum(away, 1e-9)
            fits = (away <= reach) & (ahead > _MIN_COSINE)
            if outs is None:
                fits &= target_parts != part
            else:
                # Also within one component: projections have loops.
                facing = -np.einsum("ij,ij->i", across, outs) / np.maximum(away, 1e-9)
                fits &= facing > _MIN_COSINE
            if not fits.any():
                continue
            cost = np.where(fits, factor * away * (1.6 - ahead), np.inf)
            nearest = cost.argmin()
            if cost[nearest] < price:
                best, price = targets[nearest], cost[nearest]
        if best is not None:
            gap = Gap(
                (float(point[0]), float(point[1])), (float(best[0]), float(best[1]))
            )
            gaps.setdefault(tuple(sorted((gap.start, gap.end))), gap)
    return sorted(gaps.values(), key=lambda gap: gap.length)
