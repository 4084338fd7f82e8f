"""Fine-tuning in a process of its own: both ends of the protocol.

The child runs with ``python -m napari_cmunet.project.training.worker``. Its stdin takes
orders, each one line of JSON: any number of plans, which it answers, and one training;
then perhaps a line ``stop``: end soon and keep the best model so far. The end of stdin
cancels: it comes with the parent's end, however that ended. The child writes one event
a line as JSON to stdout.

Started ahead of time, the child imports what takes long and waits. A crash of it harms
neither the parent nor a label. Nothing raises in :meth:`TrainingProcess.run`: napari's
generator workers swallow a RuntimeError.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_cmunet.errors import Cancelled, CMUNetError, TrainingError, UsageError
from napari_cmunet.project.models.promotion import SAFE, TrainingResult, result_of
from napari_cmunet.project.training.priority import (
    Pauser,
    lower_priority,
    popen_options,
)
from napari_cmunet.training import events

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_cmunet.training.events import Event

logger = logging.getLogger(__name__)

STOP = b"stop"
COMMAND = ("-m", "napari_cmunet.project.training.worker")

_STDIN = 0
_SECONDS_TO_CLEAN_UP = 1.0
_SECONDS_TO_KILL = 1.5
_SECONDS_FOR_EVENT = 0.2
_SECONDS_FOR_LAST_LINES = 0.5
_SECONDS_OF_MEASUREMENT = 60
_SECONDS_FOR_PLAN = 120

_NO_PLAN = events.Planned(0, False, "", 0.0)


@dataclass(frozen=True)
class TrainingOrder:
    """What to train."""

    project: Path
    #: Fields of :class:`napari_cmunet.training.options.FinetuneOptions` that were
    #: chosen; the others are as the project's settings have them.
    options: dict[str, Any] = field(default_factory=dict)
    plan_only: bool = False  # only say what the training would do

    def to_line(self) -> bytes:
        """One line of JSON, with the line's end."""
        return json.dumps(asdict(self), default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> TrainingOrder:
        """Read back what :meth:`to_line` wrote."""
        values = json.loads(line)
        return cls(**values | {"project": Path(values["project"])})


# -- the child -------------------------------------------------------------------


class ParentControl:
    """What the parent wants, read from stdin. Listens from the start."""

    def __init__(self) -> None:
        self._stop, self._cancelled = threading.Event(), threading.Event()
        self._orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for_order(self) -> TrainingOrder:
        """Wait for the next order; raises Cancelled if none is wanted."""
        line = self._orders.get()
        self.check()
        return TrainingOrder.from_line(line)

    def stop(self, *_: object) -> None:
        """Stop soon and keep the best. Takes a signal handler's arguments."""
        self._stop.set()

    def should_stop(self) -> bool:
        """Whether to stop and keep the best; raises Cancelled if cancelled."""
        self.check()
        return self._stop.is_set()

    def check(self) -> None:
        """Raise Cancelled if the parent cancelled or ended."""
        if self._cancelled.is_set():
            raise Cancelled("The training was cancelled.")

    def _listen(self) -> None:
        received = b""
        # Not sys.stdin: a thread that waits in it can hang the end of the program.
        while data := _read_stdin():
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                if line == STOP:
                    self._stop.set()
                else:
                    self._orders.put(line)
        self._cancelled.set()
        self._orders.put(b"")
        # The steps between two calls of `check` may take longer.
        end = threading.Timer(_SECONDS_TO_CLEAN_UP, os._exit, [1])
        end.daemon = True
        end.start()


def _read_stdin() -> bytes:
    try:
        return os.read(_STDIN, 4096)
    except OSError:  # closed
        return b""


def main() -> int:
    """Run the child; returns its exit code."""
    lower_priority()
    control = ParentControl()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, control.stop)
    from napari_cmunet.model.device import tune_malloc
    from napari_cmunet.project.training.finetuning import finetune_project, plan_project
    from napari_cmunet.training.evaluation.comparison import regression_frames
    from napari_cmunet.training.finetuning import failure_events

    tune_malloc()
    view_seconds, measured = None, 0.0
    try:
        while (order := control.wait_for_order()).plan_only:
            plan = _NO_PLAN  # what is wrong is shown when a training is wanted
            with contextlib.suppress(CMUNetError, RuntimeError, MemoryError):
                plan, view_seconds = plan_project(order.project, order.options)
                measured = time.monotonic()
            _write(plan)
            regression_frames()  # kept for the comparisons
        fresh = time.monotonic() - measured < _SECONDS_OF_MEASUREMENT
        with failure_events(_write):
            try:
                folder, problems = finetune_project(
                    order.project,
                    order.options,
                    write=_write,
                    view_seconds=view_seconds if fresh else None,
                    any_device=True,
                    should_stop=control.should_stop,
                    check=control.check,
                )
            except UsageError as error:  # which is for a command line to tell
                raise TrainingError(str(error)) from error
    except CMUNetError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if folder is None or problems else 0


def _write(event: Event) -> None:
    print(events.to_line(event), flush=True)


# -- the parent ------------------------------------------------------------------


class TrainingProcess:
    """One child. Its methods may be called at any time and from any thread."""

    def __init__(self) -> None:
        self.stopping = self.cancelled = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stderr: collections.deque[str] = collections.deque(maxlen=40)
        self._listeners: list[threading.Thread] = []
        self._plan: events.Planned | None = None
        self._planned, self._planning = threading.Event(), threading.Lock()
        self._pauser: Pauser | None = None
        self._on_cpu = True

    def start(self) -> None:
        """Start the process; idempotent. Raises OSError if the system refuses."""
        with self._lock:
            if self.cancelled or self._process is not None:
                return
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONUTF8": "1"},
                **popen_options(),
            )
            self._pauser = Pauser(self._process.pid)
            self._listeners = [
                threading.Thread(target=listen, args=(pipe,), daemon=True)
                for listen, pipe in (
                    (self._read_events, self._process.stdout),
                    (self._read_stderr, self._process.stderr),
                )
            ]
            for listener in self._listeners:
                listener.start()
            if self.stopping:
                self._send(STOP + b"\n")

    def send(self, order: TrainingOrder) -> None:
        """Begin the training, or ask for a plan, with the labels that there are now."""
        with self._lock:
            self._send(order.to_line())

    def plan(self, order: TrainingOrder) -> events.Planned | None:
        """Start the process and ask what a training would do; None if not known.

        For a worker's thread: it takes seconds. Raises OSError.
        """
        self.start()
        with self._planning:  # one question at a time: an answer does not name its own
            self._planned.clear()
            self._plan = None
            self.send(replace(order, plan_only=True))
            end = time.monotonic() + _SECONDS_FOR_PLAN
            while not (self._planned.wait(_SECONDS_FOR_EVENT) or self.cancelled):
                if self.exit_code is not None or end < time.monotonic():
                    break
            return self._plan if self._plan != _NO_PLAN else None

    def stop(self) -> None:
        """End soon and keep the best model so far."""
        with self._lock:
            self.stopping = True
            self._send(STOP + b"\n")

    def cancel(self) -> None:
        """End within two seconds; nothing is kept."""
        with self._lock:
            self.cancelled = True
            if self._process is None or self._process.poll() is not None:
                return
            self._close_stdin()  # it cleans up and ends
            if self._pauser is not None:
                self._pauser.resume()
        timer = threading.Timer(_SECONDS_TO_KILL, self.kill)
        timer.daemon = True
        timer.start()

    def pause_briefly(self) -> None:
        """Pause it for a moment if it needs the processor; quick."""
        ends = self.cancelled or self.exit_code is not None
        if self._pauser is not None and self._on_cpu and not ends:
            self._pauser.pause()

    @property
    def paused_share(self) -> float:
        """Share of its time that it was paused."""
        return self._pauser.share if self._pauser is not None else 0.0

    def kill(self) -> None:
        """End it and its own children at once."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)

    def run(
        self, order: TrainingOrder
    ) -> Generator[Event | None, None, TrainingResult]:
        """Train to the end, for a worker's thread; the result has no decision yet.

        Yields events, and None a few times a second so that the worker can be aborted.
        """
        last: dict[type, Event] = {}
        try:
            self.start()
            self.send(order)
            while not self.ended:
                event = self.next_event()
                if isinstance(event, events.Stage):
                    last.clear()  # what came before is settled
                if event is not None:
                    last[type(event)] = event
                yield event
            self._wait_for_last_lines()
            while (event := self.next_event()) is not None:
                last[type(event)] = event
                yield event
        except OSError as error:
            logger.exception("The training process could not be started")
            text = f"The training could not be started ({error.strerror}). {SAFE}"
            return TrainingResult(events.OTHER_FAILURE, text)
        finally:
            if not self.ended:  # the worker was aborted
                self.cancel()
        for line in self.stderr():
            logger.warning("training process: %s", line)
        return result_of(
            last,
            self.exit_code,
            self.stderr(),
            stopped=self.stopping,
            cancelled=self.cancelled,
        )

    def next_event(self) -> Event | None:
        """The next event; None if there was none for a moment."""
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=_SECONDS_FOR_EVENT)
        return None

    @property
    def process_id(self) -> int | None:
        """Of the process, None before it is started."""
        return self._process.pid if self._process is not None else None

    @property
    def ended(self) -> bool:
        """Whether it does not run and all its events were taken."""
        return self._process is None or (
            self._process.poll() is not None and self._events.empty()
        )

    @property
    def exit_code(self) -> int | None:
        """Below zero: the signal that ended it. None while it runs."""
        return self._process.poll() if self._process is not None else None

    def stderr(self) -> list[str]:
        """The last lines that it wrote to stderr."""
        return list(self._stderr)

    def _send(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _wait_for_last_lines(self) -> None:
        for listener in self._listeners:
            # Not for ever: a process that it started may hold the pipes open.
            listener.join(_SECONDS_FOR_LAST_LINES)
        with self._lock:
            self._close_stdin()

    def _read_events(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode(errors="replace")
                try:
                    event = events.from_line(text)
                except ValueError:  # a library that prints
                    logger.info("training process: %s", text.rstrip())
                    continue
                if isinstance(event, events.Started):
                    self._on_cpu = event.device == "cpu"
                if isinstance(event, events.Planned):
                    self._plan = event
                    self._planned.set()
                self._events.put(event)
        self._events.put(None)  # wakes who waits
        self._planned.set()

    def _read_stderr(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._stderr.append(line.decode(errors="replace").rstrip())


if __name__ == "__main__":
    sys.exit(main())
