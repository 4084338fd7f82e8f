"""What a click with each tool would do, said beforehand and shown while hovering.

The window and the simulated reader both correct through these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.vessels.centreline import length, resample, smooth
from napari_cmunet.vessels.edits import Edit, draw_vessel, take_away, whole_run
from napari_cmunet.vessels.minimal_path import Tracer, short_path, snap
from napari_cmunet.vessels.modes import Mode, Tool
from napari_cmunet.vessels.uncertainty import likely_artery

if TYPE_CHECKING:
    from napari_cmunet.vessels.edit_context import Scene
    from napari_cmunet.vessels.segments import Segment

Point = tuple[float, float]

REACH = 8.0
"""How near (working pixels) the cursor must be to take hold of something."""

_GRIP = 5.0
_JOIN = 14.0


@dataclass(frozen=True)
class Offer:
    """What a click would do.

    Parameters
    ----------
    edit : Edit
        Empty where a click would change nothing.
    hint : str
        One line that says so.
    """

    edit: Edit
    hint: str


def offer(tool: Tool, scene: Scene, point: Point) -> Offer | None:
    """What a click at a point would do; None where there is nothing to take hold of.

    Parameters
    ----------
    tool : Tool
        Any but ``TRACE``, which has a start: see :func:`trace_offer`.
    scene : Scene
    point : tuple of float
        Row and column in pixels of the frame.
    """
    if tool is Tool.ACCEPT:
        return _accept(scene, point)
    if tool is Tool.BRIDGE:
        return _bridge(scene, point)
    branch = scene.tree.branch_at(point, REACH * scene.evidence.step)
    if branch is None:
        return None
    if tool is Tool.REMOVE:
        edit = take_away(scene.tree, [branch])
        return Offer(
            edit,
            f"Click: remove this branch ({branch.length:.0f} px long). "
            "Shift: the whole run",
        )
    run = whole_run(scene.tree, branch)
    total = sum(each.length for each in run)
    return Offer(
        take_away(scene.tree, run),
        f"Click: not an artery, remove all of it ({total:.0f} px)",
    )


def offer_in(
    mode: Mode, scene: Scene, point: Point, *, whole: bool = False
) -> Offer | None:
    """What a click would do in a mode; None where it would begin a trace, or nothing.

    Adding closes the gap or takes the proposed branch under the cursor, if there is
    one. Removing takes a branch, or all of what hangs together apart from the tree.

    Parameters
    ----------
    mode : Mode
    scene : Scene
    point : tuple of float
        Row and column in pixels of the frame.
    whole : bool
        Remove the whole run, also where it touches the tree: a catheter, a wire.
    """
    if mode is Mode.ADD:
        return _bridge(scene, point) or _accept(scene, point)
    tool = Tool.NOT_ARTERY if whole or is_apart(scene, point) else Tool.REMOVE
    return offer(tool, scene, point)


def is_apart(scene: Scene, point: Point) -> bool:
    """Whether what is under a point hangs on nothing of the tree."""
    branch = scene.tree.branch_at(point, REACH * scene.evidence.step)
    if branch is None:
        return False
    parts = scene.tree.components
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return bool(parts[tuple(branch.points[0])] != sizes.argmax())


def begin_trace(scene: Scene, point: Point) -> Tracer:
    """Take the first click of a trace; it snaps to the tree or to the vessel."""
    start, _ = snap(point, scene.evidence, scene.tree)
    return Tracer(scene.evidence, start, scene.mask)


def trace_offer(scene: Scene, tracer: Tracer, point: Point) -> Offer:
    """What the second click of a trace would add."""
    end, on_tree = snap(point, scene.evidence, scene.tree)
    path = tracer.path_to(end)
    edit = draw_vessel(scene.evidence, scene.mask, path)
    joined = ", joined to the tree" if on_tree else ""
    return Offer(
        edit, f"Click: add this vessel ({length(path):.0f} px long{joined}). Esc: drop"
    )


def _accept(scene: Scene, point: Point) -> Offer | None:
    near = [(segment.distance(point), segment) for segment in scene.proposals]
    away, segment = min(near, key=lambda pair: pair[0], default=(np.inf, None))
    if away > _GRIP * scene.evidence.step:
        return None
    edit = draw_vessel(scene.evidence, scene.mask, _joined(scene, segment))
    return Offer(
        edit,
        f"Click: add this branch ({segment.length:.0f} px long, "
        f"{100 * likely_artery(segment):.0f} % sure)",
    )


def _joined(scene: Scene, segment: Segment) -> np.ndarray:
    """The centreline of a proposal, led on to the tree where that is near."""
    step = scene.evidence.step
    points = segment.points.astype(float)
    path = smooth(resample(points), 2.0 * step)
    if not scene.tree.branches:
        return path
    lines = np.concatenate([b.points for b in scene.tree.branches])
    away = np.hypot(*(points[[0, -1], None] - lines[None]).transpose(2, 0, 1))
    end = int(away.min(axis=1).argmin())
    nearest = lines[away[end].argmin()]
    if away[end].min() > _JOIN * step + 2:
        return path
    tip = points[-1 if end else 0]
    link = short_path(scene.evidence, tuple(tip), tuple(nearest))
    if end == 0:
        path = path[::-1]
    return resample(np.concatenate([path, link[1:]]))


def _bridge(scene: Scene, point: Point) -> Offer | None:
    near = [(gap.distance(point), gap) for gap in scene.gaps]
    away, gap = min(near, key=lambda pair: pair[0], default=(np.inf, None))
    if away > _GRIP * scene.evidence.step:
        return None
    path = short_path(scene.evidence, gap.start, gap.end)
    edit = draw_vessel(scene.evidence, scene.mask, path)
    return Offer(edit, f"Click: close this gap ({gap.length:.0f} px)")
