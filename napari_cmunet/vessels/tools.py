"""The vessel tools: what a click would do at each position.

``TOOLS`` is the table from which the panel's buttons, keys and previews are made. To
add a tool, derive a class from :class:`VesselTool` and append an instance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_cmunet.vessels.centreline import length, resample, smooth
from napari_cmunet.vessels.edits import (
    Edit,
    draw_vessel,
    follow_run,
    remove_branches,
)
from napari_cmunet.vessels.minimal_path import Tracer, short_path, snap
from napari_cmunet.vessels.tree import Branch, Gap, VesselTree, build_tree, find_gaps
from napari_cmunet.vessels.uncertainty import likely_missing, mask_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.vessels.uncertainty import Segment
    from napari_cmunet.vessels.vesselness import FrameFeatures

T = TypeVar("T", "Segment", Gap)

Point = tuple[float, float]
"""Row and column in pixels of a frame."""

REACH = 8.0
"""Distance (pixels of the working grid) at which the cursor picks a branch."""

NARROWER, WIDER = "[", "]"
"""Keys that change the width of a path before its second click."""

CONFIDENT = 0.5
"""Branches of the mask with a lower artery probability are marked as uncertain."""

_REACH_MISSING = 5.0
_MAX_LINK = 14.0


@dataclass(frozen=True)
class EditContext:
    """A frame and its mask, with all that the tools need."""

    features: FrameFeatures
    tree: VesselTree  # of the mask
    #: bool array (Y, X), optional; marked as not artery by the user.
    background: np.ndarray | None = None
    #: bool array (Y, X), optional; what was there before the contrast: no artery.
    seen_before: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray:
        """The mask, bool (Y, X)."""
        return self.tree.mask

    @cached_property
    def gaps(self) -> list[Gap]:
        """Where vessels seem to be interrupted."""
        return find_gaps(self.tree)

    @cached_property
    def missing(self) -> list[Segment]:
        """Missing branches, most likely first; not what was seen before contrast."""
        known = [a for a in (self.background, self.seen_before) if a is not None]
        background = np.logical_or.reduce(known) if known else None
        return likely_missing(self.features, self.mask, background)

    @cached_property
    def uncertain(self) -> list[Segment]:
        """Branches of the mask and missing ones, largest expected error first."""
        segments = mask_segments(self.features, self.tree) + self.missing
        return sorted(segments, key=lambda s: s.expected_error, reverse=True)

    @cached_property
    def seen_before_tree(self) -> VesselTree | None:
        """Centrelines of what was there before the contrast, outside the mask."""
        if self.seen_before is None or not self.seen_before.any():
            return None
        return build_tree(self.seen_before & ~self.mask)

    def branch_at(self, point: Point) -> Branch | None:
        """Branch under a point or within reach of it."""
        return self.tree.branch_at(point, REACH * self.features.step)

    def was_seen_before(self, branch: Branch) -> bool:
        """Whether most of a branch of the mask was there before the contrast."""
        if self.seen_before is None:
            return False
        return bool(self.seen_before[tuple(branch.points.T)].mean() > 0.5)


def prepare_context(
    features: FrameFeatures,
    mask: np.ndarray,
    background: np.ndarray | None = None,
    seen_before: np.ndarray | None = None,
) -> EditContext:
    """Make the context of a mask, with everything computed that hovering needs.

    Parameters
    ----------
    mask : array (Y, X)
        Copied; above 0 is artery.
    background : bool array (Y, X), optional
        Marked as not artery by the user.
    seen_before : bool array (Y, X), optional
        What was there before the contrast, and is no artery.
    """
    tree = build_tree(np.array(mask) > 0)
    context = EditContext(features, tree, background, seen_before)
    for name in ("numbers", "components"):
        getattr(context.tree, name)
    for name in ("gaps", "uncertain"):
        getattr(context, name)
    if context.seen_before_tree is not None:
        _ = context.seen_before_tree.numbers
    return context


@dataclass(frozen=True)
class Proposal:
    """What a click would do."""

    edit: Edit  # empty where a click would change nothing
    hint: str  # one line that describes it


class VesselTool(ABC):
    """A tool that edits whole vessels with one or two clicks.

    Attributes
    ----------
    name, title, key : str
        Identifier, text of the button, and shortcut.
    tooltip, hint, summary : str
        For the button, for the status bar before anything is picked, and for the list
        of shortcuts.
    marks_background : bool
        Whether pixels that it removes are remembered as reviewed background.
    """

    name: str
    title: str
    key: str
    tooltip: str
    hint: str
    summary: str
    marks_background = False

    @abstractmethod
    def propose(
        self, context: EditContext, point: Point, *, shift: bool = False
    ) -> Proposal | None:
        """Return what a click at a point would do, None for nothing."""

    def start_path(self, context: EditContext, point: Point) -> Tracer | None:
        """Take a first click where nothing is proposed; None if there is no second."""
        return None

    @abstractmethod
    def can_fix(self, segment: Segment) -> bool:
        """Whether to mark an uncertain segment while the tool is active."""


class AddTool(VesselTool):
    """Adds vessels: between clicks, a missing branch, a gap, what was left out."""

    name, title, key = "add", "Add", "A"
    tooltip = (
        "Two clicks add the vessel between them, with its width; one click adds a "
        "yellow branch, closes a gap, or takes what is outlined in blue for artery"
    )
    hint = "Click where a missing vessel begins, or on a yellow branch, or on a gap."
    summary = "add a vessel: click, click"

    def propose(
        self, context: EditContext, point: Point, *, shift: bool = False
    ) -> Proposal | None:
        """Close the gap or add the branch at a point; Shift starts a path instead."""
        if shift:
            return None
        return (
            propose_bridge(context, point)
            or propose_branch(context, point)
            or propose_seen_before(context, point)
        )

    def start_path(self, context: EditContext, point: Point) -> Tracer:
        """Start at the tree, or at the vessel under the point."""
        return start_path(context, point)

    def can_fix(self, segment: Segment) -> bool:
        """Missing branches."""
        return not segment.in_mask


class RemoveTool(VesselTool):
    """Removes a branch, or a whole catheter or wire."""

    name, title, key = "remove", "Remove", "S"
    tooltip = (
        "Remove a branch up to its bifurcation, or a whole detached part. Shift: the "
        "whole run of a catheter or wire. Remembered as reviewed background."
    )
    hint = (
        "Click a branch to remove it; yellow ones are uncertain. Shift+click: a whole "
        "catheter or wire."
    )
    summary = "remove a branch; Shift: the whole run"
    marks_background = True

    def propose(
        self, context: EditContext, point: Point, *, shift: bool = False
    ) -> Proposal | None:
        """Remove the branch at a point, or the whole run; see the tooltip."""
        branch = context.branch_at(point)
        if branch is None:
            return None
        detached = context.tree.is_detached(branch)
        if shift or detached or context.was_seen_before(branch):
            return propose_run_removal(context, point)
        return propose_removal(context, point)

    def can_fix(self, segment: Segment) -> bool:
        """Uncertain branches of the mask."""
        return segment.in_mask and segment.artery_probability < CONFIDENT


ADD, REMOVE = AddTool(), RemoveTool()
TOOLS: tuple[VesselTool, ...] = (ADD, REMOVE)


def propose_removal(context: EditContext, point: Point) -> Proposal | None:
    """Propose to remove the branch at a point."""
    branch = context.branch_at(point)
    if branch is None:
        return None
    return Proposal(
        remove_branches(context.tree, [branch]),
        f"Click: remove this branch ({branch.length:.0f} px long). "
        "Shift: the whole run",
    )


def propose_run_removal(context: EditContext, point: Point) -> Proposal | None:
    """Propose to remove the whole run at a point, as not artery."""
    branch = context.branch_at(point)
    if branch is None:
        return None
    run = follow_run(context.tree, branch)
    total = sum(b.length for b in run)
    return Proposal(
        remove_branches(context.tree, run),
        f"Click: not an artery, remove the whole run ({total:.0f} px)",
    )


def start_path(context: EditContext, point: Point) -> Tracer:
    """Take the first click of a path, snapped to the tree or to the vessel."""
    start, _ = snap(point, context.features, context.tree)
    return Tracer(context.features, start, context.mask)


def propose_path(
    context: EditContext, tracer: Tracer, point: Point, widening: float = 1.0
) -> Proposal:
    """Propose to add the vessel from the first click to a point."""
    end, on_tree = snap(point, context.features, context.tree)
    path = tracer.path_to(end)
    edit = draw_vessel(context.features, context.mask, path, widening)
    joined = ", joined to the tree" if on_tree else ""
    return Proposal(
        edit,
        f"Click: add this vessel ({length(path):.0f} px long{joined}). "
        f"{NARROWER} {WIDER}: width. Esc: cancel",
    )


def propose_branch(context: EditContext, point: Point) -> Proposal | None:
    """Propose to add the missing branch at a point."""
    segment = _nearest(context, context.missing, point)
    if segment is None:
        return None
    edit = draw_vessel(context.features, context.mask, _linked(context, segment))
    return Proposal(
        edit,
        f"Click: add this branch ({segment.length:.0f} px long, "
        f"{100 * segment.artery_probability:.0f} % likely artery)",
    )


def propose_seen_before(context: EditContext, point: Point) -> Proposal | None:
    """Propose to add what was left out as seen before the contrast at a point."""
    tree = context.seen_before_tree
    if tree is None:
        return None
    branch = tree.branch_at(point, _REACH_MISSING * context.features.step)
    if branch is None:
        return None
    path = smooth(resample(branch.points.astype(float)), 2.0 * context.features.step)
    return Proposal(
        draw_vessel(context.features, context.mask, path),
        f"Click: take this for artery, though it was there before the contrast "
        f"({branch.length:.0f} px long). Shift+click: a vessel of your own",
    )


def _nearest(context: EditContext, places: Sequence[T], point: Point) -> T | None:
    """The place nearest to a point, if it is within reach."""
    nearest = min(places, key=lambda place: place.distance(point), default=None)
    if nearest is None:
        return None
    reach = _REACH_MISSING * context.features.step
    return nearest if nearest.distance(point) <= reach else None


def _linked(context: EditContext, segment: Segment) -> np.ndarray:
    """Centreline of a missing branch, extended to the tree if that is near."""
    step = context.features.step
    points = segment.points.astype(float)
    path = smooth(resample(points), 2.0 * step)
    if not context.tree.branches:
        return path
    lines = np.concatenate([b.points for b in context.tree.branches])
    away = np.hypot(*(points[[0, -1], None] - lines[None]).transpose(2, 0, 1))
    end = int(away.min(axis=1).argmin())
    nearest = lines[away[end].argmin()]
    if away[end].min() > _MAX_LINK * step + 2:
        return path
    tip = points[-1 if end else 0]
    link = short_path(
        context.features, (tip[0], tip[1]), (float(nearest[0]), float(nearest[1]))
    )
    if end == 0:
        path = path[::-1]
    return resample(np.concatenate([path, link[1:]]))


def propose_bridge(context: EditContext, point: Point) -> Proposal | None:
    """Propose to close the gap at a point."""
    gap = _nearest(context, context.gaps, point)
    if gap is None:
        return None
    path = short_path(context.features, gap.start, gap.end)
    edit = draw_vessel(context.features, context.mask, path)
    return Proposal(edit, f"Click: close this gap ({gap.length:.0f} px)")
