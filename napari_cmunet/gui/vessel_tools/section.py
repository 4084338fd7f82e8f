"""The vessel tools' part of the panel: buttons, shortcuts, hint and guided review."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.vessel_tools.controller import VesselTools
from napari_cmunet.gui.vessel_tools.guided_review import GuidedReview
from napari_cmunet.gui.widgets import ToolRow, button, column, row, text_label
from napari_cmunet.vessels.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.controller import Controller

NEXT_PLACE, SKIP_PLACE = "Q", "Shift+Q"


def vessel_shortcuts() -> list[tuple[str, str]]:
    """Return (key, what it does) for the panel's list of shortcuts."""
    return [
        *((tool.key, tool.summary) for tool in TOOLS),
        (NEXT_PLACE, "correct: go to the next uncertain place"),
        (SKIP_PLACE, "skip this place"),
    ]


class VesselSection(QWidget):
    """The vessel tools in the panel."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.tools = VesselTools(controller)
        self.review = GuidedReview(self.tools)
        self.row = ToolRow((t.name, t.title, f"{t.tooltip} ({t.key})") for t in TOOLS)
        self.hint = text_label(lines=2)
        self.next = button("Next uncertain place", "")
        self.skip = button("Skip", f"Go on without reviewing this place ({SKIP_PLACE})")
        self.place = text_label(lines=2)
        self.setLayout(
            column(
                self.row,
                self.hint,
                row(self.next, self.skip, stretch=0),
                self.place,
                spacing=2,
            )
        )
        self.row.picked.connect(self._on_picked)
        self.next.clicked.connect(self.review.confirm)
        self.skip.clicked.connect(self.review.skip)
        self.destroyed.connect(self.tools.cache.clear)
        self.tools.changed.connect(self._on_changed)
        self.review.changed.connect(self.refresh)
        self.refresh()

    @property
    def active(self) -> bool:
        """Whether a vessel tool is active."""
        return self.tools.tool is not None

    def key_actions(self) -> dict[str, Callable[[], object]]:
        """Return what the keys do, by key."""
        toggles = {tool.key: partial(self.tools.toggle, tool) for tool in TOOLS}
        return {
            **toggles,
            NEXT_PLACE: self.review.confirm,
            SKIP_PLACE: self.review.skip,
        }

    def close_tools(self) -> None:
        """Deactivate the tools. Idempotent."""
        self.review.stop()
        self.tools.close()

    def _on_picked(self, name: str) -> None:
        self.tools.toggle(next(tool for tool in TOOLS if tool.name == name))
        self.refresh()

    def _on_changed(self) -> None:
        self.refresh()
        self._controller.changed.emit()

    def refresh(self) -> None:
        """Show the active tool, its hint, and the place under review."""
        self.tools.follow()
        usable = self.tools.current_frame() is not None
        self.review.follow()
        for widget in (self.row, self.hint, self.next):
            widget.setEnabled(usable)
        self.row.show_active(self.tools.tool.name if self.tools.tool else "")
        self.hint.setText(self.tools.hint)
        reviewing = self.review.place is not None
        self.skip.setEnabled(usable and reviewing)
        self.next.setText(
            "Correct, next place" if reviewing else "Next uncertain place"
        )
        self.next.setToolTip(
            f"This place is correct now: go to the next ({NEXT_PLACE})"
            if reviewing
            else f"Go to the most uncertain place ({NEXT_PLACE})"
        )
        self.place.setText(self.review.text)
        self.place.setVisible(bool(self.review.text))
