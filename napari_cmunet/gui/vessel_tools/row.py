"""The vessel tools in the panel: a button each, and a line that says what they do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QSizePolicy, QWidget

from napari_cmunet.core.vessels.tools import Tool
from napari_cmunet.gui.sections import button, text_label

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

TOOL_KEYS = {
    Tool.TRACE: "D",
    Tool.ACCEPT: "A",
    Tool.REMOVE: "S",
    Tool.BRIDGE: "J",
    Tool.WIDTH: "I",
    Tool.NOT_ARTERY: "Shift+S",
}
"""Draw, Add, Subtract, Join, fit to the Image."""

_BUTTONS = (
    (Tool.TRACE, "Trace", "Two clicks add the vessel between them, as wide as it is"),
    (Tool.ACCEPT, "Add branch", "Add a branch that the model was not sure of (yellow)"),
    (Tool.REMOVE, "Remove", "Remove a branch, up to its bifurcation"),
    (Tool.BRIDGE, "Bridge", "Close a gap between two ends of the mask"),
    (Tool.WIDTH, "Fit width", "Grow or shrink a branch to the edges in the image"),
    (
        Tool.NOT_ARTERY,
        "Not artery",
        "Remove a catheter, wire or rib whole; remembered as reviewed background",
    ),
)


class VesselToolRow(QWidget):
    """Six buttons, of which one may be down, and the hint."""

    picked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.buttons: dict[Tool, QPushButton] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        for index, (tool, text, tip) in enumerate(_BUTTONS):
            made = button(text, f"{tip} ({TOOL_KEYS[tool]})")
            made.setCheckable(True)
            # Equal shares of the row, however narrow the dock.
            made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            made.clicked.connect(partial(self._on_clicked, tool))
            layout.addWidget(made, index // 3, index % 3)
            self.buttons[tool] = made
        self.hint = text_label()
        self.hint.setMinimumHeight(2 * self.hint.fontMetrics().lineSpacing())
        layout.addWidget(self.hint, 2, 0, 1, 3)

    def show_tool(self, tool: Tool | None, hint: str) -> None:
        """Show the tool in hand and its hint."""
        for each, made in self.buttons.items():
            made.setChecked(each is tool)
        self.hint.setText(hint)

    def _on_clicked(self, tool: Tool) -> None:
        self.picked.emit(tool)
