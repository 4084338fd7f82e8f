"""Mask propagation in the panel: the user's changes, for the frames around."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.shortcuts import PROPAGATE
from napari_cmunet.gui.vessel_tools.frame_state import review_record
from napari_cmunet.gui.vessel_tools.preview import Preview
from napari_cmunet.gui.widgets import button, column, lay_out_again, row, text_label
from napari_cmunet.vessels.edits import Edit, edit_between

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Labels

    from napari_cmunet.cine.propagation import Changes
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.corrections import Names
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop

MAX_FRAMES = 30
"""Frames in each direction over which changes are propagated."""


@dataclass(frozen=True)
class PropagatedChanges:
    """Changes proposed for other frames of a cine."""

    image_state: ImageState
    source: int  # the corrected frame
    origin: tuple[int, Names]  # its mask, as a fingerprint, and its names
    changes: dict[int, Changes]  # by frame
    ready: bool = False  # whether they are computed

    @property
    def is_stale(self) -> bool:
        """Whether the corrected frame has changed since."""
        state = self.image_state
        return not state.usable_mask or _origin(state, self.source) != self.origin


def _origin(image_state: ImageState, source: int) -> tuple[int, Names]:
    mask, names = image_state.mask_frame(source), image_state.names.get(source, ())
    return fingerprint(mask), names


def _propagate(
    frames: Frames,
    before: np.ndarray,
    after: np.ndarray,
    names: Names,
    orders: Sequence[tuple[int, ...]],
    report: Report,
    should_stop: ShouldStop,
) -> dict[int, Changes]:
    """Decode frames and propagate the changes. Runs in a worker.

    Parameters
    ----------
    before, after : bool array (Y, X)
        The predicted and the corrected mask.
    orders : sequence of tuple of int
        The corrected frame and those after it, in each direction.
    """
    from napari_cmunet.cine.propagation import Changes, propagate_changes

    changes = Changes(after & ~before, before & ~after, names=names)
    total = sum(len(order) - 1 for order in orders)
    found: dict[int, Changes] = {}
    for order in orders:
        read = frames.__getitem__
        for frame, moved in propagate_changes(changes, read, order, should_stop):
            found[frame] = moved
            report(len(found), total)
    return found


class MaskPropagation:
    """Proposes the changes of a corrected frame for its neighbours."""

    #: The proposal or the message has changed.
    changed = Signal()
    #: A proposal is being computed.
    started = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._preview = Preview(controller.viewer, name="propagated changes")
        self.jobs = JobRunner(
            "Propagating changes", failure="The changes cannot be propagated"
        )
        self._bound: Labels | None = None
        self._drawn: tuple[int, int] | None = None
        self._message_place: tuple[int, int] | None = None
        self.proposal: PropagatedChanges | None = None
        self.message = ""

    # -- actions ---------------------------------------------------------------

    def press(self) -> None:
        """Propose changes, or accept the proposal."""
        if self.proposal is None:
            self.propose()
        elif self.proposal.ready:
            self.accept()

    def propose(self) -> None:
        """Propagate the changes of the shown frame, or of the nearest corrected one."""
        here = self._controller.images.editable
        if here is None or not here[0].is_cine:
            return
        image_state, source = here[0], corrected_frame(*here)
        if source is None:
            text = (
                f"No frame within {MAX_FRAMES} is corrected. Correct one first: its "
                "changes and names are propagated to the frames around it."
            )
            if here[0].names.get(here[1]):
                text += " Proposed names are propagated once confirmed (Confirm all)."
            self._say(text)
            return
        before = image_state.thresholded(source)
        after = image_state.mask_frame(source) != 0
        names = image_state.names.get(source, ())
        if np.array_equal(before, after) and not names:
            self._say(f"Nothing was changed in frame {source}.")
            return
        self.started.emit()
        orders = [(source, *target_frames(image_state, source, s)) for s in (-1, 1)]
        propagate = partial(
            _propagate, Frames.of(image_state.image), before, after, names, orders
        )
        origin = _origin(image_state, source)
        self.proposal = PropagatedChanges(image_state, source, origin, {})
        self._bind_escape(image_state.mask)
        self._say(f"Propagating the changes of frame {source}…")
        self.jobs.start(propagate, on_result=self._on_result, on_error=self._on_error)

    def accept(self) -> None:
        """Apply the changes, as one undo step for each frame.

        A frame in which the reader has named a vessel keeps its own names.
        """
        proposal = self.proposal
        if proposal is None or not proposal.ready:
            return
        self.dismiss()
        if proposal.is_stale:
            return
        image_state = proposal.image_state
        record = review_record(image_state)
        source = image_state.mask_frame(proposal.source)
        marked = record.background(proposal.source, source) is not None
        for frame, changes in proposal.changes.items():
            current = image_state.mask_frame(frame)
            edit = edit_between(current, changes.apply(current))
            if marked:
                gone = edit.values == 0
                record.add_background(
                    frame, Edit(edit.rows[gone], edit.columns[gone], edit.values[gone])
                )
            own = has_own_names(image_state, frame)
            names = changes.names if changes.names and not own else None
            image_state.history.write_with(names, None, frame, edit.where, edit.values)
        count = len(proposal.changes)
        frames = "1 frame" if count == 1 else f"{count} frames"
        self._say(f"The changes of frame {proposal.source} are in {frames} now.")
        self._controller.changed.emit()

    def dismiss(self) -> None:
        """Drop the proposal."""
        self.jobs.cancel()
        self.proposal, self._drawn = None, None
        self._preview.hide()
        self._bind_escape(None)
        self._say("")

    def update(self) -> None:
        """Follow the viewer: show what is proposed for the shown frame."""
        proposal, place = self.proposal, self._place()
        if proposal is None:
            if self.message and self._message_place != place:
                self._say("")
            return
        if place is None or place[0] != id(proposal.image_state) or proposal.is_stale:
            self.dismiss()
        elif proposal.ready:
            self._draw(proposal, place[1])
            self._say(self._describe(proposal, place[1]))

    # -- preview ---------------------------------------------------------------

    def _on_result(self, changes: dict[int, Changes]) -> None:
        if self.proposal is None:
            return
        proposal = replace(self.proposal, changes=changes, ready=True)
        if not changes:
            self.dismiss()
            self._say(
                f"No frame beside {proposal.source} matches it well enough, or all of "
                "them are corrected."
            )
            return
        self.proposal = proposal
        self.update()
        self.changed.emit()

    def _on_error(self, message: str) -> None:
        self.dismiss()
        self._say(message)

    @staticmethod
    def _describe(proposal: PropagatedChanges, frame: int) -> str:
        found = proposal.changes
        first, last = min(found), max(found)
        frames = f"frame {first}" if first == last else f"frames {first} to {last}"
        text = f"Changes of frame {proposal.source} for {frames}. "
        if frame in found:
            return text + (
                f"Here: confidence {found[frame].confidence:.2f}; white is added, "
                "violet removed."
            )
        if frame == proposal.source:
            return text + "Look through the frames, then accept."
        return text + "None for this frame."

    def _draw(self, proposal: PropagatedChanges, frame: int) -> None:
        changes = proposal.changes.get(frame)
        if changes is None:
            self._preview.hide()
            self._drawn = None
            return
        current = proposal.image_state.mask_frame(frame)
        seen = (frame, fingerprint(current))
        if seen == self._drawn:
            return
        self._drawn = seen
        self._preview.show(proposal.image_state, frame)
        self._preview.draw(edit_between(current, changes.apply(current)))

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


def has_own_names(image_state: ImageState, frame: int) -> bool:
    """Whether the reader has named a vessel of a frame, or confirmed its name."""
    return any(not name.doubt for name in image_state.names.get(frame, ()))


def corrected_frame(image_state: ImageState, frame: int) -> int | None:
    """Frame itself if it is corrected or named, or the nearest one that is."""
    for distance in range(MAX_FRAMES + 1):
        for other in (frame - distance, frame + distance):
            if 0 <= other < image_state.count and (
                image_state.is_corrected(other) or has_own_names(image_state, other)
            ):
                return other
    return None


def target_frames(image_state: ImageState, source: int, step: int) -> tuple[int, ...]:
    """Frames in one direction up to the next that is corrected or not predicted."""
    targets = []
    for frame in range(source + step, source + step * (MAX_FRAMES + 1), step):
        if not 0 <= frame < image_state.count:
            break
        if image_state.is_corrected(frame) or not image_state.has_prediction(frame):
            break
        targets.append(frame)
    return tuple(targets)


_PROPOSE = (
    "Propagate what you changed and named in this frame, or in the nearest corrected "
    f"one, to the frames around it, as far as they match ({PROPAGATE}). It is a "
    "preview at first."
)
_ACCEPT = (
    f"Apply the changes to these frames ({PROPAGATE}). Ctrl+Z undoes them, one frame "
    "at a time."
)


class PropagationRow(QWidget):
    """Buttons to propose, accept and dismiss, and a line of text."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.propagation = MaskPropagation(controller)
        self.destroyed.connect(self.propagation.jobs.cancel)
        self.propose = button("Propagate changes", _PROPOSE)
        self.dismiss = button("Dismiss", "Leave the masks as they are (Esc)")
        self.message = text_label(lines=2)
        self.setLayout(
            column(row(self.propose, self.dismiss, stretch=0), self.message, spacing=2)
        )
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
        ready = proposal is not None and proposal.ready
        usable = self._controller.images.editable is not None
        self.propose.setEnabled(usable and (proposal is None or ready))
        self.propose.setText("Accept" if ready else "Propagate changes")
        self.propose.setToolTip(_ACCEPT if ready else _PROPOSE)
        self.dismiss.setVisible(proposal is not None)
        if self.message.text() != self.propagation.message:
            self.message.setText(self.propagation.message)
            self.message.setVisible(bool(self.propagation.message))
            lay_out_again(self)
