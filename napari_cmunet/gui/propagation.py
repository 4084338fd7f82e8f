"""The panel's part of carrying masks between frames: a button, and what it says."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import read_frame, source_array
from napari_cmunet.gui.jobs import spare_thread
from napari_cmunet.gui.shortcuts import CARRY
from napari_cmunet.gui.vessel_tools.preview import Preview
from napari_cmunet.gui.widgets import button, column, lay_out_again, row, text_label

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState


logger = logging.getLogger(__name__)

FARTHEST = 3
"""Frames over which a mask is carried; beyond, the model's own mask is the better."""


@dataclass(frozen=True)
class Proposal:
    """A mask for a frame, carried from another frame of the cine.

    Parameters
    ----------
    image_state : ImageState
    frame, source : int
    mask : bool array (Y, X) or None
        None while it is being worked out.
    """

    image_state: ImageState
    frame: int
    source: int
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class _Job:
    """Copies and references that the worker's thread may read."""

    number: int
    frames: Any
    order: tuple[int, ...]
    rgb: bool
    mask: np.ndarray


class Carrying:
    """One proposal at a time, for the shown frame of the active image.

    Parameters
    ----------
    controller : Controller
        Knows the active reading and the viewer; told when the mask has changed.
    """

    #: A proposal is there, or gone, or something is to be said.
    changed = Signal()
    #: A mask is about to be carried.
    begun = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._preview = Preview(controller.viewer, name="carried mask")
        self._bound: Labels | None = None
        self._number = 0
        self._drawn: int | None = None
        self._said_at: tuple[int, int] | None = None
        self.proposal: Proposal | None = None
        self.message = ""

    # -- what the reader does --------------------------------------------------

    def press(self) -> None:
        """Propose; or take over what is proposed."""
        if self.proposal is None:
            self.propose()
        elif self.proposal.mask is not None:
            self.accept()

    def propose(self) -> None:
        """Work out a mask for the shown frame, from the nearest corrected one."""
        image_state = self._controller.active
        if (
            image_state is None
            or not image_state.usable_mask
            or not image_state.is_cine
        ):
            return
        frame = self._controller.shown(image_state)
        source = nearest_corrected(image_state, frame)
        if source is None:
            self._say(
                f"No other frame within {FARTHEST} is corrected. Go to one beside a "
                "corrected frame."
            )
            return
        self.begun.emit()
        self._number += 1
        step = 1 if frame > source else -1
        job = _Job(
            self._number,
            source_array(image_state.image),
            tuple(range(source, frame + step, step)),
            bool(image_state.image.rgb),
            image_state.mask_frame(source) != 0,
        )
        self.proposal = Proposal(image_state, frame, source)
        self._bind_escape(image_state.mask)
        self._say(f"Carrying the mask of frame {source} here…")
        worker = create_worker(_carry, job)
        worker.returned.connect(self._on_carried)
        worker.start()

    def accept(self) -> None:
        """Make the proposal the frame's mask, in one undo step."""
        proposal = self.proposal
        if proposal is None or proposal.mask is None:
            return
        self.dismiss()
        proposal.image_state.replace(proposal.frame, proposal.mask)
        self._say(f"The mask of frame {proposal.source} was carried here.")
        self._controller.changed.emit()

    def dismiss(self) -> None:
        """Leave the frame's mask as it is."""
        self._number += 1
        self.proposal, self._drawn = None, None
        self._preview.hide()
        self._bind_escape(None)
        self._say("")

    def update(self) -> None:
        """Follow the viewer: a proposal is for the frame that it was made for."""
        proposal = self.proposal
        if proposal is None:
            if self.message and not self._is_fresh():
                self._say("")
            return
        image_state = self._controller.active
        here = (
            image_state is proposal.image_state
            and image_state.usable_mask
            and image_state.image in self._controller.viewer.layers
            and self._controller.shown(image_state) == proposal.frame
        )
        if not here:
            self.dismiss()
        elif proposal.mask is not None:
            self._draw(proposal)

    # -- showing ---------------------------------------------------------------

    def _on_carried(self, result: tuple[int, np.ndarray | None, str]) -> None:
        number, mask, problem = result
        proposal = self.proposal
        if number != self._number or proposal is None:
            return
        if mask is None:
            self.dismiss()
            self._say(problem)
            return
        self.proposal = Proposal(
            proposal.image_state, proposal.frame, proposal.source, mask
        )
        self.update()
        if self.proposal is None:
            return
        if np.array_equal(proposal.image_state.mask_frame(proposal.frame) != 0, mask):
            self.dismiss()
            self._say(f"The mask of frame {proposal.source} is already the same here.")
        else:
            self._say(
                f"From frame {proposal.source}: white would be added, violet removed."
            )

    def _draw(self, proposal: Proposal) -> None:
        # Its worker has imported it by now, so that the panel opens without it.
        from napari_cmunet.vessels.edits import edit_between

        now = proposal.image_state.mask_frame(proposal.frame)
        seen = fingerprint(now)
        if seen == self._drawn:
            return
        self._drawn = seen
        self._preview.show(proposal.image_state, proposal.frame)
        self._preview.draw(edit_between(now, proposal.mask))

    def _bind_escape(self, mask: Labels | None) -> None:
        # Of this layer alone, and only meanwhile: napari's own Escape is for polygons.
        if self._bound is not None:
            self._bound.bind_key("Escape", None)
        self._bound = mask
        if mask is not None:
            mask.bind_key("Escape", self._on_escape, overwrite=True)

    def _on_escape(self, layer: Labels) -> None:
        self.dismiss()

    def _say(self, message: str) -> None:
        self._said_at = self._place()
        if message != self.message:
            self.message = message
            self.changed.emit()

    def _is_fresh(self) -> bool:
        """Whether what was said was said of the frame that is shown now."""
        return self._said_at == self._place()

    def _place(self) -> tuple[int, int] | None:
        image_state = self._controller.active
        if (
            image_state is None
            or image_state.image not in self._controller.viewer.layers
        ):
            return None
        return id(image_state), self._controller.shown(image_state)


def nearest_corrected(image_state: ImageState, frame: int) -> int | None:
    """The nearest other frame that the reader has corrected or accepted."""
    for far in range(1, FARTHEST + 1):
        for other in (frame - far, frame + far):  # what came before, of two as near
            if 0 <= other < image_state.count and image_state.is_corrected(other):
                return other
    return None


def _carry(job: _Job) -> tuple[int, np.ndarray | None, str]:
    """Runs in a worker; decodes the frames."""
    from napari_cmunet.cine.propagation import carry_mask
    from napari_cmunet.vessels import edits  # noqa: F401

    try:
        with spare_thread():
            frames = [
                read_frame(job.frames, index, cine=True, rgb=job.rgb)
                for index in job.order
            ]
            return job.number, carry_mask(job.mask, *frames), ""
    except (OSError, ValueError, MemoryError) as exc:
        return job.number, None, f"The mask cannot be carried here ({exc})."
    except Exception as exc:
        logger.exception("Carrying failed")
        return (
            job.number,
            None,
            (
                f"The mask cannot be carried here, for an unexpected error ({exc}). "
                "Help > Show logs has the details."
            ),
        )


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
        image_state = self._controller.active
        self.setVisible(image_state is not None and image_state.is_cine)
        self.carrying.update()
        proposal = self.carrying.proposal
        ready = proposal is not None and proposal.mask is not None
        usable = image_state is not None and image_state.usable_mask
        self.carry.setEnabled(usable and (proposal is None or ready))
        self.carry.setText("Take over" if ready else "Carry a mask here")
        self.carry.setToolTip(_ACCEPT if ready else _PROPOSE)
        self.dismiss.setVisible(proposal is not None)
        if self.said.text() != self.carrying.message:
            self.said.setText(self.carrying.message)
            self.said.setVisible(bool(self.carrying.message))
            lay_out_again(self)
