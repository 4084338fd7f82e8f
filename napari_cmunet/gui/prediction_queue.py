"""Which image is predicted now and which ones wait."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from napari_cmunet.gui.layers import source_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_cmunet.gui.image_state import ImageState
    from napari_cmunet.gui.prediction import ModelChoice
    from napari_cmunet.gui.prediction_runner import PredictionRunner


class FrameQueue:
    """Frames still to be predicted, shared by the window and its worker.

    Parameters
    ----------
    frames : iterable of int
        The frames to predict.
    focus : int
        The frame on show. The nearest waiting frame is always taken next.
    """

    def __init__(self, frames: Iterable[int], focus: int = 0) -> None:
        self._waiting = set(frames)
        self._focus = focus
        self._stopped = False
        self._lock = threading.Lock()

    def look_at(self, frame: int) -> None:
        """Go on from this frame."""
        with self._lock:
            self._focus = frame

    def stop(self) -> None:
        """Hand out no more frames, and let the frame in work be given up."""
        with self._lock:
            self._stopped = True

    def stopped(self) -> bool:
        """Whether the job has been given up."""
        return self._stopped

    def take(self) -> int | None:
        """Take the next frame, or None when done or stopped."""
        with self._lock:
            if self._stopped or not self._waiting:
                return None
            frame = min(self._waiting, key=lambda f: (abs(f - self._focus), -f))
            self._waiting.discard(frame)
            return frame

    def __len__(self) -> int:
        return len(self._waiting)


class Schedule:
    """One image at a time, the one that is worked on before the others.

    Parameters
    ----------
    runner : PredictionRunner
        Does the work.
    shown : callable
        The frame of a reading that the viewer shows.
    """

    def __init__(
        self, runner: PredictionRunner, shown: Callable[[ImageState], int]
    ) -> None:
        self._runner = runner
        self._shown = shown
        self.current: ImageState | None = None
        self.waiting: list[ImageState] = []
        self._only: dict[ImageState, int] = {}

    def add(
        self, image_state: ImageState, *, first: bool = False, only: int | None = None
    ) -> None:
        """Put an image in line, all of it or ``only`` one frame."""
        if only is None:
            self._only.pop(image_state, None)
        else:
            self._only[image_state] = only
        if image_state is not self.current and image_state not in self.waiting:
            self.waiting.insert(0 if first else len(self.waiting), image_state)

    def remove(self, image_state: ImageState) -> None:
        """Take an image out of line; what it has already is kept."""
        self._only.pop(image_state, None)
        if image_state in self.waiting:
            self.waiting.remove(image_state)
        if image_state is self.current:
            self.current = None
            self._runner.stop()

    def clear(self) -> None:
        """Give up everything."""
        self._only.clear()
        self.waiting.clear()
        self.current = None
        self._runner.stop()

    def go_on(self, active: ImageState | None, choice: ModelChoice) -> None:
        """Start what comes next; the active image interrupts another."""
        if active in self.waiting:
            self.waiting.remove(active)
            if self.current is not None:
                self.waiting.insert(0, self.current)
            self._start(active, choice)
        elif self.current is None and self.waiting:
            self._start(self.waiting.pop(0), choice)

    def _start(self, image_state: ImageState, choice: ModelChoice) -> None:
        self.current = image_state
        image = image_state.image
        only = self._only.get(image_state)
        self._runner.start(
            source_array(image),
            image_state.waiting_frames() if only is None else [only],
            focus=self._shown(image_state) if only is None else only,
            cine=image_state.is_cine,
            rgb=image.rgb,
            choice=choice,
        )
