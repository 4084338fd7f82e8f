"""The vessel tools in the panel: a button each, and a line that says what happens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from napari_cmunet.gui.widgets import button, column, text_label
from napari_cmunet.vessels.modes import Mode

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

MODE_KEYS = {Mode.ADD: "A", Mode.REMOVE: "S"}
"""Add and Subtract, under the fingers of the left hand."""

_BUTTONS = (
    (
        Mode.ADD,
        "Add",
        "Two clicks add the vessel between them, with its width; one click adds a "
        "yellow branch or closes a gap",
    ),
    (
        Mode.REMOVE,
        "Remove",
        "Remove a branch up to its bifurcation, or what hangs on nothing. Shift: the "
        "whole run of a catheter or wire. Remembered as reviewed background.",
    ),
)


class VesselToolRow(QWidget):
    """A button for each mode, of which one may be down, and the hint."""

    picked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.buttons: dict[Mode, QPushButton] = {}
        for mode, text, tip in _BUTTONS:
            made = button(text, f"{tip} ({MODE_KEYS[mode]})")
            made.setCheckable(True)
            made.clicked.connect(partial(self._on_clicked, mode))
            self.buttons[mode] = made
        line = QHBoxLayout()
        line.setSpacing(2)
        for made in self.buttons.values():
            # Equal shares of the row, however narrow the dock.
            made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            line.addWidget(made, 1)
        self.hint = text_label(lines=2)
        layout = column(line, self.hint, spacing=2)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)

    def show_mode(self, mode: Mode | None, hint: str) -> None:
        """Show the mode that is taken up, and its hint."""
        for each, made in self.buttons.items():
            made.setChecked(each is mode)
        self.hint.setText(hint)

    def _on_clicked(self, mode: Mode) -> None:
        self.picked.emit(mode)
