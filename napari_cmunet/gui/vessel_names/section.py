"""The panel's row of vessel names: choose a segment, click on its branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.vessel_names.naming import Naming
from napari_cmunet.gui.widgets import NameCombo, button, column, row, text_label
from napari_cmunet.vessels.segments import SEGMENTS, segment_title

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller

NAME_KEY = "Shift+T"
NAME_KEYS = ((NAME_KEY, "name the vessel under the cursor"),)

_CHOICES: tuple[str | None, ...] = (*SEGMENTS, "", None)
_TITLES = (*map(segment_title, SEGMENTS), "No name", "As proposed: confirm")


class NamesSection(QWidget):
    """SYNTAX segments of the vessels of the active image."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.naming = Naming(controller)
        self.name = button(
            "Name",
            "Name vessels by clicks: each up to the next bifurcation, with Shift from "
            f"the click on. {NAME_KEY}: the vessel under the cursor",
            checkable=True,
        )
        self.segment = NameCombo("The SYNTAX segment that a click gives")
        self.segment.show_names(_TITLES, 0, "")
        self.propose = button(
            "Propose names",
            "Propose a segment for each branch that you have not named. A name with a "
            "question mark is doubtful, and not exported until you confirm it",
        )
        self.confirm = button("Confirm all", "Take all proposed names for your own")
        self.message = text_label()
        self.setLayout(
            column(
                row(self.name, self.segment, stretch=1),
                row(self.propose, self.confirm),
                self.message,
            )
        )
        naming = self.naming
        self.name.clicked.connect(naming.pick)
        self.segment.chosen.connect(self._on_segment)
        self.propose.clicked.connect(naming.propose)
        self.confirm.clicked.connect(naming.confirm)
        naming.changed.connect(self._show)
        self._show()

    def refresh(self) -> None:
        """Follow the active image and its mask."""
        self.naming.follow()
        self._show()

    def _on_segment(self, number: int) -> None:
        self.naming.segment = _CHOICES[number]

    def _show(self) -> None:
        naming = self.naming
        usable = self._controller.images.editable is not None
        self.name.setEnabled(usable)
        self.name.setChecked(naming.picking)
        self.propose.setEnabled(usable and not naming.running)
        self.confirm.setEnabled(any(name.doubt for name in naming.names))
        text = naming.message or naming.status()
        self.message.setText(text)
        self.message.setVisible(bool(text))
