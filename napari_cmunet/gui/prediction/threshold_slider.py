"""A slider from 0 to 1 that distinguishes a drag from single steps.

superqt's labelled slider reports a drag and a step alike.
"""

from __future__ import annotations

import time

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QWidget
from superqt.utils import signals_blocked

from napari_cmunet.gui.widgets import TAB_ONLY, ignore_wheel

_STEPS = 100
# Steps within this time of each other are one undo step.
_JOIN_SECONDS = 1.0


class ThresholdSlider(QWidget):
    """Slider and number field for a threshold in steps of 0.01.

    Signals
    -------
    grabbed, released
        A drag begins and ends; the moves in between are one change.
    moved : float, bool
        The new value, and whether it continues a step made just before.
    """

    grabbed = Signal()
    moved = Signal(float, bool)
    released = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setFocusPolicy(TAB_ONLY)
        self.slider.setRange(0, _STEPS)
        self.slider.setPageStep(5)
        self.number = QDoubleSpinBox()
        self.number.setRange(0, 1)
        self.number.setSingleStep(1 / _STEPS)
        self.number.setDecimals(2)
        self.number.setKeyboardTracking(False)
        self.number.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.number.setFixedWidth(8 * self.number.fontMetrics().averageCharWidth())
        self.number.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        ignore_wheel(self.slider)
        ignore_wheel(self.number)
        self._last_step = float("-inf")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.number)
        self.setFocusProxy(self.slider)
        self.slider.sliderPressed.connect(self.grabbed)
        self.slider.sliderReleased.connect(self.released)
        self.slider.valueChanged.connect(self._on_slider)
        self.number.valueChanged.connect(self._on_number)

    def value(self) -> float:
        """Return the threshold."""
        return self.slider.value() / _STEPS

    def show_value(self, value: float) -> None:
        """Show a value without emitting a signal."""
        if self.slider.isSliderDown():
            return
        with signals_blocked(self.slider), signals_blocked(self.number):
            self.slider.setValue(round(value * _STEPS))
            if not self.number.hasFocus():
                self.number.setValue(value)

    def step(self, by: int) -> None:
        """Move by hundredths, for the shortcuts."""
        self.slider.setValue(self.slider.value() + by)

    def _on_slider(self, value: int) -> None:
        with signals_blocked(self.number):
            self.number.setValue(value / _STEPS)
        self._emit()

    def _on_number(self, value: float) -> None:
        with signals_blocked(self.slider):
            self.slider.setValue(round(value * _STEPS))
        self._emit()

    def _emit(self) -> None:
        now = time.monotonic()
        join = now - self._last_step < _JOIN_SECONDS
        self._last_step = float("-inf") if self.slider.isSliderDown() else now
        self.moved.emit(self.value(), join)
