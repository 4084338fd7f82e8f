"""The panel's line on the pixel size, and the way to measure it on a catheter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.calibrating import USUAL_FRENCH, Calibrating, is_calibrated
from napari_cmunet.gui.export import pixel_size_mm
from napari_cmunet.gui.layers import record_of
from napari_cmunet.gui.sections import (
    button,
    column,
    combo,
    lay_out_again,
    row,
    text_label,
)

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading

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
        reading = self._controller.active
        self.calibrating.update()
        usable = reading is not None and reading.why_not is None
        begun = self.calibrating.begun
        self.setVisible(usable)
        before = self.text.text(), self.said.text(), self.measuring.isHidden()
        self.text.setText(pixel_size_text(reading) if usable else "")
        self.begin.setVisible(not begun)
        self.begin.setEnabled(
            usable and reading.image in self._controller.viewer.layers
        )
        self.take_back.setVisible(usable and is_calibrated(reading) and not begun)
        self.measuring.setVisible(begun)
        self.use.setEnabled(self.calibrating.width is not None)
        self.said.setText(self.calibrating.message)
        if before != (self.text.text(), self.said.text(), self.measuring.isHidden()):
            lay_out_again(self.measuring)


def pixel_size_text(reading: Reading) -> str:
    """How large a pixel is, and where that comes from."""
    source = record_of(reading.image).get("pixel_size_source") or ""
    size = pixel_size_mm(reading)
    if size is None:
        return "Pixel: size unknown" + source.removeprefix("unknown")
    height, width = (f"{value:.3g}" for value in size)
    sides = height if height == width else f"{height} x {width}"
    return f"Pixel: {sides} mm, {source or 'the scale of the layer'}"
