"""Background jobs: run a function off the GUI thread and report back on it.

``Job`` is one run of a function. ``JobRunner`` runs one job at a time and drops the
results of those it has replaced. What a job needs is handed over as a frozen request,
for instance with ``functools.partial``; neither layers nor widgets may be touched.
"""

from __future__ import annotations

import atexit
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal
from qtpy.QtCore import QThreadPool, QTimer

from napari_cmunet.errors import Cancelled, CMUNetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    ShouldStop = Callable[[], bool]
    Report = Callable[[int, int], None]
    JobFunction = Callable[[Report, ShouldStop], Any]

logger = logging.getLogger(__name__)

_POLL_MS = 100
_WAIT_AT_EXIT_MS = 30_000

#: Set when the program ends: workers stop as soon as they can.
exiting = threading.Event()


@atexit.register
def _wait_for_workers() -> None:
    """Wait for running workers before the interpreter takes Qt's objects down.

    A worker that ends after that emits a signal of a deleted object, which aborts the
    process. napari itself waits only if its event loop is left in the usual way.
    """
    exiting.set()
    pool = QThreadPool.globalInstance()
    if pool is not None:
        pool.clear()
        pool.waitForDone(_WAIT_AT_EXIT_MS)


@contextmanager
def spare_thread() -> Iterator[None]:
    """Let the thread pool start another worker although this one takes long.

    The pool has one thread per core. A long job must not keep a short one, such as an
    export, from starting.
    """
    pool = QThreadPool.globalInstance()
    assert pool is not None
    pool.releaseThread()
    try:
        yield
    finally:
        pool.reserveThread()


@dataclass(frozen=True)
class JobResult:
    """How a job ended: with a value, with an error, or cancelled."""

    result: Any = None
    error: CMUNetError | None = None
    cancelled: bool = False


class Job:
    """One run of a function in a worker thread.

    Parameters
    ----------
    text : str
        What the job does, for people.
    function : callable
        Called in the worker as ``function(report, should_stop)``; ``report(done,
        total)`` sets the progress.
    on_end : callable
        Called on the GUI thread with a JobResult.
    failure : str, optional
        Beginning of the message for an unexpected error, such as "The frame cannot be
        read".
    """

    #: The progress has changed, or the job is being cancelled.
    changed = Signal()

    def __init__(
        self,
        text: str,
        function: JobFunction,
        on_end: Callable[[JobResult], None],
        *,
        failure: str = "",
    ) -> None:
        self.text = text
        self.done = self.total = 0
        self._function, self._on_end, self._failure = function, on_end, failure
        self._stop = threading.Event()
        self._shown = (0, 0)
        self._timer = QTimer()
        self._timer.timeout.connect(self._poll)
        self._worker: Any = create_worker(self._run)
        self._worker.returned.connect(self._on_returned)

    def start(self) -> Job:
        """Start the job and return it."""
        self._timer.start(_POLL_MS)
        self._worker.start()
        return self

    def cancel(self) -> None:
        """Ask the job to stop; ``on_end`` is still called."""
        self._stop.set()
        self.changed.emit()

    @property
    def cancelling(self) -> bool:
        """Whether the job was asked to stop."""
        return self._stop.is_set()

    def _should_stop(self) -> bool:
        # napari asks its workers to quit when the window closes.
        return self._stop.is_set() or exiting.is_set() or self._worker.abort_requested

    def _report(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def _poll(self) -> None:
        if self._shown != (self.done, self.total):
            self._shown = (self.done, self.total)
            self.changed.emit()

    def _run(self) -> JobResult:
        try:
            with spare_thread():
                return JobResult(self._function(self._report, self._should_stop))
        except Cancelled:
            return JobResult(cancelled=True)
        except CMUNetError as error:
            return JobResult(error=error)
        except MemoryError:
            text = "This computer has not enough free memory. Close other programs."
            return JobResult(error=CMUNetError(text))
        except Exception as error:
            logger.exception("%s failed", self.text)
            return JobResult(error=CMUNetError(self._describe(error)))

    def _describe(self, error: Exception) -> str:
        if self._failure and isinstance(error, (OSError, ValueError)):
            return f"{self._failure} ({error})."
        what = f"{self._failure}, for an" if self._failure else "An"
        return f"{what} unexpected error ({error}). Help > Show logs has the details."

    def _on_returned(self, result: JobResult) -> None:
        self._timer.stop()
        self._on_end(result)


class JobRunner:
    """Runs one job at a time; the results of replaced and cancelled jobs are dropped.

    Parameters
    ----------
    text : str
        What the jobs do, for people.
    failure : str, optional
        Beginning of the message for an unexpected error.
    """

    #: A job has started, progressed or ended.
    changed = Signal()

    def __init__(self, text: str, *, failure: str = "") -> None:
        self._text, self._failure = text, failure
        self._generation = 0
        self.job: Job | None = None

    @property
    def running(self) -> bool:
        """Whether the result of a job is awaited."""
        return self.job is not None

    def start(
        self,
        function: JobFunction,
        *,
        on_result: Callable[[Any], None] | None = None,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        """Run a function in a worker, in place of the job before.

        Parameters
        ----------
        function : callable
            Called in the worker as ``function(report, should_stop)``.
        on_result : callable, optional
            Called on the GUI thread with what the function returned.
        on_error : callable, optional
            Called on the GUI thread with a message for the user.
        """
        self.cancel()
        generation = self._generation

        def ended(result: JobResult) -> None:
            if generation != self._generation:
                return
            self.job = None
            if result.error is not None:
                if on_error is not None:
                    on_error(str(result.error))
            elif not result.cancelled and on_result is not None:
                on_result(result.result)
            self.changed.emit()

        job = self.job = Job(self._text, function, ended, failure=self._failure)
        job.changed.connect(self.changed.emit)
        job.start()

    def cancel(self) -> None:
        """Stop the job that runs; none of its callbacks is called any more."""
        self._generation += 1
        job, self.job = self.job, None
        if job is not None:
            job.changed.disconnect()
            job.cancel()
