"""Priority of a training below the window's, in time and in memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

REST_SECONDS = 0.1
"""A hand that rests so long gets the training going again."""
LONGEST_SECONDS, LARGEST_SHARE = 5.0, 0.12
"""A training is paused for this share of its time at most, and some seconds more."""
_NICENESS = 10
_KILLED_FIRST = "500"


def lower_priority() -> None:
    """Let the window and its predictions go first; called by the training itself."""
    if hasattr(os, "nice"):  # on Windows, whoever starts this process sets it
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    # Where memory runs out, Linux should end the training and not napari.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST, encoding="ascii")


def popen_options() -> dict[str, Any]:
    """How a training is started: no Ctrl-C in napari's terminal is to reach it."""
    if sys.platform != "win32":
        # A process group and no session: Linux shares the processor out among
        # sessions first, and niceness counts within one alone (man 7 sched).
        return {"process_group": 0}
    return {
        "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP
        | subprocess.CREATE_NO_WINDOW
        | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    }


class Pauser:
    """Stops a process group while a hand is at work.

    Niceness shares a core in proportion, so that a stroke still waits for it now and
    then. Windows gives the window all that it wants: nothing is done there. If napari
    ends during a pause, the system continues and ends the group, which is orphaned.
    """

    def __init__(self, group: int) -> None:
        self._group = group
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._until = 0.0
        self._pausing = False
        self._seconds = 0.0  # of all pauses that are over

    @property
    def share(self) -> float:
        """Share of the time since the start that was paused."""
        return self._seconds / max(time.monotonic() - self._began, 1e-9)

    def pause(self) -> None:
        """Pause until this was not called for REST_SECONDS. Quick."""
        with self._lock:
            now = time.monotonic()
            self._until = now + REST_SECONDS
            if self._pausing or self._left(now) <= 0:
                return
            self._pausing = self._send("SIGSTOP")
        if self._pausing:
            threading.Thread(target=self._resume_after_rest, daemon=True).start()

    def resume(self) -> None:
        """Continue at once."""
        with self._lock:
            self._until = 0.0
            self._send("SIGCONT")

    def _left(self, now: float) -> float:
        """Seconds that may still be paused."""
        return LONGEST_SECONDS + LARGEST_SHARE * (now - self._began) - self._seconds

    def _resume_after_rest(self) -> None:
        began = now = time.monotonic()
        last = began + self._left(began)
        while now < min(self._until, last):
            time.sleep(min(self._until, last) - now)
            now = time.monotonic()
        with self._lock:
            self._send("SIGCONT")
            self._seconds += time.monotonic() - began
            self._pausing = False

    def _send(self, name: str) -> bool:
        if sys.platform == "win32":  # it has no such signals
            return False
        try:
            os.killpg(self._group, getattr(signal, name))
        except OSError:  # it has ended
            return False
        return True
