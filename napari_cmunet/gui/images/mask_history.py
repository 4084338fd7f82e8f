"""Threshold moves of a mask as undo steps, and their undo and redo.

One drag of the slider is one step in napari's own undo history. A list of the same
length is kept beside that history, with what else belongs to a step: the threshold
before and after it.

In a cine the threshold acts on the shown frame and on every frame that the user has
not corrected. Those others are their prediction at the threshold and nothing else, so
they are no undo steps of their own: they follow when they are shown or exported, or
when the program is idle.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from napari_cmunet.gui.images.corrections import NamesStep, State, ThresholdStep
from napari_cmunet.model.threshold import mask_at, threshold_byte, threshold_change

if TYPE_CHECKING:
    from napari_cmunet.gui.images.corrections import (
        Companion,
        EditedMask,
        Names,
        Pixels,
        Where,
    )

Item = ThresholdStep | NamesStep | None

# napari forgets undo steps beyond this number.
_HISTORY = 100


class MaskHistory:
    """Moves the threshold of a mask, and follows napari's undo and redo."""

    def __init__(self, mask: EditedMask) -> None:
        self._edited = mask
        # Without bare namings as long as napari's own; None stands for a stroke.
        self._done: deque[Item] = deque(maxlen=_HISTORY)
        self._undone: deque[Item] = deque(maxlen=_HISTORY)
        self._next: Item = None
        self._last_by_key: Item = None
        # Pixels of each frame that the user has set, whatever the threshold.
        self._kept: dict[int, np.ndarray] = {}
        self._drag: tuple[int, np.ndarray, float, float] | None = None

    # -- moving ---------------------------------------------------------------

    @property
    def dragging(self) -> bool:
        """Whether the slider is held."""
        return self._drag is not None

    def begin_drag(self, frame: int) -> None:
        """Begin a drag of the slider while this frame is shown."""
        edited = self._edited
        self._drag = (
            frame,
            edited.mask_frame(frame).copy(),
            float(edited.thresholds[frame]),
            edited.threshold,
        )

    def preview(self, threshold: float) -> None:
        """Show the dragged frame at another threshold; not yet an undo step."""
        edited = self._edited
        assert self._drag is not None
        frame, start, old, _ = self._drag
        edited.threshold = threshold
        if not edited.has_prediction(frame):
            return
        edited.thresholds[frame] = threshold
        where, value = self._change(frame, start, old, threshold)
        mask = edited.mask_frame(frame)
        mask[...] = start
        mask[where] = value
        edited.refresh_mask(thumbnail=False)

    def end_drag(self) -> None:
        """End the drag: make it one undo step."""
        assert self._drag is not None
        frame, start, old, old_threshold = self._drag
        self._drag = None
        edited = self._edited
        new = edited.threshold
        edited.threshold = old_threshold
        if not edited.usable_mask:
            edited.threshold = new
            return
        if edited.has_prediction(frame):
            edited.mask_frame(frame)[...] = start
            edited.thresholds[frame] = old
        self._move(frame, new)

    def rebase(self, frame: int) -> None:
        """Take the dragged frame as it is now, after it got its prediction."""
        if self._drag is not None and self._drag[0] == frame:
            edited = self._edited
            start = edited.mask_frame(frame).copy()
            old = float(edited.thresholds[frame])
            self._drag = (frame, start, old, self._drag[3])

    def set_threshold(self, frame: int, threshold: float, *, join: bool) -> None:
        """Set the threshold; ``join`` makes it one undo step with the last."""
        last = self._done[-1] if self._done else None
        if join and isinstance(last, ThresholdStep) and last is self._last_by_key:
            if last.shown == frame:
                self._edited.undo()
        self._last_by_key = self._done[-1] if self._move(frame, threshold) else None

    def reset(self, frame: int) -> None:
        """Reset a frame's mask to its prediction, in one undo step."""
        edited = self._edited
        before = self._state(frame, frame)
        edited.origins.pop(frame, None)
        wanted = mask_at(edited.probability[frame], edited.threshold)
        rows, columns = np.nonzero((edited.mask_frame(frame) != 0) != wanted)
        if not len(rows):
            return
        edited.thresholds[frame] = edited.threshold
        self._kept.pop(frame, None)
        values = wanted[rows, columns].astype(np.uint8)
        self._record(frame, frame, (rows, columns), values, before)

    def _move(self, frame: int, threshold: float) -> bool:
        """Change the threshold; return whether that made an undo step."""
        edited = self._edited
        if edited.has_prediction(frame) and threshold == edited.thresholds[frame]:
            return False  # back at the start
        carrier = self._carrier(frame, threshold)
        if carrier is None:
            edited.threshold = threshold
            if edited.has_prediction(frame):
                self._keep_corrections(frame)
                edited.thresholds[frame] = threshold
            return False
        before = self._state(carrier, frame)
        self._keep_corrections(carrier)
        if edited.has_prediction(frame):
            self._keep_corrections(frame)
        old = float(edited.thresholds[carrier])
        mask = edited.mask_frame(carrier)
        where, value = self._change(carrier, mask, old, threshold)
        edited.threshold = threshold
        edited.thresholds[carrier] = threshold
        if edited.has_prediction(frame):
            edited.thresholds[frame] = threshold
        self._record(carrier, frame, where, value, before)
        return True

    def _state(self, frame: int, shown: int) -> State:
        edited = self._edited
        return State(
            threshold=edited.threshold,
            frame_threshold=float(edited.thresholds[frame]),
            shown_threshold=float(edited.thresholds[shown]),
            kept=self._kept.get(frame),
            shown_kept=self._kept.get(shown),
            origin=edited.origins.get(frame),
        )

    def _record(
        self, frame: int, shown: int, where: Where, value: Pixels, before: State
    ) -> None:
        self._next = ThresholdStep(frame, shown, before, self._state(frame, shown))
        self._edited.write(frame, where, value)
        self._next = None

    def write_with(
        self,
        names: Names | None,
        companion: Companion | None,
        frame: int,
        where: Where,
        value: Pixels,
    ) -> None:
        """Set pixels and names of a frame in one undo step, with its companion.

        Names that are None stay as they are.
        """
        before = self._edited.names.get(frame, ())
        after = before if names is None else names
        if not len(where[0]):
            self._add(NamesStep(frame, before, after, companion))
            return
        self._next = NamesStep(frame, before, after, companion, with_pixels=True)
        self._edited.names[frame] = after
        self._edited.write(frame, where, value)
        self._next = None

    def _carrier(self, frame: int, threshold: float) -> int | None:
        """The frame whose change goes into the undo history.

        The shown one; where nothing changes in it, the nearest uncorrected frame in
        which something does, so that the change can be undone all the same.
        """
        edited = self._edited
        for candidate in sorted(range(edited.count), key=lambda f: abs(f - frame)):
            if not edited.has_prediction(candidate):
                continue
            self.bring_up_to_date(candidate)
            if candidate != frame and edited.is_corrected(candidate):
                continue
            old = float(edited.thresholds[candidate])
            mask = edited.mask_frame(candidate)
            if len(self._change(candidate, mask, old, threshold)[0][0]):
                return candidate
        return None

    def _change(
        self, frame: int, mask: np.ndarray, old: float, new: float
    ) -> tuple[Where, int]:
        probability = self._edited.probability[frame]
        (rows, columns), values = threshold_change(mask, probability, old, new)
        kept = self._kept.get(frame)
        if kept is not None:
            free = ~kept[rows, columns]
            rows, columns = rows[free], columns[free]
        # A threshold moves one way at a time, so all the values are the same.
        return (rows, columns), int(values[0]) if len(values) else 0

    def _keep_corrections(self, frame: int) -> None:
        # At the new threshold a correction may agree with the prediction. On the way
        # back it would be taken for a predicted pixel, so it is remembered.
        edited = self._edited
        cut_now = mask_at(edited.probability[frame], edited.thresholds[frame])
        theirs = (edited.mask_frame(frame) != 0) != cut_now
        if not theirs.any():
            return
        kept = self._kept.get(frame)
        self._kept[frame] = theirs if kept is None else theirs | kept

    def has_kept_pixels(self, frame: int) -> bool:
        """Whether a frame has corrections, visible at this threshold or not."""
        return frame in self._kept

    # -- the other frames of a cine -------------------------------------------

    def late_frames(self) -> list[int]:
        """Return the frames whose mask has another threshold than the image."""
        edited = self._edited
        late = np.flatnonzero(edited.thresholds != edited.threshold)
        return [frame for frame in late.tolist() if self._is_late(frame)]

    def _is_late(self, frame: int) -> bool:
        edited = self._edited
        return edited.has_prediction(frame) and (
            threshold_byte(edited.thresholds[frame]) != threshold_byte(edited.threshold)
        )

    def bring_up_to_date(self, frame: int) -> bool:
        """Let an uncorrected frame follow the threshold; return whether it changed."""
        edited = self._edited
        if not edited.usable_mask or not self._is_late(frame):
            return False
        if self._drag is not None and self._drag[0] == frame:
            return False
        if edited.is_corrected(frame):
            return False
        probability = edited.probability[frame]
        edited.mask_frame(frame)[...] = mask_at(probability, edited.threshold)
        edited.thresholds[frame] = edited.threshold
        if frame in edited.corrections.in_history:
            edited.corrections.note_change([frame])
        return True

    # -- names of vessels -----------------------------------------------------

    def set_names(self, frame: int, names: Names) -> None:
        """Name the vessels of a frame, in one undo step."""
        self._add(NamesStep(frame, self._edited.names.get(frame, ()), names))

    def _add(self, step: NamesStep) -> None:
        """Make a naming without pixels a step, if it changes anything."""
        if step.after != step.before or step.companion is not None:
            self._edited.names[step.frame] = step.after
            self._done.append(step)
            self._undone.clear()
            self._edited.mask_changed.emit({step.frame})

    def undo_naming(self) -> bool:
        """Undo the last step if it is a naming without pixels."""
        step = self._done[-1] if self._done else None
        if not _is_bare(step):
            return False
        self.note_undo()
        self._tell(step.frame)
        return True

    def redo_naming(self) -> bool:
        """Redo the next step if it is a naming without pixels.

        Where there is none at all, napari's own are older than a naming.
        """
        step = self._undone[-1] if self._undone else None
        if not _is_bare(step):
            return not self._undone
        self.note_redo()
        self._tell(step.frame)
        return True

    def _tell(self, frame: int) -> None:
        self._edited.mask_changed.emit({frame})
        self._edited.undone.emit(self._edited, {frame})

    # -- undo and redo ----------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether napari's history has a step to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether it has a step to redo."""
        return bool(self._undone)

    def note_item(self) -> None:
        """Follow a new item in napari's undo history."""
        self._done.append(self._next)
        self._undone.clear()

    def note_undo(self) -> set[int]:
        """Follow an undo of napari; return the frames of a step of the program."""
        return self._step(self._done, self._undone)

    def note_redo(self) -> set[int]:
        """Follow a redo of napari; return the frames of a step of the program."""
        return self._step(self._undone, self._done)

    def _step(self, source: deque[Item], target: deque[Item]) -> set[int]:
        if not source:
            return set()
        step = source.pop()
        target.append(step)
        self._restore(step, back=target is self._undone)
        return {step.shown, step.frame} if isinstance(step, ThresholdStep) else set()

    def on_pixels_replaced(self) -> None:
        """Forget what belongs to the steps: the pixels are new."""
        for steps in (self._done, self._undone):
            for at, step in enumerate(steps):
                steps[at] = step if _is_bare(step) else None
        self._kept.clear()

    def clear(self) -> None:
        """Follow napari in emptying its undo history."""
        self._done.clear()
        self._undone.clear()

    def _restore(self, step: Item, *, back: bool) -> None:
        edited = self._edited
        if isinstance(step, NamesStep):
            edited.names[step.frame] = step.before if back else step.after
            if (companion := step.companion) is not None:
                (companion.undo if back else companion.redo)()
        elif isinstance(step, ThresholdStep):
            state = step.before if back else step.after
            edited.threshold = state.threshold
            edited.thresholds[step.shown] = state.shown_threshold
            edited.thresholds[step.frame] = state.frame_threshold
            self._set_kept(step.shown, state.shown_kept)
            self._set_kept(step.frame, state.kept)
            origin = step.before.origin
            if origin is not None and step.after.origin is None:  # a reset
                if back:
                    edited.origins[step.frame] = origin
                else:
                    edited.origins.pop(step.frame, None)
        # At once, not when idle: the next undo may be in one of these frames.
        for frame in edited.corrections.in_history:
            self.bring_up_to_date(frame)

    def _set_kept(self, frame: int, kept: np.ndarray | None) -> None:
        if kept is None:
            self._kept.pop(frame, None)
        else:
            self._kept[frame] = kept


def _is_bare(step: Item) -> TypeGuard[NamesStep]:
    """Whether a step is a naming that napari's own history does not have."""
    return isinstance(step, NamesStep) and not step.with_pixels
