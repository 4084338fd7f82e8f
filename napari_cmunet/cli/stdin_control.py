"""A training that belongs to a window: takes orders on stdin and ends with it.

It is started ahead of time, with all that takes long to import, and begins at a line
``go``. A line ``stop`` asks to stop and keep the best so far. The end of stdin means
that the window wants the training no more, or is gone itself, however it ended: the
same on every system, and needs no signal.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from napari_cmunet.errors import Cancelled

GO, STOP = b"go\n", b"stop\n"
_STDIN = 0
_SECONDS_TO_TIDY = 1.0
_NICENESS = 10
_KILLED_FIRST = "500"


class Orders:
    """What the window wants. Begins to listen when made.

    Parameters
    ----------
    also_stop : callable
        Another reason to stop and keep the best so far.
    """

    def __init__(self, also_stop=lambda: False) -> None:
        self._also_stop = also_stop
        self._go, self._stop = threading.Event(), threading.Event()
        self._gone = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for_go(self) -> None:
        """Wait until the training may begin; raises Cancelled if nobody wants it."""
        self._go.wait()
        self.check()

    def should_stop(self) -> bool:
        """Whether to stop and keep the best; raises Cancelled if nobody waits."""
        self.check()
        return self._stop.is_set() or self._also_stop()

    def check(self) -> None:
        """Raise Cancelled if nobody waits for the result."""
        if self._gone.is_set():
            raise Cancelled("The training was cancelled.")

    def _listen(self) -> None:
        heard = b""
        # Not sys.stdin: a thread that waits in it can hang the end of the program.
        while piece := _read():
            heard = (heard + piece)[-64:]
            if STOP in heard:
                self._stop.set()
            if GO in heard:
                self._go.set()
        self._gone.set()
        self._go.set()
        # The steps between two looks at `check` may be long ones.
        end = threading.Timer(_SECONDS_TO_TIDY, os._exit, [1])
        end.daemon = True
        end.start()


def _read() -> bytes:
    try:
        return os.read(_STDIN, 64)
    except OSError:  # closed
        return b""


def give_way() -> None:
    """Let the window and its predictions go first, in time and in memory."""
    if hasattr(os, "nice"):  # on Windows, whoever starts this process sets it
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    # Where memory runs out, Linux should end the training and not napari.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST, encoding="ascii")
