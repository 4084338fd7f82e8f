"""The vessel tools in the panel: a button each, and a line that says what they do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from napari_cmunet.core.vessels.tools import Tool
from napari_cmunet.gui.sections import button, column, text_label

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

TOOL_KEYS = {
    Tool.TRACE: "D",
    Tool.ACCEPT: "A",
    Tool.REMOVE: "S",
    Tool.BRIDGE: "J",
    Tool.WIDTH: "I",
    Tool.NOT_ARTERY: "Shift+S",
    Tool.TIDY: "Y",
}
"""Draw, Add, Join, fit to the Image, Subtract, tidY."""

_BUTTONS = (
    (
        (Tool.TRACE, "Trace", "Two clicks add the vessel between them, with its width"),
        (Tool.ACCEPT, "Add", "Add a branch that the model was not sure of (yellow)"),
        (Tool.BRIDGE, "Bridge", "Close a gap between two ends of the mask"),
        (Tool.WIDTH, "Width", "Grow or shrink a branch to the edges in the image"),
    ),
    (
        (Tool.REMOVE, "Remove", "Remove a branch, up to its bifurcation"),
        (
            Tool.NOT_ARTERY,
            "Not artery",
            "Remove a catheter, wire or rib whole; remembered as reviewed background",
        ),
        (Tool.TIDY, "Tidy", "Remove everything unlikely in this frame, at once"),
    ),
)


class VesselToolRow(QWidget):
    """A button for each tool, of which one may be down, and the hint."""

    picked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.buttons: dict[Tool, QPushButton] = {}
        for line in _BUTTONS:
            for tool, text, tip in line:
                made = button(text, f"{tip} ({TOOL_KEYS[tool]})")
                made.setCheckable(tool is not Tool.TIDY)
                # Equal shares of the row, however narrow the dock.
                made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
                made.clicked.connect(partial(self._on_clicked, tool))
                self.buttons[tool] = made
        self.hint = text_label()
        self.hint.setMinimumHeight(2 * self.hint.fontMetrics().lineSpacing())
        rows = [[self.buttons[tool] for tool, _, _ in line] for line in _BUTTONS]
        layout = column(*(_equal(*line) for line in rows), self.hint, spacing=2)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)

    def show_tool(self, tool: Tool | None, hint: str) -> None:
        """Show the tool in hand and its hint."""
        for each, made in self.buttons.items():
            made.setChecked(each is tool)
        self.hint.setText(hint)

    def _on_clicked(self, tool: Tool) -> None:
        self.picked.emit(tool)


def _equal(*buttons: QPushButton) -> QHBoxLayout:
    layout = QHBoxLayout()
    layout.setSpacing(2)
    for each in buttons:
        layout.addWidget(each, 1)
    return layout
