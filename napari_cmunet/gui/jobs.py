"""One long piece of work in a napari worker: how far it is, Cancel, what it gave."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.prediction import spare_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    ShouldStop = Callable[[], bool]
    Report = Callable[[int, int], None]
    Act = Callable[[Report, ShouldStop], Any]

logger = logging.getLogger(__name__)

_LOOK_EVERY_MS = 100


@dataclass(frozen=True)
class Outcome:
    """How it ended: with a result, an error in words, or neither if cancelled."""

    result: Any = None
    error: CMUNetError | None = None
    cancelled: bool = False


class LongJob:
    """Runs a function in a worker.

    Parameters
    ----------
    text : str
        What is done, for people.
    act : callable
        Given ``report(done, total)`` and ``should_stop()``; runs in the worker.
    ended : callable
        Told the Outcome, on the GUI thread.
    """

    #: It got further.
    changed = Signal()

    def __init__(self, text: str, act: Act, ended: Callable[[Outcome], None]) -> None:
        self.text = text
        self.done = self.total = 0
        self._act, self._ended = act, ended
        self._stop = threading.Event()
        self._shown = (0, 0)
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._worker = create_worker(self._run)
        self._worker.returned.connect(self._on_returned)

    def start(self) -> LongJob:
        """Begin; returns itself."""
        self._timer.start(_LOOK_EVERY_MS)
        self._worker.start()
        return self

    def cancel(self) -> None:
        """Ask it to end soon; what it comes to is still told."""
        self._stop.set()
        self.changed.emit()

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def _should_stop(self) -> bool:
        # napari asks its workers to quit when the window closes.
        return self._stop.is_set() or self._worker.abort_requested

    def _report(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def _look(self) -> None:
        if self._shown != (self.done, self.total):
            self._shown = (self.done, self.total)
            self.changed.emit()

    def _run(self) -> Outcome:
        try:
            with spare_thread():
                return Outcome(self._act(self._report, self._should_stop))
        except Cancelled:
            return Outcome(cancelled=True)
        except CMUNetError as error:
            return Outcome(error=error)
        except MemoryError:
            return Outcome(
                error=CMUNetError(
                    "This computer has not enough free memory. Close other programs."
                )
            )
        except Exception as error:
            logger.exception("%s failed", self.text)
            return Outcome(
                error=CMUNetError(
                    f"An unexpected error ({error}). Help > Show logs has the details."
                )
            )

    def _on_returned(self, outcome: Outcome) -> None:
        self._timer.stop()
        self._ended(outcome)
