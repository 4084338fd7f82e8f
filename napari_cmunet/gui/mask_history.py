"""The threshold of a mask that is being corrected, with undo.

One drag of the slider is one step in napari's own undo history. Beside that history a
list of the same length is kept, which knows what else belongs to a step: the threshold
before and after it.

In a cine the threshold acts on the shown frame and on every frame that the reader has
not corrected. Those others are nothing but their prediction cut at the threshold, so
they are no undo steps of their own: they follow when they are shown, exported, or when
the program is idle.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.model.threshold import mask_at, threshold_byte, threshold_change

if TYPE_CHECKING:
    from napari_cmunet.gui.image_state import ImageState

Where = tuple[np.ndarray, np.ndarray]
Pixels = np.ndarray | int

# napari forgets undo steps beyond this number.
_HISTORY = 100


@dataclass(frozen=True)
class _State:
    """What belongs to a frame's mask besides its pixels."""

    threshold: float
    frame_threshold: float
    shown_threshold: float
    kept: np.ndarray | None
    shown_kept: np.ndarray | None


@dataclass(frozen=True)
class _Step:
    """One undoable change that the program has made."""

    frame: int
    shown: int
    before: _State
    after: _State


class ThresholdSteps:
    """Moves the threshold of a reading and follows undo and redo."""

    def __init__(self, image_state: ImageState) -> None:
        self._image_state = image_state
        # As long as napari's own; None stands for a stroke of the reader.
        self._done: deque[_Step | None] = deque(maxlen=_HISTORY)
        self._undone: deque[_Step | None] = deque(maxlen=_HISTORY)
        self._next: _Step | None = None
        self._last_by_key: _Step | None = None
        # Pixels of each frame that are the reader's, whatever the threshold.
        self._kept: dict[int, np.ndarray] = {}
        self._drag: tuple[int, np.ndarray, float, float] | None = None

    # -- moving ---------------------------------------------------------------

    @property
    def dragging(self) -> bool:
        """Whether the slider is held."""
        return self._drag is not None

    def begin(self, frame: int) -> None:
        """The slider is taken hold of while this frame is shown."""
        image_state = self._image_state
        self._drag = (
            frame,
            image_state.mask_frame(frame).copy(),
            float(image_state.thresholds[frame]),
            image_state.threshold,
        )

    def preview(self, threshold: float) -> None:
        """Show the held frame at another threshold; not yet an undo step."""
        image_state = self._image_state
        frame, start, old, _ = self._drag
        image_state.threshold = threshold
        if not image_state.has_prediction(frame):
            return
        image_state.thresholds[frame] = threshold
        where, value = self._change(frame, start, old, threshold)
        mask = image_state.mask_frame(frame)
        mask[...] = start
        mask[where] = value
        image_state.refresh_mask(thumbnail=False)

    def commit(self) -> None:
        """The slider is let go: what it did becomes one undo step."""
        frame, start, old, old_threshold = self._drag
        self._drag = None
        image_state = self._image_state
        new = image_state.threshold
        image_state.threshold = old_threshold
        if not image_state.usable_mask:
            image_state.threshold = new
            return
        if image_state.has_prediction(frame):
            image_state.mask_frame(frame)[...] = start
            image_state.thresholds[frame] = old
        self._move(frame, new)

    def rebase(self, frame: int) -> None:
        """The held frame has just been filled with its prediction."""
        if self._drag is not None and self._drag[0] == frame:
            image_state = self._image_state
            start = image_state.mask_frame(frame).copy()
            old = float(image_state.thresholds[frame])
            self._drag = (frame, start, old, self._drag[3])

    def step(self, frame: int, threshold: float, *, join: bool) -> None:
        """Move by key. ``join`` makes it one undo step with the last."""
        last = self._done[-1] if self._done else None
        if join and last is not None and last is self._last_by_key:
            if last.shown == frame:
                self._image_state.mask.undo()
        self._last_by_key = self._done[-1] if self._move(frame, threshold) else None

    def reset(self, frame: int) -> None:
        """Make a frame's mask its prediction again, in one undo step."""
        image_state = self._image_state
        before = self._state(frame, frame)
        wanted = mask_at(image_state.probability[frame], image_state.threshold)
        where = np.nonzero((image_state.mask_frame(frame) != 0) != wanted)
        if not len(where[0]):
            return
        image_state.thresholds[frame] = image_state.threshold
        self._kept.pop(frame, None)
        self._record(frame, frame, where, wanted[where].astype(np.uint8), before)

    def _move(self, frame: int, threshold: float) -> bool:
        """Change the threshold; True if that made an undo step."""
        image_state = self._image_state
        if (
            image_state.has_prediction(frame)
            and threshold == image_state.thresholds[frame]
        ):
            return False  # back where it began
        carrier = self._carrier(frame, threshold)
        if carrier is None:
            image_state.threshold = threshold
            if image_state.has_prediction(frame):
                self._keep_corrections(frame)
                image_state.thresholds[frame] = threshold
            return False
        before = self._state(carrier, frame)
        self._keep_corrections(carrier)
        if image_state.has_prediction(frame):
            self._keep_corrections(frame)
        old = float(image_state.thresholds[carrier])
        mask = image_state.mask_frame(carrier)
        where, value = self._change(carrier, mask, old, threshold)
        image_state.threshold = threshold
        image_state.thresholds[carrier] = threshold
        if image_state.has_prediction(frame):
            image_state.thresholds[frame] = threshold
        self._record(carrier, frame, where, value, before)
        return True

    def _state(self, frame: int, shown: int) -> _State:
        image_state = self._image_state
        return _State(
            threshold=image_state.threshold,
            frame_threshold=float(image_state.thresholds[frame]),
            shown_threshold=float(image_state.thresholds[shown]),
            kept=self._kept.get(frame),
            shown_kept=self._kept.get(shown),
        )

    def _record(
        self, frame: int, shown: int, where: Where, value: Pixels, before: _State
    ) -> None:
        self._next = _Step(frame, shown, before, self._state(frame, shown))
        self._image_state.write(frame, where, value)
        self._next = None

    def _carrier(self, frame: int, threshold: float) -> int | None:
        """The frame whose change goes into the undo history.

        The shown one; where nothing changes in it, the nearest uncorrected frame in
        which something does, so that the change can be undone all the same.
        """
        image_state = self._image_state
        for candidate in sorted(range(image_state.count), key=lambda f: abs(f - frame)):
            if not image_state.has_prediction(candidate):
                continue
            self.bring_up_to_date(candidate)
            if candidate != frame and image_state.is_corrected(candidate):
                continue
            old = float(image_state.thresholds[candidate])
            mask = image_state.mask_frame(candidate)
            if len(self._change(candidate, mask, old, threshold)[0][0]):
                return candidate
        return None

    def _change(
        self, frame: int, mask: np.ndarray, old: float, new: float
    ) -> tuple[Where, int]:
        probability = self._image_state.probability[frame]
        (rows, columns), values = threshold_change(mask, probability, old, new)
        kept = self._kept.get(frame)
        if kept is not None:
            free = ~kept[rows, columns]
            rows, columns = rows[free], columns[free]
        # A threshold moves one way at a time, so all the values are the same.
        return (rows, columns), int(values[0]) if len(values) else 0

    def _keep_corrections(self, frame: int) -> None:
        # At the new threshold a correction may agree with the prediction; on the way
        # back it would then be taken for a pixel of the prediction. So it is kept.
        image_state = self._image_state
        cut_now = mask_at(image_state.probability[frame], image_state.thresholds[frame])
        theirs = (image_state.mask_frame(frame) != 0) != cut_now
        if not theirs.any():
            return
        kept = self._kept.get(frame)
        self._kept[frame] = theirs if kept is None else theirs | kept

    def keeps(self, frame: int) -> bool:
        """Whether a frame holds corrections, be they seen at this threshold or not."""
        return frame in self._kept

    # -- the other frames of a cine -------------------------------------------

    def late_frames(self) -> list[int]:
        """Return the frames that are cut at another threshold than the reading's."""
        image_state = self._image_state
        late = np.flatnonzero(image_state.thresholds != image_state.threshold)
        return [int(frame) for frame in late if self._is_late(frame)]

    def _is_late(self, frame: int) -> bool:
        image_state = self._image_state
        return image_state.has_prediction(frame) and (
            threshold_byte(image_state.thresholds[frame])
            != threshold_byte(image_state.threshold)
        )

    def bring_up_to_date(self, frame: int) -> bool:
        """Let an uncorrected frame follow the threshold; True if it changed."""
        image_state = self._image_state
        if not image_state.usable_mask or not self._is_late(frame):
            return False
        if self._drag is not None and self._drag[0] == frame:
            return False
        if image_state.is_corrected(frame):
            return False
        probability = image_state.probability[frame]
        image_state.mask_frame(frame)[...] = mask_at(probability, image_state.threshold)
        image_state.thresholds[frame] = image_state.threshold
        if frame in image_state.corrections.in_history:
            image_state.corrections.note_change([frame])
        return True

    # -- undo and redo ----------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether napari's history holds a step to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether it holds one that was taken back."""
        return bool(self._undone)

    def note_item(self) -> None:
        """Napari has added an item to its undo history."""
        self._done.append(self._next)
        self._undone.clear()

    def note_undo(self) -> None:
        """Napari has undone one item, if it had one."""
        if self._done:
            self._undone.append(self._done.pop())
            self._restore(self._undone[-1], back=True)

    def note_redo(self) -> None:
        """Napari has redone one item, if it had one."""
        if self._undone:
            self._done.append(self._undone.pop())
            self._restore(self._done[-1], back=False)

    def forget(self) -> None:
        """The pixels are others; what napari may undo is no longer ours."""
        self._done = deque([None] * len(self._done), maxlen=_HISTORY)
        self._undone = deque([None] * len(self._undone), maxlen=_HISTORY)
        self._kept.clear()

    def forget_history(self) -> None:
        """Napari has emptied its undo history."""
        self._done.clear()
        self._undone.clear()

    def _restore(self, step: _Step | None, *, back: bool) -> None:
        image_state = self._image_state
        if step is not None:
            state = step.before if back else step.after
            image_state.threshold = state.threshold
            image_state.thresholds[step.shown] = state.shown_threshold
            image_state.thresholds[step.frame] = state.frame_threshold
            self._set_kept(step.shown, state.shown_kept)
            self._set_kept(step.frame, state.kept)
        # At once, not when there is time: the next undo may be in one of these.
        for frame in image_state.corrections.in_history:
            self.bring_up_to_date(frame)

    def _set_kept(self, frame: int, kept: np.ndarray | None) -> None:
        if kept is None:
            self._kept.pop(frame, None)
        else:
            self._kept[frame] = kept
