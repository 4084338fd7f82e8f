"""The panel's part of carrying masks between frames: a button, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.carrying import FARTHEST, Carrying
from napari_cmunet.gui.sections import (
    button,
    column,
    lay_out_again,
    row,
    text_label,
)
from napari_cmunet.gui.shortcuts import CARRY

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller

_PROPOSE = (
    "Move the mask of the nearest corrected frame along with the vessels to this "
    f"frame ({CARRY}); at most {FARTHEST} frames. It is shown first, not yet taken."
)
_ACCEPT = f"Make the proposal this frame's mask ({CARRY}). Ctrl+Z takes it back."


class CarryRow(QWidget):
    """Propose and take over; dismiss; a line of text.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.carrying = Carrying(controller)
        self.carry = button("Carry a mask here", _PROPOSE)
        self.dismiss = button("Dismiss", "Leave this frame's mask as it is (Esc)")
        self.said = text_label(lines=2)
        layout = column(row(self.carry, self.dismiss, stretch=0), self.said, spacing=2)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)
        self.said.hide()
        self.carry.clicked.connect(self.carrying.press)
        self.dismiss.clicked.connect(self.carrying.dismiss)
        self.carrying.changed.connect(self.refresh)

    def refresh(self) -> None:
        """Show what there is to take over, and for which frames it can be had."""
        reading = self._controller.active
        self.setVisible(reading is not None and reading.is_cine)
        self.carrying.update()
        proposal = self.carrying.proposal
        ready = proposal is not None and proposal.mask is not None
        usable = reading is not None and reading.usable_mask
        self.carry.setEnabled(usable and (proposal is None or ready))
        self.carry.setText("Take over" if ready else "Carry a mask here")
        self.carry.setToolTip(_ACCEPT if ready else _PROPOSE)
        self.dismiss.setVisible(proposal is not None)
        if self.said.text() != self.carrying.message:
            self.said.setText(self.carrying.message)
            self.said.setVisible(bool(self.carrying.message))
            lay_out_again(self)
