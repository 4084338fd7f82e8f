"""How a training on the command line is watched and stopped."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from napari_cmunet.cli.progress import Progress
from napari_cmunet.training import events
from napari_cmunet.util.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
