"""Fine-tuning on a worker of a Dask cluster.

What is learned from goes there as arrays, not as files; events and results come back
through a queue, as if the training ran here.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_cmunet.errors import Cancelled, TrainingError
from napari_cmunet.model.device import choose_device, tune_malloc
from napari_cmunet.training import events
from napari_cmunet.training.config import FinetuneResult
from napari_cmunet.training.staged_finetuning import train_in_stages
from napari_cmunet.util.cluster import ONE_AT_A_TIME, connect, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from napari_cmunet.training.dataset import Label
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.options import FinetuneOptions

_BEGINS = "begins"
"""The first line of a worker."""
_POLL_SECONDS = 0.2
_CHECK_SECONDS = 5.0
_NOTE_SECONDS = 3.0
_RESULT_SECONDS = 300
_FIRST = 10
"""Priority before images that wait to be segmented."""


def train_on_cluster(
    start: StartModel,
    options: FinetuneOptions,
    labels: Iterable[Label],
    validation_labels: Iterable[Label],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    **of_this_machine: Any,
) -> Generator[events.Event | FinetuneResult, None, None]:
    """Train on the cluster that ``options`` name.

    Parameters, events and results are those of
    :func:`napari_cmunet.training.staged_finetuning.train_in_stages`. The worker takes
    its own best device and measures its own speed. Closing the generator, or the end of
    this process, cancels the training.

    Raises
    ------
    ClusterError
    TrainingError
        Also if the worker or the connection is lost.
    """
    sent = (start, options, _numbered(labels), _numbered(validation_labels))
    with connect(options.cluster, options.plain_tcp) as client:
        from distributed import Event, Queue

        name = f"training-{uuid4().hex}"
        received, stop = Queue(name, client), Event(name, client)
        training = submit(client, _train, *sent, name, key=name, priority=_FIRST)
        began = checked = time.monotonic()
        begun = noted = stopping = False
        while True:
            stopping_now = not stopping and should_stop()
            with _connection():
                ended = training.done()
                items = [_item(line) for line in received.get(batch=True)]
                if stopping_now:
                    stop.set()
                    stopping = True
                if time.monotonic() - checked > _CHECK_SECONDS:
                    checked = time.monotonic()
                    if not client.nthreads():
                        raise TrainingError("The cluster has no worker any more.")
            for item in items:
                if item != _BEGINS:
                    yield item
                elif begun:
                    raise TrainingError("The worker that trained the model has died.")
                else:
                    begun = True
            if ended and not items:
                break
            if not begun and not noted and time.monotonic() > began + _NOTE_SECONDS:
                noted = True
                yield events.Note("Waiting for a free worker of the cluster.")
            time.sleep(_POLL_SECONDS)
        with _connection():
            error = training.exception()
        if error is not None:
            raise error


def _numbered(labels: Iterable[Label]) -> list[Label]:
    """Labels with numbers for names, which may be files' and name patients."""
    return [replace(x, name=f"label {n}") for n, x in enumerate(labels, 1)]


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    from distributed import CancelledError

    try:
        yield
    except (OSError, CancelledError) as error:
        raise TrainingError("The connection to the cluster was lost.") from error


def _item(line: Any) -> Any:
    """An event of its line, or a result of its future."""
    if not isinstance(line, str):
        return line.result(timeout=_RESULT_SECONDS)
    return line if line == _BEGINS else events.from_line(line)


# -- on a worker -----------------------------------------------------------------


def _train(
    start: StartModel,
    options: FinetuneOptions,
    labels: list[Label],
    validation_labels: list[Label],
    name: str,
) -> None:
    from distributed import Event, Queue, get_client, get_worker

    worker, client = get_worker(), get_client()
    key = worker.get_current_task()
    out, stop = Queue(name, client), _Polled(Event(name, client).is_set)

    def should_stop() -> bool:
        # It is released once nobody waits for it: cancelled, or the client is gone.
        if worker.state.tasks[key].state == "cancelled":
            raise Cancelled
        return stop()

    with ONE_AT_A_TIME:
        out.put(_BEGINS)
        tune_malloc()
        for item in train_in_stages(
            start,
            replace(options, cluster=""),
            labels,
            validation_labels,
            read=lambda at: [labels[i] for i in at],
            device=choose_device(),
            should_stop=should_stop,
        ):
            if isinstance(item, FinetuneResult):
                out.put(client.scatter(item))
            else:
                out.put(events.to_line(item))


class _Polled:
    """A question to the scheduler, asked at most twice a second."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask, self._asked, self._answer = ask, 0.0, False

    def __call__(self) -> bool:
        if not self._answer and time.monotonic() - self._asked > 2 * _POLL_SECONDS:
            self._asked, self._answer = time.monotonic(), self._ask()
        return self._answer
