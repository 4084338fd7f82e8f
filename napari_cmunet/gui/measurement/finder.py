"""Narrowings of the shown tree as a ranked list, to be visited one by one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.measurement.measurement import calibration_of
from napari_cmunet.io.measurements import ranked
from napari_cmunet.vessels.qca import LEAST_STENOSIS, Markers, analyse_tree

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.gui.measurement.measurement import Measurement
    from napari_cmunet.vessels.qca import Calibration, Lesion

    Place = tuple[tuple[float, float], Lesion]


class StenosisFinder:
    """Searches the tree of the shown mask, and goes from narrowing to narrowing."""

    #: The search or its result has changed.
    changed = Signal()

    def __init__(self, controller: Controller, measurement: Measurement) -> None:
        self._controller, self._measurement = controller, measurement
        self.least = LEAST_STENOSIS
        #: Where a lesion is narrowest, and the lesion; the first is the most likely.
        self.places: list[Place] | None = None
        self.message = ""
        self._of: tuple[ImageState, int] | None = None
        self._searched = 0  # fingerprint of the searched mask
        self._jobs = JobRunner("Finding stenoses", failure="The search failed")

    @property
    def running(self) -> bool:
        """Whether a search is under way."""
        return self._jobs.running

    @property
    def calibration(self) -> Calibration:
        """The pixel size of the searched image."""
        assert self._of is not None
        return calibration_of(self._of[0])

    def find(self) -> None:
        """Search the shown mask, in a worker."""
        if (here := self._controller.images.editable) is None:
            return
        state, frame = here
        mask = state.mask_frame(frame) != 0
        self._of, self._searched = (state, frame), fingerprint(mask)
        drawn = None
        if state.has_prediction(frame):
            drawn = mask != state.thresholded(frame).astype(bool)
        self.places = None
        frames = Frames.of(state.image)
        self._jobs.start(
            partial(_search, frames, frame, mask, drawn, self.least),
            on_result=self._on_result,
            on_error=self._on_error,
        )
        self.message = "Searching…"
        self.changed.emit()

    def follow(self) -> None:
        """Drop what was found of another image or frame; edits of the mask keep it."""
        if self._of != self._controller.images.editable:
            self.clear()

    def clear(self) -> None:
        """Drop what was found. Idempotent."""
        if self._of is not None:
            self._jobs.cancel()
            self._of = self.places = None
            self.message = ""
            self.changed.emit()

    def go(self, number: int) -> None:
        """Show a place in the middle of the canvas, and measure its branch."""
        if self._of is None or self.places is None:
            return
        state, frame = self._of
        point, lesion = self.places[number]
        camera = self._controller.viewer.scene.camera
        centre = np.array(camera.center, float)
        inner = (frame, *point) if state.is_cine else point
        centre[-2:] = state.image.data_to_world(inner)[-2:]
        camera.center = tuple(centre)
        limits = Markers(start=lesion.start, end=lesion.end)
        if fingerprint(state.mask_frame(frame)) != self._searched:
            limits = Markers()  # the branch may be another since an edit
        self._measurement.measure(state, frame, (point,), limits)

    def _on_result(self, places: list[Place]) -> None:
        self.places = places
        self.message = "" if places else "No narrowing of so much is found."
        self.changed.emit()

    def _on_error(self, message: str) -> None:
        self.message = message
        self.changed.emit()


def _search(
    frames: Frames,
    frame: int,
    mask: np.ndarray,
    drawn: np.ndarray | None,
    least: float,
    report: Report,
    should_stop: ShouldStop,
) -> list[Any]:
    """Measure the whole tree. Runs in a worker."""
    tree = analyse_tree(frames[frame], mask, drawn=drawn, least=least)
    return [
        (tuple(map(float, tree[number].borders.centre[lesion.at])), lesion)
        for number, lesion in ranked(tree)
        if lesion.is_resolved
    ]
