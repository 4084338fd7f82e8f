"""Segment images on the workers of a Dask cluster.

The bytes of each file go to a worker over the connection, and those of its masks come
back, so that workers need no folder of this machine. Only this process writes.
"""

from __future__ import annotations

import pickle
import queue
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_cmunet.cli.segment.one import Outcome, Outputs, attempt, write_outputs
from napari_cmunet.errors import ClusterError
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.util.cluster import ONE_AT_A_TIME, connect, submit
from napari_cmunet.util.safe_files import atomic_write, make_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client, Future

    from napari_cmunet.cli.segment.one import How, Job, Segmented
    from napari_cmunet.model.registry import LoadedModel

    Files = dict[str, bytes]

_PER_THREAD = 2
"""Images on their way for each thread of the workers, so that none waits for one."""
_SECONDS = 1.0
_KILLED = "the workers that were to segment it died. They may need more memory."
_SECONDS_WITHOUT_WORKER = 120


def segment_on_cluster(
    jobs: Iterable[Job],
    model: LoadedModel,
    how: How,
    args: argparse.Namespace,
    begin: Callable[[Job], Outcome | None],
) -> Iterator[tuple[Job, Outcome]]:
    """Segment images as workers are free; what is done first comes first.

    A worker that dies costs its images alone: another one takes them.

    Raises
    ------
    ClusterError
        If the cluster goes away.
    """
    with connect(args.cluster, args.plain_tcp) as client:
        run, sha256 = uuid4().hex, model.card.sha256
        packed = pickle.dumps(model, protocol=5)
        shared = client.submit(bytes, packed, key=f"model-{run}")
        done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        running: dict[str, Job] = {}
        suspects: list[Job] = []

        def send(job: Job) -> None:
            with open_sniffed(job.file.path) as file:
                content = file.handle.read()
            sent = (content, args.device, how, job.outputs.extras, sha256)
            key = f"segment-{run}-{job.number}-{len(suspects)}"
            future = submit(client, segment_bytes, *sent, futures=[shared], key=key)
            running[key] = job
            future.add_done_callback(done.put)

        def take(limit: int) -> Iterator[tuple[Job, Outcome]]:
            """What is done, until no more images than this are on their way."""
            while len(running) > limit:
                job, outcome = _take(client, done, running)
                if outcome.reason == _KILLED and job not in suspects:
                    suspects.append(job)
                else:
                    yield job, outcome

        for job in jobs:
            outcome = begin(job)
            if outcome is None:
                yield from take(_PER_THREAD * _threads(client) - 1)
                outcome = attempt(partial(send, job))
            if outcome.made or outcome.reason:
                yield job, outcome
        yield from take(0)
        for job in suspects:  # one by one: which of them do workers die of?
            outcome = attempt(partial(send, job))
            if outcome.reason:
                yield job, outcome
            yield from take(0)


def _threads(client: Client) -> int:
    """Of all workers; 1 while there is none."""
    try:
        return max(1, sum(client.nthreads().values()))
    except OSError as error:
        raise _lost("The connection to the cluster was lost") from error


def _take(
    client: Client, done: queue.SimpleQueue[Future], running: dict[str, Job]
) -> tuple[Job, Outcome]:
    """Wait for the next image, and write what belongs to it."""
    from distributed import CancelledError

    try:
        future, result = _wait(client, done)
    except (OSError, CancelledError) as error:
        raise _lost("The connection to the cluster was lost") from error
    job = running.pop(str(future.key))
    if isinstance(result, BaseException):
        return job, Outcome(reason=_reason(result), named=False)
    outcome, files = result
    if outcome.made is None:
        return job, outcome
    written = attempt(partial(_write, job.outputs, files, outcome.made))
    return job, replace(
        outcome, made=written.made, reason=written.reason, named=written.named
    )


def _wait(client: Client, done: queue.SimpleQueue[Future]) -> tuple[Future, Any]:
    """A future that is done, and its result or its exception."""
    future: Future | None = None
    seen = time.monotonic()  # a worker
    while True:
        try:
            future = future or done.get(timeout=_SECONDS)
            error = future.exception(timeout=_SECONDS)
            # A result whose worker has died is made again.
            return future, error or future.result(timeout=_SECONDS_WITHOUT_WORKER)
        except (queue.Empty, TimeoutError):
            if client.status != "running":
                raise ConnectionError from None
            if client.nthreads():
                seen = time.monotonic()
            elif time.monotonic() - seen > _SECONDS_WITHOUT_WORKER:
                raise _lost("The cluster has no worker any more") from None


def _lost(what: str) -> ClusterError:
    return ClusterError(
        f"{what}. Finished files are whole; run the command again to go on."
    )


def _reason(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return _KILLED
    return f"the worker failed ({type(error).__name__}: {error})."


def _write(outputs: Outputs, files: Files, made: Segmented) -> Segmented:
    make_folder(outputs.mask.parent)
    for path, name in zip(outputs.all(), (*outputs.extras, "mask"), strict=True):
        if name in files:
            with atomic_write(path) as file:
                file.write(files[name])
    return made


# -- on a worker -----------------------------------------------------------------

_predictors: dict[tuple[str, str], Predictor] = {}


def segment_bytes(
    content: bytes,
    device: str,
    how: How,
    extras: tuple[str, ...],
    sha256: str,
    model: bytes,
) -> tuple[Outcome, Files]:
    """Segment the content of an image file; return the content of its outputs."""
    from distributed import get_worker

    with (
        ONE_AT_A_TIME,
        # What a killed worker leaves here goes when the next one starts.
        tempfile.TemporaryDirectory(dir=get_worker().local_directory) as folder,
    ):
        image, outputs = (
            Path(folder, "image"),
            Outputs(Path(folder, "mask.tif"), extras),
        )
        image.write_bytes(content)
        notices: list[str] = []

        def segment() -> Segmented:
            predictor = _predictor(sha256, model, device)
            before = len(predictor.notices)
            try:
                return write_outputs(image, outputs, predictor, how)
            finally:
                notices.extend(predictor.notices[before:])

        try:
            outcome = attempt(segment)
        except Exception as error:  # noqa: BLE001 - not every exception can be sent
            outcome = Outcome(reason=_reason(error), named=False)
        if outcome.made is None:
            return replace(outcome, notices=tuple(notices)), {}
        names = zip(outputs.all(), (*extras, "mask"), strict=True)
        files = {name: path.read_bytes() for path, name in names if path.exists()}
        return replace(outcome, notices=tuple(notices)), files


def _predictor(sha256: str, model: bytes, device: str) -> Predictor:
    """The one of the last image, if it is of the same model."""
    key = (sha256, device)
    if key not in _predictors:
        _predictors.clear()
        _predictors[key] = Predictor(pickle.loads(model), choose_device(device))
    return _predictors[key]
