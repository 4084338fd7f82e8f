"""The trainer's process: started, listened to, stopped, and why it ended.

Whatever happens to it, neither the window nor a label is harmed, and the window learns
what it was. Nothing here knows a widget, and nothing raises: napari's generator workers
swallow a RuntimeError.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.gui.training.outcome import SAFE, Heard, Outcome, outcome_of
from napari_cmunet.training import events

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import IO

    from napari_cmunet.training.events import Event

logger = logging.getLogger(__name__)

_GO, _STOP = b"go\n", b"stop\n"
_GRACE_SECONDS = 1.5
_LISTEN_SECONDS = 0.2
_LAST_WORDS_SECONDS = 0.5
_WINDOWS = sys.platform == "win32"


@dataclass(frozen=True)
class TrainingOrder:
    """What is to be trained.

    Parameters
    ----------
    project : Path
    start : str
        Model to start from, or ``current``; empty for the project's own choice.
    minutes : float or None
        Time budget; None for the project's own.
    device : str
    options : tuple of str
        Further options of the command ``finetune``.
    """

    project: Path
    start: str = ""
    minutes: float | None = None
    device: str = "auto"
    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """The command line of the trainer."""
        command = [sys.executable, "-m", "napari_cmunet", "finetune", str(self.project)]
        command += ["--events", "-", "--attached", "--device", self.device]
        command += ["--start", self.start] if self.start else []
        command += ["--minutes", str(self.minutes)] if self.minutes else []
        return command + list(self.options)


class TrainerProcess:
    """One trainer. Orders may be given at any time and from any thread.

    Once launched it imports torch, which takes longest, and waits for :meth:`go`.
    """

    def __init__(self, order: TrainingOrder) -> None:
        self.order = order
        self.stopping = self.cancelled = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._heard: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._complaints: collections.deque[str] = collections.deque(maxlen=40)
        self._listeners: list[threading.Thread] = []

    # -- orders ---------------------------------------------------------------

    def launch(self) -> None:
        """Start the process once; raises OSError if the system does not let it."""
        with self._lock:
            if self.cancelled or self._process is not None:
                return
            self._process = subprocess.Popen(
                self.order.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONUTF8": "1"},
                **_apart(),
            )
            self._listeners = [
                threading.Thread(target=listen, args=(pipe,), daemon=True)
                for listen, pipe in (
                    (self._listen, self._process.stdout),
                    (self._keep_complaints, self._process.stderr),
                )
            ]
            for listener in self._listeners:
                listener.start()
            if self.stopping:
                self._tell(_STOP)

    def go(self) -> None:
        """Let the training begin, with the labels that there are now."""
        with self._lock:
            self._tell(_GO)

    def stop(self) -> None:
        """Ask it to end soon and keep the best model so far."""
        with self._lock:
            self.stopping = True
            self._tell(_STOP)

    def cancel(self) -> None:
        """End it within two seconds; what it has learned is lost."""
        with self._lock:
            self.cancelled = True
            if self._process is None or self._process.poll() is not None:
                return
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # it tidies up and ends
        timer = threading.Timer(_GRACE_SECONDS, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        """End it and whatever it has started, at once."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            if _WINDOWS:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)

    def _tell(self, order: bytes) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                self._process.stdin.write(order)
                self._process.stdin.flush()

    # -- what it says ---------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next event; None if there was none for a moment."""
        with contextlib.suppress(queue.Empty):
            return self._heard.get(timeout=_LISTEN_SECONDS)
        return None

    @property
    def process_id(self) -> int | None:
        """Of the process, None before it is started."""
        return self._process.pid if self._process is not None else None

    @property
    def ended(self) -> bool:
        """Whether it runs no more and all that it said was heard."""
        if self._process is None:
            return True
        return self._process.poll() is not None and self._heard.empty()

    def hear_out(self) -> None:
        """Wait for the last words of a process that has ended, and let its pipes go."""
        for listener in self._listeners:
            # Not for ever: a process that it started may hold the pipes open.
            listener.join(_LAST_WORDS_SECONDS)
        with self._lock:
            if self._process is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()

    @property
    def exit_code(self) -> int | None:
        """Below zero: the signal that ended it. None while it runs."""
        return self._process.poll() if self._process is not None else None

    def complaints(self) -> list[str]:
        """The last lines that it wrote to stderr."""
        return list(self._complaints)

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                try:
                    self._heard.put(events.from_line(line.decode(errors="replace")))
                except ValueError:  # a library that prints
                    logger.info("trainer: %s", line.decode(errors="replace").rstrip())
        self._heard.put(None)  # wakes who waits

    def _keep_complaints(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._complaints.append(line.decode(errors="replace").rstrip())


def _apart() -> dict[str, object]:
    """How to start a process that no Ctrl-C in napari's terminal reaches."""
    if not _WINDOWS:
        return {"start_new_session": True}
    return {
        "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP
        | subprocess.CREATE_NO_WINDOW
        | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    }


def follow(trainer: TrainerProcess) -> Generator[Event | None, None, Outcome]:
    """Run a trainer to its end. For a worker's thread.

    Yields
    ------
    Event or None
        None a few times a second while there is none, so that the worker can be
        aborted.

    Returns
    -------
    Outcome
    """
    heard = Heard()
    try:
        trainer.launch()
        trainer.go()
        while not trainer.ended:
            event = trainer.next_event()
            heard.note(event)
            yield event
        trainer.hear_out()
        while (event := trainer.next_event()) is not None:
            heard.note(event)
            yield event
    except OSError as error:
        logger.exception("The trainer could not be started")
        text = f"The training could not be started ({error.strerror}). {SAFE}"
        return Outcome(events.OTHER_FAILURE, text)
    finally:
        if not trainer.ended:  # the worker was aborted
            trainer.cancel()
    return outcome_of(trainer, heard)
