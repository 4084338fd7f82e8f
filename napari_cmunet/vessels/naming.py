"""Names of the branches of a tree: SYNTAX segments.

A name is kept as points of the centreline in pixels of the image. After an edit of the
mask each point belongs to whichever branch it lies in, so that names follow the tree.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_cmunet.vessels.centreline import resample
from napari_cmunet.vessels.segments import UNNAMED, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.vessels.tree import Branch, VesselTree

DOUBTFUL = 0.5
"""A proposed name with more doubt is shown with a question mark, and not exported."""

_SPACING = 10  # pixels between the points of a name
_MOVED = 5.0  # pixels that a centreline may have moved since it was named
_BESIDE = 2.0  # pixels that a centreline may move beyond the lumen's border


@dataclass(frozen=True)
class SegmentName:
    """The name of a stretch of vessel, wherever the tree has it.

    Parameters
    ----------
    segment : str
        SYNTAX number, a key of :data:`SEGMENTS`; empty for a stretch that has no name
        although its branch has one.
    points : tuple of (row, column)
        Along the centreline, in pixels of the image.
    doubt : float
        Of a proposal that nobody has confirmed, 0 to 1; 0 for a reader's own.
    """

    segment: str
    points: tuple[tuple[int, int], ...]
    doubt: float = 0.0


@dataclass(frozen=True)
class NamedStretch:
    """A stretch of one branch with one name."""

    branch: int  # index in the tree
    start: int  # index of the branch's first point, and that after its last
    end: int
    segment: str = ""  # empty where it has none
    doubt: float = 0.0

    @property
    def is_certain(self) -> bool:
        """Whether its name is a reader's, or proposed with little doubt."""
        return self.doubt <= DOUBTFUL

    @property
    def is_named(self) -> bool:
        """Whether it has a certain name."""
        return bool(self.segment) and self.is_certain


class NamedTree:
    """A tree and the names that its branches have; neither is changed.

    Parameters
    ----------
    tree : VesselTree
    names : iterable of SegmentName
        Those whose vessel the tree does not have are kept: an undo may bring it back.
    """

    def __init__(self, tree: VesselTree, names: Iterable[SegmentName] = ()) -> None:
        self.tree, self.names = tree, tuple(names)

    @cached_property
    def _attached(self) -> dict[int, list[_Mark]]:
        """The points of names that lie in each branch."""
        found: dict[int, list[_Mark]] = {}
        branches = self.tree.branches
        given = [
            (point, number)
            for number, name in enumerate(self.names)
            for point in name.points
        ]
        if not branches or not given:
            return found
        from scipy.spatial import cKDTree  # slow to import

        lines = np.concatenate([b.points for b in branches])
        radii = np.concatenate([b.radii for b in branches])
        lengths = [len(b.points) for b in branches]
        owners = np.repeat(np.arange(len(branches)), lengths)
        firsts = np.cumsum([0, *lengths])
        away, nearest = cKDTree(lines).query([point for point, _ in given])
        for (point, number), distance, at in zip(given, away, nearest, strict=True):
            if distance <= radii[at] + _BESIDE:
                branch = int(owners[at])
                mark = _Mark(int(at - firsts[branch]), number, point)
                found.setdefault(branch, []).append(mark)
        return found

    @cached_property
    def stretches(self) -> dict[int, list[NamedStretch]]:
        """The stretches of each branch, in the order of its points.

        Two names on one branch meet halfway between their nearest points.
        """
        return {b.number: self._split(b) for b in self.tree.branches}

    def _split(self, branch: Branch) -> list[NamedStretch]:
        marks = sorted(self._attached.get(branch.number, []))
        bounds = [0]
        names = [self._name_at(marks[0])] if marks else [("", 0.0)]
        for one, other in pairwise(marks):
            if self._name_at(one) != self._name_at(other):
                bounds.append((one.at + other.at + 1) // 2)
                names.append(self._name_at(other))
        bounds.append(len(branch.points))
        return [
            NamedStretch(branch.number, start, end, *name)
            for (start, end), name in zip(pairwise(bounds), names, strict=True)
            if end > start
        ]

    def _name_at(self, mark: _Mark) -> tuple[str, float]:
        name = self.names[mark.name]
        return name.segment, name.doubt

    def stretch_at(
        self, point: tuple[float, float], reach: float = 6
    ) -> NamedStretch | None:
        """The stretch under a point (row, column), or the nearest within reach."""
        branch = self.tree.branch_at(point, reach)
        if branch is None:
            return None
        at = _nearest(branch, point)
        return next(s for s in self.stretches[branch.number] if s.start <= at < s.end)

    def rename(
        self,
        point: tuple[float, float],
        segment: str,
        *,
        onward: bool = False,
        reach: float = 6,
    ) -> tuple[SegmentName, ...]:
        """Name the stretch at a point, from bifurcation to bifurcation.

        Parameters
        ----------
        point : (row, column)
        segment : str
            SYNTAX number; empty to take the name away.
        onward : bool
            Name only what lies downstream of the point.

        Returns
        -------
        tuple of SegmentName
            All names; as they were where there is no vessel.
        """
        old = self.stretch_at(point, reach)
        if old is None:
            return self.names
        start, end = old.start, old.end
        if onward:
            branch = self.tree.branches[old.branch]
            at, last = _nearest(branch, point), len(branch.points)
            start, end = (at, last) if self.runs_downstream(branch) else (0, at + 1)
        parts = [NamedStretch(old.branch, start, end, segment)]
        for other in self.stretches[old.branch]:
            for first, last in (
                (other.start, min(other.end, start)),
                (max(other.start, end), other.end),
            ):
                if last > first:
                    parts.append(replace(other, start=first, end=last))
        return self.with_stretches(old.branch, parts)

    def runs_downstream(self, branch: Branch) -> bool:
        """Whether a branch's points run away from the ostium.

        The ostium is the widest free end of a component; a branch without bifurcations
        begins where it is wider.
        """
        trunk = branch.number in self._depths[1]
        first, last = (
            self._depths[0].get(joint, np.inf) if joint >= 0 or not trunk else -1.0
            for joint in branch.joints
        )
        if first != last:
            return bool(first < last)
        begin, end = branch.end_radii
        return begin >= end

    @cached_property
    def _depths(self) -> tuple[dict[int, float], set[int]]:
        """Distance of each bifurcation from its ostium, and the branches that begin."""
        meeting: dict[int, list[Branch]] = {}
        ends: list[tuple[float, int]] = []
        for branch in self.tree.branches:
            for joint in branch.joints:
                meeting.setdefault(joint, []).append(branch)
            if (branch.joints[0] < 0) != (branch.joints[1] < 0):
                ends.append((branch.end_radii[branch.joints[1] < 0], branch.number))
        depths: dict[int, float] = {}
        trunks: set[int] = set()
        for _, number in sorted(ends, reverse=True):
            root = self.tree.branches[number]
            if max(root.joints) in depths:
                continue
            trunks.add(number)
            waiting = [(root.length, max(root.joints))]
            while waiting:
                depth, joint = heapq.heappop(waiting)
                if joint in depths:
                    continue
                depths[joint] = depth
                for branch in meeting[joint]:
                    other = sum(branch.joints) - joint
                    if other >= 0 and other not in depths:
                        heapq.heappush(waiting, (depth + branch.length, other))
        return depths, trunks

    def with_stretches(
        self, branch: int, stretches: Iterable[NamedStretch]
    ) -> tuple[SegmentName, ...]:
        """All names, with those of one branch replaced."""
        gone = {(mark.name, mark.point) for mark in self._attached.get(branch, [])}
        names = []
        for number, name in enumerate(self.names):
            points = tuple(p for p in name.points if (number, p) not in gone)
            if points:
                names.append(replace(name, points=points))
        parts = sorted(stretches, key=lambda stretch: stretch.start)
        if any(stretch.segment for stretch in parts):
            names += [self.name_of(stretch) for stretch in parts]
        return tuple(names)

    def name_of(self, stretch: NamedStretch) -> SegmentName:
        """The name that keeps a stretch, as points of its centreline."""
        branch, joints = self.tree.branches[stretch.branch], self.tree.joints
        start, last = stretch.start, stretch.end - 1
        # Not in the disc of a bifurcation, where a point may come to another branch.
        room = (last - start) // 3
        if branch.joints[0] >= 0 and start == 0:
            start += min(room, round(joints[branch.joints[0]][2]) + 2)
        if branch.joints[1] >= 0 and last == len(branch.points) - 1:
            last -= min(room, round(joints[branch.joints[1]][2]) + 2)
        count = 2 + (last - start) // _SPACING
        at = np.unique(np.linspace(start, last, count).round().astype(int))
        points = tuple((int(row), int(column)) for row, column in branch.points[at])
        return SegmentName(stretch.segment, points, stretch.doubt)

    def values(self) -> np.ndarray:
        """The tree as a map of :data:`VALUES`.

        Returns
        -------
        uint8 array (Y, X)
            0 for background, :data:`UNNAMED` for vessels that have no certain name.
        """
        from scipy.spatial import cKDTree  # slow to import

        values = np.zeros(self.tree.mask.shape, np.uint8)
        values[self.tree.mask] = UNNAMED
        for branch in self.tree.branches:
            parts = self.stretches[branch.number]
            codes = [VALUES[p.segment] if p.is_named else UNNAMED for p in parts]
            where = self.tree.pixels(branch)
            if len(parts) == 1:
                values[where] = codes[0]
                continue
            along = np.repeat(codes, [part.end - part.start for part in parts])
            _, at = cKDTree(branch.points).query(np.transpose(where))
            values[where] = along[at]
        return values


class _Mark(NamedTuple):
    """A point of a name that lies in a branch."""

    at: int  # index on the centreline
    name: int  # index in the names
    point: tuple[int, int]


def _nearest(branch: Branch, point: tuple[float, float]) -> int:
    """Index of the centreline's point that is nearest."""
    return int(np.hypot(*(branch.points - np.asarray(point)).T).argmin())


def segment_near(names: Iterable[SegmentName], point: tuple[float, float]) -> str:
    """SYNTAX number of the certain name whose centreline passes a point.

    Empty where none does, as beside a named vessel. Takes no tree, and microseconds.
    """
    found = [
        (float(np.hypot(*(resample(name.points) - point).T).min()), name.segment)
        for name in names
        if name.doubt <= DOUBTFUL
    ]
    away, segment = min(found, default=(np.inf, ""))
    return segment if away <= _MOVED else ""
