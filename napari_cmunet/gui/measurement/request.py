"""What a worker is given to measure, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import CMUNetError
from napari_cmunet.vessels.centreline import path_between
from napari_cmunet.vessels.qca import Markers, analyse
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from napari_cmunet.gui.images.layers import Frames
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.vessels.qca import Analysis

    Point = tuple[float, float]
    Joints = list[tuple[int, int, float]]

_APART = (
    "The mask does not connect these points. Add what is missing between them, or "
    "click elsewhere."
)
_BESIDE = "There is no branch of the mask."


@dataclass(frozen=True)
class Measured:
    """What the worker found."""

    pixels: np.ndarray
    path: np.ndarray
    joints: Joints
    markers: Markers
    analysis: Analysis
    model: Analysis | None


@dataclass(frozen=True)
class Request:
    """Copies and references that a worker may read.

    ``known`` holds the pixels, path and joints of the measurement before, as long as
    they can be used again: then it takes milliseconds.
    """

    frames: Frames
    frame: int
    mask: np.ndarray
    found: np.ndarray | None
    points: tuple[Point, ...]
    markers: Markers
    known: Measured | None
    live: bool

    def run(self, report: Report, should_stop: ShouldStop) -> Measured:
        """Measure in a worker."""
        known = self.known
        pixels = self.frames[self.frame] if known is None else known.pixels
        path, joints = self._stretch()
        markers = self.markers
        if known is not None and known.path is not path:
            markers = Markers()  # they were set on another centreline
        drawn = None if self.found is None else self.mask != self.found
        try:
            analysis = analyse(
                pixels, self.mask, path, joints=joints, drawn=drawn, markers=markers
            )
        except ValueError as error:
            raise CMUNetError(f"This cannot be measured: {error}.") from error
        if self.live and known is not None and known.path is path:
            model = known.model
        else:
            model = self._model(pixels, path, joints, analysis)
        return Measured(pixels, path, joints, markers, analysis, model)

    def _stretch(self) -> tuple[np.ndarray, Joints]:
        known = self.known
        path = known.path if known is not None else None
        if path is not None and self.mask[tuple(path.T)].all():
            assert known is not None
            if self.live:
                return path, known.joints
            tips = {tuple(path[0]), tuple(path[-1])}
            free = [joint for joint in known.joints if joint[:2] in tips]
            return path, build_tree(self.mask).joints_on(path) + free
        if len(self.points) == 2:
            path = path_between(self.mask, *self.points)
            if path is None:
                raise CMUNetError(_APART)
            return path, build_tree(self.mask).joints_on(path)
        tree = build_tree(self.mask)
        branch = tree.branch_at(self.points[0])
        if branch is None:
            raise CMUNetError(_BESIDE)
        return tree.downstream(branch)

    def _model(
        self, pixels: np.ndarray, path: np.ndarray, joints: Joints, now: Analysis
    ) -> Analysis | None:
        """Measure the model's own mask at the same place, where a reader changed it."""
        if self.found is None:
            return None
        if np.array_equal(self.found, self.mask):
            return now
        markers = self.markers
        if not self.found[tuple(path.T)].all():
            between = path_between(self.found, tuple(path[0]), tuple(path[-1]))
            if between is None:
                return None
            path, markers = between, Markers()
        try:
            return analyse(pixels, self.found, path, joints=joints, markers=markers)
        except ValueError:
            return None
