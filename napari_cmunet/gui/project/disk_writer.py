"""Writes to a project off the GUI thread, each act after the one before it."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_cmunet.errors import CMUNetError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class ProjectWriter(QObject):
    """A queue of short acts on one project, carried out in a thread of its own.

    Not napari's workers: those promise no order, and none starts any more when the
    program ends, whereas everything in this queue is still written then.
    """

    _done = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cmunet-project")
        self._waiting = 0
        self._done.connect(self._on_done)

    @property
    def idle(self) -> bool:
        """Whether everything is written, and whoever asked was told."""
        return self._waiting == 0

    def submit(
        self,
        act: Callable[[], Any],
        then: Callable[[Any], None] | None = None,
        failed: Callable[[str], None] | None = None,
    ) -> Future:
        """Do something after all that was asked for before.

        Parameters
        ----------
        act : callable
            Runs in the thread.
        then : callable, optional
            Told the result, on the GUI thread.
        failed : callable, optional
            Told what went wrong, in words for the user, on the GUI thread.
        """
        self._waiting += 1
        future = self._pool.submit(_attempt, act)
        future.add_done_callback(lambda f: self._tell(f, then, failed))
        return future

    def _tell(self, future: Future, then: Any, failed: Any) -> None:
        with suppress(RuntimeError):  # Qt has gone: the program ends
            self._done.emit(future, (then, failed))

    def _on_done(self, future: Future, listeners: tuple[Any, Any]) -> None:
        self._waiting -= 1
        then, failed = listeners
        result, problem = future.result()
        if problem and failed is not None:
            failed(problem)
        elif not problem and then is not None:
            then(result)

    def wait_for(self, future: Future, seconds: float) -> bool:
        """Wait a moment for an act; whether it is done. It goes on if it is not."""
        try:
            future.result(seconds)
        except NotYet:
            return False
        return True

    def close(self) -> None:
        """Carry out what is left, then end."""
        self._pool.shutdown(wait=True)


def _attempt(act: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return act(), ""
    except CMUNetError as error:
        return None, str(error)
    except Exception as error:
        logger.exception("A project could not be written to")
        return None, f"An unexpected error ({error}). Help > Show logs has the details."
