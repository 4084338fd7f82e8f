"""Best frame, mask propagation and pixel size in the panel."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from napari.settings import get_settings
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.cine.calibration import (
    USUAL_FRENCH,
    CatheterCalibration,
    is_calibrated,
)
from napari_cmunet.gui.cine.propagation import PropagationRow
from napari_cmunet.gui.images.layers import (
    Frames,
    pixel_size_mm,
    record_of,
    show_frame,
)
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.widgets import (
    button,
    column,
    combo,
    group,
    lay_out_again,
    row,
    text_label,
)

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop


def play_at(frames_per_second: object) -> None:
    """Set napari's playback rate, which is a preference, if the cine has one."""
    if isinstance(frames_per_second, (int, float)) and frames_per_second > 0:
        rate = max(1, round(frames_per_second))
        application = get_settings().application
        if application.playback_fps != rate:
            application.playback_fps = rate


_FRENCH = (4, 5, 6, 7, 8)  # sizes of coronary catheters


class PixelSizeRow(QWidget):
    """The pixel size of the image, and its measurement on a catheter."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.calibration = CatheterCalibration(controller)
        self.destroyed.connect(self.calibration.jobs.cancel)
        self.text = text_label()
        self.start = button(
            "Calibrate…",
            "Find the pixel size from a catheter of known width in this frame",
        )
        self.reset = button(
            "Reset", "Restore the pixel size from before the calibration"
        )
        self.french = combo("The catheter's outer diameter; 1 French is 1/3 mm")
        for size in _FRENCH:
            self.french.addItem(f"{size} F ({size / 3:.2f} mm)", size)
        self.french.setCurrentIndex(_FRENCH.index(USUAL_FRENCH))
        self.apply = button("Use", "Use this pixel size for the image")
        self.cancel = button("Cancel", "Keep the pixel size as it is")
        self.message = text_label(lines=4)
        self.measuring = group(
            column(row(self.french, self.apply, self.cancel, stretch=0), self.message)
        )
        self.setLayout(
            column(row(self.text, self.start, self.reset, stretch=0), self.measuring)
        )
        self.start.clicked.connect(self.calibration.start)
        self.reset.clicked.connect(self.calibration.reset)
        self.apply.clicked.connect(self.calibration.apply)
        self.cancel.clicked.connect(self.calibration.cancel)
        self.french.activated.connect(self._on_french)
        self.calibration.changed.connect(self.refresh)

    def _on_french(self) -> None:
        self.calibration.set_french(self.french.currentData())

    def refresh(self) -> None:
        """Show the pixel size of the active image, or the measurement."""
        image_state = self._controller.active
        self.calibration.update()
        if image_state is not None and image_state.unsupported is not None:
            image_state = None
        usable = image_state is not None
        measuring = self.calibration.active
        self.setVisible(usable)
        before = self.text.text(), self.message.text(), self.measuring.isHidden()
        self.text.setText("" if image_state is None else pixel_size_text(image_state))
        self.start.setVisible(not measuring)
        self.start.setEnabled(
            image_state is not None
            and image_state.image in self._controller.viewer.layers
        )
        self.reset.setVisible(
            image_state is not None and is_calibrated(image_state) and not measuring
        )
        self.measuring.setVisible(measuring)
        self.apply.setEnabled(self.calibration.width is not None)
        self.message.setText(self.calibration.message)
        if before != (self.text.text(), self.message.text(), self.measuring.isHidden()):
            lay_out_again(self.measuring)


def pixel_size_text(image_state: ImageState) -> str:
    """Pixel size and its source, as text."""
    source = record_of(image_state.image).get("pixel_size_source") or ""
    size = pixel_size_mm(image_state.image)
    if size is None:
        return "Pixel: size unknown" + source.removeprefix("unknown")
    height, width = (f"{value:.3g}" for value in size)
    sides = height if height == width else f"{height} x {width}"
    return f"Pixel: {sides} mm, {source or 'the scale of the layer'}"


_MIN_FRAMES = 5  # for a search of the best frame


class CineSection(QWidget):
    """Best frame, mask propagation and pixel size.

    The best frame is searched for in a worker, once for each cine, as soon as one of
    its frames is segmented.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.propagation = PropagationRow(controller)
        self.pixel_size = PixelSizeRow(controller)
        self.best = button("Best frame", "Show the frame that is best filled")
        self.setLayout(column(self.best, self.propagation, self.pixel_size))
        self._shown: weakref.ref[ImageState] | None = None
        self._jobs = JobRunner("Searching the best frame")
        self.destroyed.connect(self._jobs.cancel)
        self.best.clicked.connect(self._on_clicked)
        self.show_image_state(None)

    def show_image_state(self, image_state: ImageState | None) -> None:
        """Show an image, and search its best frame if that is unknown."""
        before = self._shown_state()
        self._shown = None if image_state is None else weakref.ref(image_state)
        self.propagation.refresh()
        self.pixel_size.refresh()
        frame = image_state.best_frame if image_state is not None else None
        self.best.setVisible(frame is not None)
        if frame is not None:
            self.best.setText(f"Best frame: {frame}")
        if image_state is None:
            return
        if image_state is not before:
            play_at(record_of(image_state.image).get("frames_per_second"))
        if (
            not image_state.best_frame_searched
            and not self._jobs.running
            and image_state.sources
        ):
            self._search(image_state)

    def stop(self) -> None:
        """Stop the search, and drop what is not accepted. Idempotent."""
        self._jobs.cancel()
        self.propagation.propagation.dismiss()
        self.pixel_size.calibration.cancel()

    def _shown_state(self) -> ImageState | None:
        return self._shown() if self._shown is not None else None

    def _search(self, image_state: ImageState) -> None:
        image = image_state.image
        image_state.best_frame_searched = True  # not again, should it fail
        if image_state.count < _MIN_FRAMES or image.rgb:
            return

        def on_result(frame: int | None) -> None:
            image_state.fullest_frame = frame
            self._controller.changed.emit()

        self._jobs.start(
            partial(_find, Frames.of(image)),
            on_result=on_result,
            on_error=lambda _: self._controller.changed.emit(),
        )

    def _on_clicked(self) -> None:
        image_state = self._shown_state()
        if image_state is not None and (frame := image_state.best_frame) is not None:
            show_frame(image_state.image, self._controller.viewer, frame)


def _find(frames: Frames, report: Report, should_stop: ShouldStop) -> int | None:
    """Find the best frame. Runs in a worker; may decode every frame."""
    from napari_cmunet.cine.best_frame import find_best_frame

    return find_best_frame(frames, should_stop)
