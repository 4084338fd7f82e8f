"""Mask propagation in the panel: propose a mask for the shown frame of a cine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import read_frame, source_array
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.shortcuts import PROPAGATE
from napari_cmunet.gui.vessel_tools.preview import Preview
from napari_cmunet.gui.widgets import button, column, lay_out_again, row, text_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState

MAX_FRAMES = 3
"""Frames over which a mask is propagated; beyond, the prediction is better."""


@dataclass(frozen=True)
class PropagatedMask:
    """A mask proposed for a frame, from another frame of the cine.

    Parameters
    ----------
    image_state : ImageState
    frame, source : int
    mask : bool array (Y, X) or None
        None while it is being computed.
    """

    image_state: ImageState
    frame: int
    source: int
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class _Request:
    """Copies and references that a worker may read."""

    frames: Any
    order: tuple[int, ...]
    rgb: bool
    mask: np.ndarray

    def run(
        self, report: Callable[[int, int], None], should_stop: Callable[[], bool]
    ) -> np.ndarray:
        """Decode the frames and propagate the mask. Runs in a worker."""
        from napari_cmunet.cine.propagation import propagate_mask

        frames = [
            read_frame(self.frames, index, cine=True, rgb=self.rgb)
            for index in self.order
        ]
        return propagate_mask(self.mask, *frames)


class MaskPropagation:
    """Proposes a mask for the shown frame of the active image.

    Parameters
    ----------
    controller : Controller
    """

    #: The proposal or the message has changed.
    changed = Signal()
    #: A proposal is being computed.
    started = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._preview = Preview(controller.viewer, name="propagated mask")
        self._jobs = JobRunner(
            "Propagating a mask", failure="The mask cannot be propagated to this frame"
        )
        self._bound: Labels | None = None
        self._drawn: int | None = None
        self._message_place: tuple[int, int] | None = None
        self.proposal: PropagatedMask | None = None
        self.message = ""

    # -- actions ---------------------------------------------------------------

    def press(self) -> None:
        """Propose a mask, or accept the proposal."""
        if self.proposal is None:
            self.propose()
        elif self.proposal.mask is not None:
            self.accept()

    def propose(self) -> None:
        """Compute a mask for the shown frame from the nearest corrected one."""
        image_state = self._controller.active
        if (
            image_state is None
            or not image_state.usable_mask
            or not image_state.is_cine
        ):
            return
        frame = self._controller.shown(image_state)
        source = nearest_corrected_frame(image_state, frame)
        if source is None:
            self._say(
                f"No other frame within {MAX_FRAMES} is corrected. Go to one beside a "
                "corrected frame."
            )
            return
        self.started.emit()
        step = 1 if frame > source else -1
        request = _Request(
            source_array(image_state.image),
            tuple(range(source, frame + step, step)),
            bool(image_state.image.rgb),
            image_state.mask_frame(source) != 0,
        )
        self.proposal = PropagatedMask(image_state, frame, source)
        self._bind_escape(image_state.mask)
        self._say(f"Propagating the mask of frame {source}…")
        self._jobs.start(
            request.run, on_result=self._on_result, on_error=self._on_error
        )

    def accept(self) -> None:
        """Make the proposal the mask of the frame, as one undo step."""
        proposal = self.proposal
        if proposal is None or proposal.mask is None:
            return
        self.dismiss()
        proposal.image_state.replace(proposal.frame, proposal.mask)
        self._say(f"The mask of frame {proposal.source} was propagated to this frame.")
        self._controller.changed.emit()

    def dismiss(self) -> None:
        """Drop the proposal."""
        self._jobs.cancel()
        self.proposal, self._drawn = None, None
        self._preview.hide()
        self._bind_escape(None)
        self._say("")

    def update(self) -> None:
        """Follow the viewer: drop the proposal if another frame is shown."""
        proposal = self.proposal
        if proposal is None:
            if self.message and self._message_place != self._place():
                self._say("")
            return
        if self._place() != (id(proposal.image_state), proposal.frame) or (
            not proposal.image_state.usable_mask
        ):
            self.dismiss()
        elif proposal.mask is not None:
            self._draw(proposal, proposal.mask)

    # -- preview ---------------------------------------------------------------

    def _on_result(self, mask: np.ndarray) -> None:
        if self.proposal is None:
            return
        self.proposal = replace(self.proposal, mask=mask)
        self.update()
        proposal = self.proposal
        if proposal is None:
            return
        if np.array_equal(proposal.image_state.mask_frame(proposal.frame) != 0, mask):
            self.dismiss()
            self._say(f"The mask of frame {proposal.source} is the same here.")
        else:
            self._say(
                f"From frame {proposal.source}: white would be added, violet removed."
            )

    def _on_error(self, message: str) -> None:
        self.dismiss()
        self._say(message)

    def _draw(self, proposal: PropagatedMask, mask: np.ndarray) -> None:
        from napari_cmunet.vessels.edits import edit_between  # slow to import

        current = proposal.image_state.mask_frame(proposal.frame)
        seen = fingerprint(current)
        if seen == self._drawn:
            return
        self._drawn = seen
        self._preview.show(proposal.image_state, proposal.frame)
        self._preview.draw(edit_between(current, mask))

    def _bind_escape(self, mask: Labels | None) -> None:
        # On this layer only, and only for now: napari's own Escape is for polygons.
        if self._bound is not None:
            self._bound.bind_key("Escape", None)
        self._bound = mask
        if mask is not None:
            mask.bind_key("Escape", self._on_escape, overwrite=True)

    def _on_escape(self, layer: Labels) -> None:
        self.dismiss()

    def _say(self, message: str) -> None:
        self._message_place = self._place()
        if message != self.message:
            self.message = message
            self.changed.emit()

    def _place(self) -> tuple[int, int] | None:
        """Image and frame that are shown."""
        image_state = self._controller.active
        if (
            image_state is None
            or image_state.image not in self._controller.viewer.layers
        ):
            return None
        return id(image_state), self._controller.shown(image_state)


def nearest_corrected_frame(image_state: ImageState, frame: int) -> int | None:
    """Nearest other frame that was corrected or accepted, the earlier of two."""
    for distance in range(1, MAX_FRAMES + 1):
        for other in (frame - distance, frame + distance):
            if 0 <= other < image_state.count and image_state.is_corrected(other):
                return other
    return None


_PROPOSE = (
    "Move the mask of the nearest corrected frame with the vessels to this frame "
    f"({PROPAGATE}); at most {MAX_FRAMES} frames. It is only a preview at first."
)
_ACCEPT = f"Make the preview the mask of this frame ({PROPAGATE}). Undo with Ctrl+Z."


class PropagationRow(QWidget):
    """Buttons to propose, accept and dismiss, and a line of text.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.propagation = MaskPropagation(controller)
        self.propose = button("Propagate mask", _PROPOSE)
        self.dismiss = button("Dismiss", "Leave the mask of this frame as it is (Esc)")
        self.message = text_label(lines=2)
        layout = column(
            row(self.propose, self.dismiss, stretch=0), self.message, spacing=2
        )
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)
        self.message.hide()
        self.propose.clicked.connect(self.propagation.press)
        self.dismiss.clicked.connect(self.propagation.dismiss)
        self.propagation.changed.connect(self.refresh)

    def refresh(self) -> None:
        """Show the state of the proposal."""
        image_state = self._controller.active
        self.setVisible(image_state is not None and image_state.is_cine)
        self.propagation.update()
        proposal = self.propagation.proposal
        ready = proposal is not None and proposal.mask is not None
        usable = image_state is not None and image_state.usable_mask
        self.propose.setEnabled(usable and (proposal is None or ready))
        self.propose.setText("Accept" if ready else "Propagate mask")
        self.propose.setToolTip(_ACCEPT if ready else _PROPOSE)
        self.dismiss.setVisible(proposal is not None)
        if self.message.text() != self.propagation.message:
            self.message.setText(self.propagation.message)
            self.message.setVisible(bool(self.propagation.message))
            lay_out_again(self)
