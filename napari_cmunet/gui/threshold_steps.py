"""The threshold of a mask that is being corrected, with undo.

One drag of the slider is one step in napari's own undo history. napari does not say
when it undoes or redoes, so the pixels of a step are looked at: if all of them have
gone back, the step was undone and the threshold goes back with it.

In a cine the threshold acts on the shown frame and on every frame that the reader has
not corrected. Those others are nothing but their prediction cut at the threshold, so
they are no undo steps of their own: they follow when they are shown, exported, or when
the program is idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.core.threshold import cut, mask_at, threshold_change

if TYPE_CHECKING:
    from napari_cmunet.gui.reading import Reading

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


@dataclass
class _Step:
    """One undoable change that the program has made."""

    frame: int
    shown: int
    where: Where
    pixels: tuple[Pixels, Pixels]
    states: tuple[_State, _State]
    # The reader has since painted every pixel back, so that it looks undone.
    painted_over: bool = False


class ThresholdSteps:
    """Moves the threshold of a reading and follows undo and redo."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        # Pixels of each frame that are the reader's, whatever the threshold.
        self._kept: dict[int, np.ndarray] = {}
        self._drag: tuple[int, np.ndarray, float, float] | None = None
        self._last_is_on_top = False
        self._stroke_unseen = False

    # -- moving ---------------------------------------------------------------

    @property
    def dragging(self) -> bool:
        """Whether the slider is held."""
        return self._drag is not None

    def begin(self, frame: int) -> None:
        """The slider is taken hold of while this frame is shown."""
        reading = self._reading
        self._drag = (
            frame,
            reading.mask_frame(frame).copy(),
            float(reading.thresholds[frame]),
            reading.threshold,
        )

    def preview(self, threshold: float) -> None:
        """Show the held frame at another threshold; not yet an undo step."""
        reading = self._reading
        frame, start, old, _ = self._drag
        reading.threshold = threshold
        if not reading.has_prediction(frame):
            return
        reading.thresholds[frame] = threshold
        where, value = self._change(frame, start, old, threshold)
        mask = reading.mask_frame(frame)
        mask[...] = start
        mask[where] = value
        reading.refresh_mask(thumbnail=False)

    def commit(self) -> None:
        """The slider is let go: what it did becomes one undo step."""
        frame, start, old, old_threshold = self._drag
        self._drag = None
        reading = self._reading
        new = reading.threshold
        reading.threshold = old_threshold
        if not reading.usable_mask:
            reading.threshold = new
            return
        if reading.has_prediction(frame):
            reading.mask_frame(frame)[...] = start
            reading.thresholds[frame] = old
        self._move(frame, new)

    def rebase(self, frame: int) -> None:
        """The held frame has just been filled with its prediction."""
        if self._drag is not None and self._drag[0] == frame:
            reading = self._reading
            start = reading.mask_frame(frame).copy()
            old = float(reading.thresholds[frame])
            self._drag = (frame, start, old, self._drag[3])

    def step(self, frame: int, threshold: float, *, join: bool) -> None:
        """Move by key or wheel. ``join`` makes it one undo step with the last."""
        if join and self._last_is_on_top and self._done[-1].shown == frame:
            self._reading.undo_quietly()
            self._restore(self._done.pop(), 0)
        self._move(frame, threshold)

    def reset(self, frame: int) -> None:
        """Make a frame's mask its prediction again, in one undo step."""
        reading = self._reading
        before = self._state(frame, frame)
        wanted = mask_at(reading.probability[frame], reading.threshold)
        where = np.nonzero((reading.mask_frame(frame) != 0) != wanted)
        reading.thresholds[frame] = reading.threshold
        self._kept.pop(frame, None)
        self._record(frame, frame, where, wanted[where].astype(np.uint8), before)
        self._last_is_on_top = False

    def _move(self, frame: int, threshold: float) -> None:
        reading = self._reading
        carrier = self._carrier(frame, threshold)
        self._last_is_on_top = False
        if carrier is None:
            reading.threshold = threshold
            if reading.has_prediction(frame):
                reading.thresholds[frame] = threshold
            return
        before = self._state(carrier, frame)
        old = float(reading.thresholds[carrier])
        mask = reading.mask_frame(carrier)
        where, value = self._change(carrier, mask, old, threshold)
        self._keep_corrections(carrier, mask, old)
        reading.threshold = threshold
        reading.thresholds[carrier] = threshold
        if reading.has_prediction(frame):
            reading.thresholds[frame] = threshold
        self._record(carrier, frame, where, value, before)
        self._last_is_on_top = True

    def _state(self, frame: int, shown: int) -> _State:
        reading = self._reading
        return _State(
            threshold=reading.threshold,
            frame_threshold=float(reading.thresholds[frame]),
            shown_threshold=float(reading.thresholds[shown]),
            kept=self._kept.get(frame),
        )

    def _record(
        self, frame: int, shown: int, where: Where, value: Pixels, before: _State
    ) -> None:
        if not len(where[0]):
            return
        step = _Step(
            frame=frame,
            shown=shown,
            where=where,
            pixels=(1 - value, value),
            states=(before, self._state(frame, shown)),
        )
        self._undone.clear()
        self._stroke_unseen = False
        self._done.append(step)
        del self._done[:-_HISTORY]
        self._reading.write(frame, where, value)

    def _carrier(self, frame: int, threshold: float) -> int | None:
        """The frame whose change goes into the undo history.

        The shown one; where nothing changes in it, the nearest uncorrected frame in
        which something does, so that the change can be undone all the same.
        """
        reading = self._reading
        for candidate in sorted(range(reading.count), key=lambda f: abs(f - frame)):
            if not reading.has_prediction(candidate):
                continue
            self.bring_up_to_date(candidate)
            if candidate != frame and reading.is_corrected(candidate):
                continue
            old = float(reading.thresholds[candidate])
            mask = reading.mask_frame(candidate)
            if len(self._change(candidate, mask, old, threshold)[0][0]):
                return candidate
        return None

    def _change(
        self, frame: int, mask: np.ndarray, old: float, new: float
    ) -> tuple[Where, int]:
        probability = self._reading.probability[frame]
        (rows, columns), values = threshold_change(mask, probability, old, new)
        kept = self._kept.get(frame)
        if kept is not None:
            free = ~kept[rows, columns]
            rows, columns = rows[free], columns[free]
        # A threshold moves one way at a time, so all the values are the same.
        return (rows, columns), int(values[0]) if len(values) else 0

    def _keep_corrections(self, frame: int, mask: np.ndarray, old: float) -> None:
        # At the new threshold a correction may agree with the prediction; on the way
        # back it would then be taken for a pixel of the prediction. So it is kept.
        theirs = (mask != 0) != mask_at(self._reading.probability[frame], old)
        if not theirs.any():
            return
        kept = self._kept.get(frame)
        self._kept[frame] = theirs if kept is None else theirs | kept

    # -- the other frames of a cine -------------------------------------------

    def out_of_date(self, frame: int) -> bool:
        """Whether a frame is cut at another threshold than the others."""
        reading = self._reading
        return reading.has_prediction(frame) and cut(reading.thresholds[frame]) != cut(
            reading.threshold
        )

    def bring_up_to_date(self, frame: int) -> bool:
        """Let an uncorrected frame follow the threshold; True if it changed."""
        reading = self._reading
        if not reading.usable_mask or not self.out_of_date(frame):
            return False
        if self._drag is not None and self._drag[0] == frame:
            return False
        if reading.is_corrected(frame):
            return False
        probability = reading.probability[frame]
        reading.mask_frame(frame)[...] = mask_at(probability, reading.threshold)
        reading.thresholds[frame] = reading.threshold
        if frame not in reading.corrections.in_history:
            reading.corrections.note_filled(frame)
        return True

    # -- undo and redo ----------------------------------------------------------

    def on_reader_stroke(self) -> None:
        """The reader has painted: napari has dropped what could be redone."""
        self._undone.clear()
        self._last_is_on_top = False
        # napari tells of some changes before it has made them: look at the next chance.
        self._stroke_unseen = True

    def forget(self) -> None:
        """The undo history no longer belongs to these steps."""
        self._done.clear()
        self._undone.clear()
        self._kept.clear()
        self._last_is_on_top = False

    def settle(self) -> bool:
        """Follow napari's undo or redo; True if the threshold has changed."""
        if self.dragging:
            return False
        if self._stroke_unseen:
            self._stroke_unseen = False
            if self._done:
                self._done[-1].painted_over = self._shows(self._done[-1], 0)
        changed = False
        while self._done and self._shows(self._done[-1], 0):
            if self._done[-1].painted_over:
                break
            step = self._done.pop()
            self._undone.append(step)
            self._restore(step, 0)
            changed = True
        else:
            if self._done:
                self._done[-1].painted_over = False
        if not changed and self._undone and self._shows(self._undone[-1], 1):
            step = self._undone.pop()
            self._done.append(step)
            self._restore(step, 1)
            changed = True
        return changed

    def _shows(self, step: _Step, side: int) -> bool:
        mask = self._reading.mask_frame(step.frame)
        return bool(((mask[step.where] != 0) == (step.pixels[side] != 0)).all())

    def _restore(self, step: _Step, side: int) -> None:
        reading = self._reading
        state = step.states[side]
        reading.threshold = state.threshold
        reading.thresholds[step.shown] = state.shown_threshold
        reading.thresholds[step.frame] = state.frame_threshold
        if state.kept is None:
            self._kept.pop(step.frame, None)
        else:
            self._kept[step.frame] = state.kept
        self._last_is_on_top = False
