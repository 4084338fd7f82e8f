"""What the panel has of the image itself: a cine's frames, and the pixel size."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.carry_row import CarryRow
from napari_cmunet.gui.layers import read_frame, record_of, show_frame, source_array
from napari_cmunet.gui.pixel_size_row import PixelSizeRow
from napari_cmunet.gui.playback import play_at
from napari_cmunet.gui.sections import button, column

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading

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
        self._found: weakref.WeakKeyDictionary[Reading, int | None] = (
            weakref.WeakKeyDictionary()
        )
        self._shown: weakref.ref[Reading] | None = None
        self._searched: Reading | None = None
        self._stop = threading.Event()
        self.best.clicked.connect(self._on_clicked)
        self.show_reading(None)

    def show_reading(self, reading: Reading | None) -> None:
        """Show what is known of an image, and find out what is not."""
        before = self._shown() if self._shown is not None else None
        self._shown = None if reading is None else weakref.ref(reading)
        self.carry.refresh()
        self.pixel_size.refresh()
        frame = self._found.get(reading) if reading is not None else None
        self.best.setVisible(frame is not None)
        if frame is not None:
            self.best.setText(f"Best-filled frame: {frame}")
        if reading is None:
            return
        if reading is not before:
            play_at(record_of(reading.image).get("frames_per_second"))
        if reading not in self._found and self._searched is None and reading.sources:
            self._search(reading)

    def shut_down(self) -> None:
        """Stop looking, and take away what is not taken over. Safe to repeat."""
        self._stop.set()
        self.carry.carrying.dismiss()
        self.pixel_size.calibrating.cancel()

    def _search(self, reading: Reading) -> None:
        image = reading.image
        if reading.count < _LEAST_FRAMES or image.rgb:
            self._found[reading] = None
            return
        self._stop.clear()
        self._searched = reading
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
            self.show_reading(shown)

    def _on_clicked(self) -> None:
        reading = self._shown() if self._shown is not None else None
        frame = self._found.get(reading) if reading is not None else None
        if frame is not None:
            show_frame(reading.image, self._controller.viewer, frame)


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
    from napari_cmunet.core.filling import best_filled_frame

    return best_filled_frame(_Frames(data), should_stop)
