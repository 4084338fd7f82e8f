"""The stretch of vessel that is measured: chosen by clicks, followed through edits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.canvas import Picker
from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import (
    Frames,
    pixel_size_mm,
    record_of,
    source_array,
)
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.measurement.overlay import MeasurementOverlay
from napari_cmunet.gui.measurement.request import Request
from napari_cmunet.io.measured_lesion import change_record
from napari_cmunet.vessels.qca import Calibration, Markers, evaluate

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.measurement.request import Measured, Point
    from napari_cmunet.vessels.qca import Analysis

POINTS, BRANCH = "points", "branch"
"""Ways to choose a stretch: between two points, or the branch at one."""

_HINTS = {
    POINTS: "Click on the vessel where the measurement begins. Esc: stop.",
    BRANCH: "Click on a branch. Esc: stop.",
}
_SECOND = "Now click where it ends, on the same vessel. Esc: stop."
_SETTLED_MS = 300  # after the last change, bifurcations are looked for again


def calibration_of(image_state: ImageState) -> Calibration:
    """The pixel size of an image, its error and source."""
    record = record_of(image_state.image)
    return Calibration.of(
        pixel_size_mm(image_state.image),
        record.get("pixel_size_error"),
        str(record.get("pixel_size_source") or "the scale of the layer"),
    )


def measurement_of(image_state: ImageState, frame: int) -> dict[str, Any] | None:
    """What was measured last of a frame, as JSON values; None after an edit."""
    measured = image_state.measured.get(frame)
    if measured is None or measured[0] != fingerprint(image_state.mask_frame(frame)):
        return None
    names = image_state.names.get(frame, ())
    return change_record(*measured[1:], calibration_of(image_state), names)


class Measurement:
    """The measured stretch of the active image, and the clicks that choose it."""

    #: What is measured, the way of choosing or the message has changed.
    changed = Signal()
    #: Clicks are about to choose a stretch.
    started = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._viewer = controller.viewer
        self.overlay = MeasurementOverlay(controller.viewer)
        self.analysis: Analysis | None = None
        #: Of the model's own mask; None where that has no such vessel.
        self.model: Analysis | None = None
        self.markers: Markers | None = None
        #: How a click chooses a stretch, None while none does.
        self.picking: str | None = None
        self.message = ""
        self._points: tuple[Point, ...] = ()
        self._of: tuple[ImageState, int] | None = None
        self._known: Measured | None = None
        self._key: tuple[int, ...] = ()
        self._shown_at: tuple[Any, ...] = ()
        self._mask: Labels | None = None
        self._picker = Picker(controller, self._take, self._on_stopped)
        self._picker.starting.connect(self.started.emit)
        self._jobs = JobRunner("Measuring", failure="The vessel cannot be measured")
        self._settled = QTimer()
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLED_MS)
        self._settled.timeout.connect(lambda: self._start(live=False))

    @property
    def running(self) -> bool:
        """Whether a result is awaited."""
        return self._jobs.running or self._settled.isActive()

    @property
    def frame(self) -> int | None:
        """Index of the measured frame."""
        return None if self._of is None else self._of[1]

    @property
    def calibration(self) -> Calibration:
        """The pixel size of the measured image, None where it is not known."""
        assert self._of is not None
        return calibration_of(self._of[0])

    # -- choosing ----------------------------------------------------------------

    def pick(self, way: str) -> None:
        """Choose by clicks from now on, or stop choosing."""
        if self.picking == way:
            self.stop_picking()
            return
        self.stop_picking()
        if self._picker.start():
            self.picking, self._points = way, ()
            self._say(_HINTS[way])

    def stop_picking(self) -> None:
        """Stop choosing; what is measured stays. Idempotent."""
        self._picker.stop()

    def _on_stopped(self) -> None:
        self.picking = None
        self._say("")

    def take(self, way: str) -> None:
        """Take the point under the cursor, as a click does."""
        if self.picking != way:
            self.pick(way)
        if self.picking is not None:
            self._take(self._viewer.cursor.position)

    def _take(self, position: tuple[float, ...], shift: bool = False) -> None:
        place = self._picker.place(position)
        if place is None:
            return
        image_state, frame, point = place
        points = (*self._points, point)
        if self.picking == POINTS and len(points) < 2:
            self._points = points
            self._say(_SECOND)
            return
        self.stop_picking()
        self.measure(image_state, frame, points)

    # -- measuring ---------------------------------------------------------------

    def measure(
        self,
        image_state: ImageState,
        frame: int,
        points: tuple[Point, ...],
        markers: Markers | None = None,
    ) -> None:
        """Measure between two points, or the branch at one, in place of the former."""
        self.close()
        self._of, self._points = (image_state, frame), points
        self.markers = markers or Markers()
        self._connect(image_state.mask)
        self._start(live=False)

    def move_marker(self, name: str, at: int) -> None:
        """Set a marker (start, at, end, reference) at a point of the centreline."""
        found, markers = self.analysis, self.markers
        if found is None or markers is None:
            return
        lesion, last = found.narrowest, found.length
        at = int(np.clip(at, 0, last))
        if name == "start":
            new = {"start": min(at, lesion.at), "end": lesion.end}
        elif name == "end":
            new = {"start": lesion.start, "end": max(at, lesion.at)}
        elif name == "at" and markers.limits is not None:
            new = {"at": int(np.clip(at, lesion.start, lesion.end))}
        else:
            new = {name: at}
        self.markers = replace(markers, **new)
        self.analysis = evaluate(found.borders, found.usable, self.markers)
        self._show()
        self._settled.start()

    def reset_markers(self) -> None:
        """Find lesion and reference again."""
        if self.markers is not None and self.analysis is not None:
            self.markers = Markers()
            self._start(live=True)

    def close(self) -> None:
        """Remove the measurement and its layer. Idempotent."""
        self._jobs.cancel()
        self._settled.stop()
        self._connect(None)
        self.overlay.hide()
        self.analysis = self.model = self.markers = self._of = self._known = None
        self._key = ()
        self._say("")

    def follow(self) -> None:
        """Measure again after an edit; close with the image."""
        if self.picking is not None and self._controller.images.editable is None:
            self.stop_picking()
        if self._of is None:
            return
        image_state, frame = self._of
        layers, layer = self._viewer.layers, self.overlay.layer
        if (
            image_state is not self._controller.active
            or image_state.image not in layers
            or not image_state.usable_mask
            or frame >= image_state.count
            or (layer is not None and layer not in layers)
        ):
            self.close()
            return
        self._connect(image_state.mask)
        if self._now() != self._key and not self._jobs.running:
            self._start(live=True)
        elif self.analysis is not None and self._place() != self._shown_at:
            self._show()

    def _connect(self, mask: Labels | None) -> None:
        """Follow the strokes on a mask while they are drawn."""
        if mask is self._mask:
            return
        if self._mask is not None:
            self._mask.events.labels_update.disconnect(self._on_drawn)
        if mask is not None:
            mask.events.labels_update.connect(self._on_drawn)
        self._mask = mask

    def _on_drawn(self, event: Any) -> None:
        self.follow()

    def _now(self) -> tuple[int, ...]:
        """Tells one state of mask, prediction and pixels from another."""
        assert self._of is not None
        image_state, frame = self._of
        return (
            fingerprint(image_state.mask_frame(frame)),
            id(image_state.sources.get(frame)),
            hash(float(image_state.thresholds[frame])),
            id(source_array(image_state.image)),
        )

    def _place(self) -> tuple[Any, ...]:
        """Size of the image's pixels, in which the measurement is shown."""
        assert self._of is not None
        image = self._of[0].image
        return self.calibration, tuple(image.scale), image.units

    def _start(self, *, live: bool) -> None:
        if self._of is None or self.markers is None:
            return
        image_state, frame = self._of
        former = self._key
        self._key = self._now()
        known = self._known if former[3:] == self._key[3:] else None
        request = Request(
            frames=Frames.of(image_state.image),
            frame=frame,
            mask=image_state.mask_frame(frame) != 0,
            found=image_state.thresholded(frame).astype(bool)
            if image_state.has_prediction(frame)
            else None,
            points=self._points,
            markers=self.markers,
            known=known,
            live=live and former[1:] == self._key[1:],
        )
        self._jobs.start(
            request.run, on_result=self._on_measured, on_error=self._on_error
        )
        if live:
            self._settled.start()
        else:
            self._settled.stop()
        self.changed.emit()

    def _on_measured(self, found: Measured) -> None:
        former, self._known = self._known, found
        self.analysis, self.model = found.analysis, found.model
        if former is None or former.path is not found.path:
            self.markers = found.markers
        elif self.markers is not None and self.markers != found.markers:
            part = found.analysis
            self.analysis = evaluate(part.borders, part.usable, self.markers)
        self.message = ""
        self._show()
        self.follow()  # it may have been edited meanwhile

    def _on_error(self, message: str) -> None:
        self.analysis = self.model = self._known = None
        self.overlay.hide()
        self._say(message)

    def _show(self) -> None:
        assert self._of is not None and self.analysis is not None
        image_state, frame = self._of
        image_state.measured[frame] = (self._key[0], self.model, self.analysis)
        former, self._shown_at = self._shown_at, self._place()
        if former != self._shown_at:
            self.overlay.hide()
        self.overlay.show(*self._of, self.analysis)
        self.changed.emit()

    def _say(self, message: str) -> None:
        self.message = message
        self.changed.emit()
