"""The vessel tools' part of the panel: tools, hint, and where to look next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.vessel_tools.controller import VesselTools
from napari_cmunet.gui.vessel_tools.guided_review import Tour
from napari_cmunet.gui.vessel_tools.keys import NEXT_PLACE, SKIP_PLACE, VesselKeys
from napari_cmunet.gui.vessel_tools.row import VesselToolRow
from napari_cmunet.gui.widgets import button, column, row, text_label

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.vessels.modes import Mode


class VesselSection(QWidget):
    """Everything of the vessel tools that a panel holds.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.tools = VesselTools(controller)
        self.tour = Tour(self.tools)
        self._keys: VesselKeys | None = None
        self.row = VesselToolRow()
        self.next = button("Next doubtful place", "")
        self.skip = button(
            "Skip", f"Go on without judging this place; ask again later ({SKIP_PLACE})"
        )
        self.place = text_label(lines=2)
        content = column(
            self.row, row(self.next, self.skip, stretch=0), self.place, spacing=2
        )
        content.setContentsMargins(0, 0, 0, 0)
        self.setLayout(content)
        self.row.picked.connect(self._on_picked)
        self.next.clicked.connect(self.tour.right)
        self.skip.clicked.connect(self.tour.skip)
        self.wake_up()
        self.refresh()

    @property
    def in_hand(self) -> bool:
        """Whether one of the vessel tools is."""
        return self.tools.mode is not None

    def wake_up(self) -> None:
        """Take the keys, listen to the tools."""
        if self._keys is None:
            self._keys = VesselKeys(self.tools.viewer, self.tools, self.tour)
            self.tools.changed.connect(self._on_changed)
            self.tour.changed.connect(self.refresh)

    def shut_down(self) -> None:
        """Put everything down and give the keys back. Safe to call more than once."""
        if self._keys is not None:
            self._keys.unbind(self.tools.viewer)
            self._keys = None
            self.tools.changed.disconnect(self._on_changed)
            self.tour.changed.disconnect(self.refresh)
        self.tour.end()
        self.tools.shut_down()

    def _on_picked(self, mode: Mode) -> None:
        self.tools.toggle(mode)
        self.refresh()

    def _on_changed(self) -> None:
        self.refresh()
        self._controller.changed.emit()

    def refresh(self) -> None:
        """Show the tool in hand, its hint and the place that is looked at."""
        self.tools.follow()
        here = self.tools.here() is not None
        self.tour.leave_elsewhere()
        self.row.setEnabled(here)
        self.row.show_mode(self.tools.mode, self.tools.hint)
        self.next.setEnabled(here)
        self.skip.setEnabled(here and self.tour.place is not None)
        looking = self.tour.place is not None
        self.next.setText("Right, next place" if looking else "Next doubtful place")
        self.next.setToolTip(
            f"This place is right, or mended: fly to the next ({NEXT_PLACE})"
            if looking
            else f"Fly to the place where most is in doubt ({NEXT_PLACE})"
        )
        self.place.setText(self.tour.text)
        self.place.setVisible(bool(self.tour.text))
