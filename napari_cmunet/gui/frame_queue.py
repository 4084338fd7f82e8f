"""Which frame of a cine is predicted next: the shown one, then outward from it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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
