"""The prediction queue: which image is predicted, which ones wait, and the worker."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal

from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.prediction.prediction import (
    Completed,
    Engine,
    EngineFactory,
    Event,
    Failure,
    FrameQueue,
    FrameReady,
    ModelChoice,
    PredictionRequest,
    SeenBefore,
    predict_frames,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.images.image_state import ImageState


class PredictionQueue:
    """Predicts one image at a time, the active one first. Lives on the GUI thread.

    A request that was stopped delivers nothing more. Its thread ends with the frame at
    work, and only then does the next request start: two never share a model.

    Parameters
    ----------
    load : callable
        Loads a model; runs in the worker's thread.
    shown : callable
        Gives the index of an image's shown frame.
    """

    #: A frame of the current image is predicted.
    frame_ready = Signal(FrameReady)
    #: In a frame of the current image, something was there before the contrast.
    seen_before = Signal(SeenBefore)
    #: A model is loaded.
    engine_ready = Signal(Engine)
    #: The predictor had to change something, such as the device.
    noticed = Signal(str)
    failed = Signal(str)
    #: Nothing is left at work.
    finished = Signal()

    def __init__(self, load: EngineFactory, shown: Callable[[ImageState], int]) -> None:
        self.load = load
        self._shown = shown
        #: The model that was loaded last, kept warm.
        self.engine: Engine | None = None
        #: The image at work.
        self.current: ImageState | None = None
        self.waiting: list[ImageState] = []
        self._single_frame: dict[ImageState, int] = {}
        self._number = 0
        self._request: PredictionRequest | None = None
        self._next: PredictionRequest | None = None
        self._worker: Any = None
        self._worker_queue: FrameQueue | None = None
        self._total = 0
        self._done = 0
        self._seconds: list[float] = []
        self._notices_shown = 0

    # -- state ----------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a request is at work, or waits for a stopped one to end."""
        return self._request is not None

    @property
    def loading(self) -> bool:
        """Whether the model is still being loaded."""
        request = self._request
        return request is not None and self._loaded_engine(request.choice) is None

    @property
    def progress(self) -> tuple[int, int]:
        """Frames done, and frames in all."""
        return self._done, self._total

    @property
    def seconds_left(self) -> float | None:
        """Estimated time left; None until there is an estimate."""
        if len(self._seconds) < 2:
            return None
        # The first frame is slower: memory is allocated, kernels are chosen.
        recent = self._seconds[1:][-8:]
        return sum(recent) / len(recent) * (self._total - self._done)

    def _loaded_engine(self, choice: ModelChoice) -> Engine | None:
        if self.engine is not None and self.engine.choice == choice:
            return self.engine
        return None

    # -- the queue ------------------------------------------------------------

    def add(
        self,
        image_state: ImageState,
        *,
        first: bool = False,
        only: int | None = None,
    ) -> None:
        """Put an image in the queue: all of its frames, or ``only`` one."""
        if only is None:
            self._single_frame.pop(image_state, None)
        else:
            self._single_frame[image_state] = only
        if image_state is not self.current and image_state not in self.waiting:
            self.waiting.insert(0 if first else len(self.waiting), image_state)

    def remove(self, image_state: ImageState) -> None:
        """Take an image out of the queue; frames already predicted are kept."""
        self._single_frame.pop(image_state, None)
        if image_state in self.waiting:
            self.waiting.remove(image_state)
        if image_state is self.current:
            self.current = None
            self._stop()

    def clear(self) -> None:
        """Empty the queue and stop."""
        self._single_frame.clear()
        self.waiting.clear()
        self.current = None
        self._stop()

    def start_next(self, active: ImageState | None, choice: ModelChoice) -> None:
        """Start the next image; the active one interrupts another."""
        if active in self.waiting:
            assert active is not None
            self.waiting.remove(active)
            if self.current is not None:
                self.waiting.insert(0, self.current)
            self._start(active, choice)
        elif self.current is None and self.waiting:
            self._start(self.waiting.pop(0), choice)

    def warm_up(self, choice: ModelChoice) -> None:
        """Load a model ahead of time, unless something is at work."""
        if not self.running and self._loaded_engine(choice) is None:
            self._start(None, choice)

    def set_focus(self, frame: int) -> None:
        """Predict the frames next to this one first."""
        if self._request is not None:
            self._request.queue.set_focus(frame)

    # -- the worker -----------------------------------------------------------

    def _start(self, image_state: ImageState | None, choice: ModelChoice) -> None:
        """Predict an image, or only load a model."""
        self._stop()
        waiting, focus, frames, complete = [], 0, None, None
        if image_state is not None:
            self.current = image_state
            frames = Frames.of(image_state.image)
            waiting, focus = image_state.waiting_frames(), self._shown(image_state)
            missing = set(waiting)
            if image_state in self._single_frame:
                focus = self._single_frame[image_state]
                waiting = [focus]
            # With nothing to predict, an interrupted image is gone on with.
            if missing <= set(waiting) and (missing or not waiting):
                complete = Completed(image_state.probability, image_state.predicted)
        self._number += 1
        self._total, self._done, self._seconds = len(waiting), 0, []
        self._request = self._next = PredictionRequest(
            number=self._number,
            frames=frames,
            choice=choice,
            queue=FrameQueue(waiting, focus),
            engine=None,
            load=self.load,
            complete=complete,
        )
        if self._worker is None:
            self._launch()

    def _stop(self) -> None:
        self._request = self._next = None
        if self._worker_queue is not None:
            self._worker_queue.stop()

    def _launch(self) -> None:
        request, self._next = self._next, None
        if request is None:
            return
        engine = self._loaded_engine(request.choice)
        request = dataclasses.replace(request, engine=engine)
        self._worker_queue = request.queue
        self._worker = create_worker(predict_frames, request)
        self._worker.yielded.connect(self._on_event)
        self._worker.finished.connect(self._on_finished)
        self._worker.start()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Engine):
            # Also of a request that was stopped: the next one need not load again.
            self.engine = event
            self._notices_shown = 0
            self.engine_ready.emit(event)
            self._emit_notices(event)
            return
        if self._request is None or event.number != self._request.number:
            return
        if isinstance(event, FrameReady):
            self._done += 1
            self._seconds.append(event.seconds)
            self.frame_ready.emit(event)
            self._emit_notices(event.engine)
        elif isinstance(event, SeenBefore):
            self.seen_before.emit(event)
        elif isinstance(event, Failure):
            self._request = None
            self.failed.emit(event.message)

    def _emit_notices(self, engine: Engine) -> None:
        notices = engine.notices()
        for message in notices[self._notices_shown :]:
            self.noticed.emit(message)
        self._notices_shown = len(notices)

    def _on_finished(self) -> None:
        self._worker = None
        self._worker_queue = None
        if self._next is not None:
            self._launch()
            return
        self._request = None
        self.current = None
        self.finished.emit()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait until no thread is at work. For tests and for closing."""
        from qtpy.QtCore import QCoreApplication

        end = time.monotonic() + seconds
        while self._worker is not None and time.monotonic() < end:
            QCoreApplication.processEvents()
            time.sleep(0.005)
        return self._worker is None
