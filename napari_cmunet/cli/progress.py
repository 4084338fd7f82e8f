"""Progress on stderr, where that is a terminal."""

from __future__ import annotations

import shutil
import sys
import time

from napari_cmunet.util.text import duration


class Progress:
    """One line that is written over: what is done, how many, time left.

    Parameters
    ----------
    total : int
        How many things there are to do.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self._began = time.monotonic()
        self._shown = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Say what is worked on now."""
        if not self._shown:
            return
        left = ""
        if self.done:
            each = (time.monotonic() - self._began) / self.done
            left = f", {duration(each * (self.total - self.done))} left"
        self.line(f"{self.done + 1}/{self.total} {text}{left}")

    def line(self, text: str) -> None:
        """Write over the progress line."""
        if not self._shown:
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)

    def advance(self) -> None:
        """One more is done."""
        self.done += 1

    def complain(self, text: str) -> None:
        """Say, on a line of its own, what is wrong."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the progress line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
