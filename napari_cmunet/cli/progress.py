"""Progress on stderr where that is a terminal, events as JSON, Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from napari_cmunet.training import events
from napari_cmunet.util.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop; the best model so far is kept."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in _SIGNALS}
    try:
        yield stop.is_set
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def event_writer(where: str) -> Iterator[Callable[[events.Event], None]]:
    """Write events as JSON lines to a file or stdout, and progress to a terminal."""
    progress = Progress(0)

    def show(event: events.Event) -> None:
        if isinstance(event, events.Step):
            progress.line(
                f"step {event.step}/{event.steps}, loss {event.loss:.3f}, "
                f"{duration(event.seconds_left)} left"
            )
        elif isinstance(event, events.Validated):
            progress.complain(
                f"step {event.step}: validation Dice {event.dice:.3f} "
                f"({event.dice_low:.3f} to {event.dice_high:.3f}), clDice "
                f"{event.cldice:.3f}{', best so far' if event.best else ''}"
            )
        elif isinstance(event, events.Note | events.Verdict):
            progress.complain(event.text)
        elif isinstance(event, events.Started):
            progress.complain(
                f"{event.receipt}; {event.labels} labels of {event.patients} patients, "
                f"{event.steps} steps on {event.device}"
            )
        elif isinstance(event, events.Finished):
            progress.complain(
                f"{event.reason}: {event.steps} steps in {duration(event.seconds)}"
            )

    file: TextIO | None = None
    if where == "-":
        file = sys.stdout
    elif where:
        file = open(where, "a", encoding="utf-8", newline="\n")  # noqa: PTH123

    def write(event: events.Event) -> None:
        if file is not None:
            print(events.to_line(event), file=file, flush=True)
        if where != "-":
            show(event)

    try:
        yield write
    finally:
        progress.clear()
        if file is not None and where != "-":
            file.close()
