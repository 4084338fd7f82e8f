"""Runs one prediction job at a time in a worker and keeps the model warm."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal

from napari_cmunet.gui.prediction import (
    Engine,
    EngineFactory,
    EngineReady,
    Event,
    Failure,
    FrameReady,
    Job,
    ModelChoice,
    run_job,
)
from napari_cmunet.gui.prediction_queue import FrameQueue

if TYPE_CHECKING:
    from collections.abc import Iterable


class PredictionRunner:
    """Starts, follows and stops predictions. Lives on the GUI thread.

    A job that was stopped is finished for the window at once; its thread ends with
    the frame in work, and only then does the next job start, so that two never share
    a model.

    Parameters
    ----------
    factory : callable
        Loads a model; runs in the worker's thread.
    """

    frame_ready = Signal(FrameReady)
    engine_ready = Signal(Engine)
    noticed = Signal(str)
    failed = Signal(str)
    finished = Signal()

    def __init__(self, factory: EngineFactory) -> None:
        #: Loads a model, for a worker's thread.
        self.load = factory
        self._number = 0
        self._job: Job | None = None
        self._next: Job | None = None
        self._worker: Any = None
        self._worker_queue: FrameQueue | None = None
        self._total = 0
        self._done = 0
        self._seconds: list[float] = []
        self._told = 0
        self.engine: Engine | None = None

    # -- state ----------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a job is wanted: at work, or waiting for a stopped one to end."""
        return self._job is not None

    @property
    def loading(self) -> bool:
        """Whether the model is still being loaded."""
        return self.running and self._ready_engine(self._job.choice) is None

    @property
    def progress(self) -> tuple[int, int]:
        """Frames done and frames in all."""
        return self._done, self._total

    @property
    def seconds_left(self) -> float | None:
        """Time left, None until it can be told."""
        if len(self._seconds) < 2:
            return None
        # The first frame of a job is slower: memory is taken, kernels are chosen.
        recent = self._seconds[1:][-8:]
        return sum(recent) / len(recent) * (self._total - self._done)

    def _ready_engine(self, choice: ModelChoice) -> Engine | None:
        if self.engine is not None and self.engine.choice == choice:
            return self.engine
        return None

    # -- control --------------------------------------------------------------

    def start(
        self,
        frames: Any,
        waiting: Iterable[int],
        *,
        focus: int,
        cine: bool,
        rgb: bool,
        choice: ModelChoice,
    ) -> None:
        """Predict the waiting frames, the one in focus first. Ends what is running."""
        self.stop()
        waiting = list(waiting)
        self._number += 1
        self._total, self._done, self._seconds = len(waiting), 0, []
        self._job = Job(
            number=self._number,
            frames=frames,
            cine=cine,
            rgb=rgb,
            choice=choice,
            queue=FrameQueue(waiting, focus),
            engine=None,
            factory=self.load,
        )
        self._next = self._job
        if self._worker is None:
            self._launch()

    def warm_up(self, choice: ModelChoice) -> None:
        """Load a model ahead of time, unless there is work at hand."""
        if not self.running and self._ready_engine(choice) is None:
            self.start(None, [], focus=0, cine=False, rgb=False, choice=choice)

    def look_at(self, frame: int) -> None:
        """Go on from this frame."""
        if self._job is not None:
            self._job.queue.look_at(frame)

    def stop(self) -> None:
        """Give up the job. Nothing of it arrives any more."""
        self._job = self._next = None
        if self._worker_queue is not None:
            self._worker_queue.stop()

    def _launch(self) -> None:
        job, self._next = self._next, None
        if job is None:
            return
        job = dataclasses.replace(job, engine=self._ready_engine(job.choice))
        self._worker_queue = job.queue
        self._worker = create_worker(run_job, job)
        self._worker.yielded.connect(self._on_event)
        self._worker.finished.connect(self._on_finished)
        self._worker.start()

    # -- from the worker, on the GUI thread -----------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, EngineReady):
            # Even of a job that was given up: the next one need not load again.
            self.engine = event.engine
            self._told = 0
            self.engine_ready.emit(event.engine)
            self._tell_notices()
            return
        if self._job is None or event.number != self._job.number:
            return
        if isinstance(event, FrameReady):
            self._done += 1
            self._seconds.append(event.seconds)
            self.frame_ready.emit(event)
            self._tell_notices()
        elif isinstance(event, Failure):
            self._job = None
            self.failed.emit(event.message)

    def _tell_notices(self) -> None:
        notices = self.engine.notices()
        for message in notices[self._told :]:
            self.noticed.emit(message)
        self._told = len(notices)

    def _on_finished(self) -> None:
        self._worker = None
        self._worker_queue = None
        if self._next is not None:
            self._launch()
            return
        self._job = None
        self.finished.emit()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait until no thread is at work. For tests and for closing."""
        from qtpy.QtCore import QCoreApplication

        end = time.monotonic() + seconds
        while self._worker is not None and time.monotonic() < end:
            QCoreApplication.processEvents()
            time.sleep(0.005)
        return self._worker is None
