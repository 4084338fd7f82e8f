"""Progress on stderr where that is a terminal, events as JSON, Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from napari_cmunet.training import events
from napari_cmunet.util.safe_files import write_errors
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
        left = ""
        if self.done:
            each = (time.monotonic() - self._began) / self.done
            left = f", {duration(each * (self.total - self.done))} left"
        self.line(f"{self.done + 1}/{self.total} {text}{left}")

    def line(self, text: str) -> None:
        """Write over the progress line."""
        if self._shown:
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
        self.line("")


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop; the best model so far is kept.

    The second one ends the program as it would without this.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.getsignal(s) for s in signals}

    def restore() -> None:
        for s, handler in before.items():
            signal.signal(s, handler)

    def ask(*_: object) -> None:
        stop.set()
        restore()

    for s in signals:
        signal.signal(s, ask)
    try:
        yield stop.is_set
    finally:
        restore()


@contextmanager
def event_writer(where: str) -> Iterator[Callable[[events.Event], None]]:
    """Write events as JSON lines, and in words to stderr; raises WriteError.

    Parameters
    ----------
    where : str
        A file for the JSON lines; ``-`` for stdout, without words; empty for none.
    """
    progress = Progress(0)
    with ExitStack() as stack:
        stack.callback(progress.clear)
        file = sys.stdout if where == "-" else None
        if where not in ("", "-"):
            with write_errors(where):
                opened = open(where, "a", encoding="utf-8", newline="\n")  # noqa: PTH123
            file = stack.enter_context(opened)

        def write(event: events.Event) -> None:
            if file is not None:
                print(events.to_line(event), file=file, flush=True)
            if where != "-":
                _show(progress, event)

        yield write


def _show(progress: Progress, event: events.Event) -> None:
    """Say how a training goes: a moving line, and some that stay."""
    match event:
        case events.Step():
            progress.line(
                f"step {event.step}/{event.steps}, loss {event.loss:.3f}, "
                f"{duration(event.seconds_left)} left"
            )
        case events.Validated():
            progress.complain(
                f"step {event.step}: validation Dice {event.dice:.3f} "
                f"({event.dice_low:.3f} to {event.dice_high:.3f}), clDice "
                f"{event.cldice:.3f}{', best so far' if event.best else ''}"
            )
        case events.Note() | events.Verdict():
            progress.complain(event.text)
        case events.Started():
            progress.complain(
                f"{event.receipt}; {event.labels} labels of {event.patients} patients, "
                f"{event.steps} steps on {event.device}"
            )
        case events.Finished():
            progress.complain(
                f"{event.reason}: {event.steps} steps in {duration(event.seconds)}"
            )
        case events.PretrainStarted():
            go_on = f", from step {event.step}" if event.step else ""
            extra = f", {event.phantoms} phantoms" if event.phantoms else ""
            processes = f", {event.processes} processes" if event.processes > 1 else ""
            progress.complain(
                f"{event.frames} frames{extra}, {event.held_out} held out; "
                f"{event.parameters:,} parameters; {event.device}{processes}; "
                f"{event.steps} steps{go_on}"
            )
        case events.PretrainStep():
            progress.line(
                f"step {event.step}/{event.steps}, loss {event.loss:.4f}, "
                f"reconstruction {event.reconstruction:.4f}, contrast "
                f"{event.contrast:.3f}, {duration(event.seconds_left)} left"
            )
        case events.PretrainEpoch():
            dice = event.phantom_dice
            progress.complain(
                f"epoch {event.epoch + 1}: loss {event.loss:.4f}, reconstruction "
                f"{event.reconstruction:.4f} (held out {event.held_out:.4f}), "
                f"contrast {event.contrast:.3f}"
                + (f", phantom Dice {dice:.3f}" if dice is not None else "")
                + f", {duration(event.seconds)}"
            )
        case events.PretrainFinished():
            progress.complain(
                f"{event.reason}: {event.step} steps, {duration(event.seconds)}"
            )
