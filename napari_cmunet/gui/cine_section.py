"""What the panel has of the image itself: a cine's frames, and the pixel size."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from napari.settings import get_settings
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.calibration import USUAL_FRENCH, Calibrating, is_calibrated
from napari_cmunet.gui.export import pixel_size_mm
from napari_cmunet.gui.images.layers import (
    read_frame,
    record_of,
    show_frame,
    source_array,
)
from napari_cmunet.gui.propagation import CarryRow
from napari_cmunet.gui.widgets import (
    button,
    column,
    combo,
    lay_out_again,
    row,
    text_label,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState


def play_at(frames_per_second: object) -> None:
    """Set the rate of napari's play button; leave it where none is known.

    napari has one rate for all, in its preferences; whole frames a second.
    """
    if isinstance(frames_per_second, (int, float)) and frames_per_second > 0:
        rate = max(1, round(frames_per_second))
        application = get_settings().application
        if application.playback_fps != rate:
            application.playback_fps = rate


_FRENCH = (4, 5, 6, 7, 8)  # sizes of coronary catheters


class PixelSizeRow(QWidget):
    """Says how large a pixel is, and measures it.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.calibrating = Calibrating(controller)
        self.text = text_label()
        self.begin = button(
            "Measure a catheter…",
            "Find the pixel size from a catheter of known width in this frame",
        )
        self.take_back = button(
            "Take back", "Let the pixel size be what it was before it was measured"
        )
        self.french = combo("The catheter's outer diameter; 1 French is 1/3 mm")
        for size in _FRENCH:
            self.french.addItem(f"{size} F ({size / 3:.2f} mm)", size)
        self.french.setCurrentIndex(_FRENCH.index(USUAL_FRENCH))
        self.use = button("Use", "Take this for the image's pixel size")
        self.cancel = button("Cancel", "Measure nothing; the pixel size stays")
        self.said = text_label(lines=4)
        self.measuring = QWidget()
        inside = column(row(self.french, self.use, self.cancel, stretch=0), self.said)
        inside.setContentsMargins(0, 0, 0, 0)
        self.measuring.setLayout(inside)
        layout = column(
            self.text, row(self.begin, self.take_back, stretch=0), self.measuring
        )
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)
        self.begin.clicked.connect(self.calibrating.begin)
        self.take_back.clicked.connect(self.calibrating.take_back)
        self.use.clicked.connect(self.calibrating.use)
        self.cancel.clicked.connect(self.calibrating.cancel)
        self.french.activated.connect(self._on_french)
        self.calibrating.changed.connect(self.refresh)

    def _on_french(self) -> None:
        self.calibrating.set_french(self.french.currentData())

    def refresh(self) -> None:
        """Show the pixel size of the active image, or what is measured."""
        image_state = self._controller.active
        self.calibrating.update()
        usable = image_state is not None and image_state.unsupported is None
        begun = self.calibrating.begun
        self.setVisible(usable)
        before = self.text.text(), self.said.text(), self.measuring.isHidden()
        self.text.setText(pixel_size_text(image_state) if usable else "")
        self.begin.setVisible(not begun)
        self.begin.setEnabled(
            usable and image_state.image in self._controller.viewer.layers
        )
        self.take_back.setVisible(usable and is_calibrated(image_state) and not begun)
        self.measuring.setVisible(begun)
        self.use.setEnabled(self.calibrating.width is not None)
        self.said.setText(self.calibrating.message)
        if before != (self.text.text(), self.said.text(), self.measuring.isHidden()):
            lay_out_again(self.measuring)


def pixel_size_text(image_state: ImageState) -> str:
    """How large a pixel is, and where that comes from."""
    source = record_of(image_state.image).get("pixel_size_source") or ""
    size = pixel_size_mm(image_state)
    if size is None:
        return "Pixel: size unknown" + source.removeprefix("unknown")
    height, width = (f"{value:.3g}" for value in size)
    sides = height if height == width else f"{height} x {width}"
    return f"Pixel: {sides} mm, {source or 'the scale of the layer'}"


_LEAST_FRAMES = 5  # of fewer, one sees at once which is best filled


class CineSection(QWidget):
    """The frame that is best filled, masks carried between frames, the pixel size.

    The frame is looked for in a worker, once for each cine, when the first of its
    frames is segmented.

    Parameters
    ----------
    controller : Controller
    parent : QWidget, optional
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self.carry = CarryRow(controller)
        self.pixel_size = PixelSizeRow(controller)
        self.best = button(
            "Best-filled frame", "Show the frame in which most artery is filled"
        )
        layout = column(self.best, self.carry, self.pixel_size)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)
        self._found: weakref.WeakKeyDictionary[ImageState, int | None] = (
            weakref.WeakKeyDictionary()
        )
        self._shown: weakref.ref[ImageState] | None = None
        self._searched: ImageState | None = None
        self._stop = threading.Event()
        self.best.clicked.connect(self._on_clicked)
        self.show_image_state(None)

    def show_image_state(self, image_state: ImageState | None) -> None:
        """Show what is known of an image, and find out what is not."""
        before = self._shown() if self._shown is not None else None
        self._shown = None if image_state is None else weakref.ref(image_state)
        self.carry.refresh()
        self.pixel_size.refresh()
        frame = self._found.get(image_state) if image_state is not None else None
        self.best.setVisible(frame is not None)
        if frame is not None:
            self.best.setText(f"Best-filled frame: {frame}")
        if image_state is None:
            return
        if image_state is not before:
            play_at(record_of(image_state.image).get("frames_per_second"))
        if (
            image_state not in self._found
            and self._searched is None
            and image_state.sources
        ):
            self._search(image_state)

    def shut_down(self) -> None:
        """Stop looking, and take away what is not taken over. Safe to repeat."""
        self._stop.set()
        self.carry.carrying.dismiss()
        self.pixel_size.calibrating.cancel()

    def _search(self, image_state: ImageState) -> None:
        image = image_state.image
        if image_state.count < _LEAST_FRAMES or image.rgb:
            self._found[image_state] = None
            return
        self._stop.clear()
        self._searched = image_state
        worker = create_worker(_find, source_array(image), self._stop.is_set)
        worker.returned.connect(self._on_found)
        worker.finished.connect(self._on_finished)
        worker.start()

    def _on_found(self, frame: int | None) -> None:
        if self._searched is not None:
            self._found[self._searched] = frame

    def _on_finished(self) -> None:
        searched, self._searched = self._searched, None
        shown = self._shown() if self._shown is not None else None
        if searched is not None and not self._stop.is_set():
            self._found.setdefault(searched, None)  # it failed: not again
            self.show_image_state(shown)

    def _on_clicked(self) -> None:
        image_state = self._shown() if self._shown is not None else None
        frame = self._found.get(image_state) if image_state is not None else None
        if frame is not None:
            show_frame(image_state.image, self._controller.viewer, frame)


class _Frames:
    """A layer's frames, read one by one."""

    def __init__(self, data) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_frame(self._data, index, cine=True, rgb=False)


def _find(data, should_stop: Callable[[], bool]) -> int | None:
    """Find the best-filled frame. Runs in a worker; may decode every frame."""
    from napari_cmunet.cine.best_frame import best_filled_frame

    return best_filled_frame(_Frames(data), should_stop)
