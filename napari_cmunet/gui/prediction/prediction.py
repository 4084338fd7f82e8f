"""Prediction in a worker thread: which model, what goes in, and what comes out.

Nothing here touches the viewer, a layer or a widget. Errors come out as events: a
generator worker of napari swallows a RuntimeError, and shows a traceback for the rest.
"""

from __future__ import annotations

import gc
import importlib
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.jobs import exiting, spare_thread
from napari_cmunet.io.polarity import has_bright_vessels
from napari_cmunet.util.cluster import is_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from napari_cmunet.gui.images.layers import Frames

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class ModelChoice:
    """The model and the device that the user has chosen."""

    model: str
    device: str


@dataclass(frozen=True)
class Engine:
    """A loaded model, kept warm between requests."""

    choice: ModelChoice  # what was chosen
    #: Artery probability (uint8) of a frame (Y, X).
    predict: Callable[[np.ndarray], np.ndarray]
    #: name, sha256: the model that was loaded and the hash of its weights.
    name: str
    sha256: str
    threshold: float  # the threshold that the model's card recommends
    tells_contrast: bool  # whether it leaves frames without contrast agent empty
    devices: tuple[str, ...]  # all devices of this machine
    #: device, device_text: the device in use, as a name and for people. It may
    #: change after a failure.
    device: Callable[[], str]
    device_text: Callable[[], str]
    notices: Callable[[], list[str]]  # what had to be changed, oldest first


@dataclass(frozen=True)
class Source:
    """Which model made a prediction, for its provenance."""

    model: str
    sha256: str
    device: str
    threshold: float
    tells_contrast: bool

    @classmethod
    def of(cls, engine: Engine) -> Source:
        """Describe a loaded model as it is now."""
        return cls(
            engine.name,
            engine.sha256,
            engine.device(),
            engine.threshold,
            engine.tells_contrast,
        )


class EngineFactory(Protocol):
    """Loads a model. Runs in the worker's thread; may take seconds."""

    def __call__(self, choice: ModelChoice) -> Engine: ...


class FrameQueue:
    """Frames still to be predicted, shared by the GUI thread and the worker.

    Parameters
    ----------
    frames : iterable of int
        The frames to predict.
    focus : int
        The shown frame. The nearest waiting frame is always taken next.
    """

    def __init__(self, frames: Iterable[int], focus: int = 0) -> None:
        self._waiting = set(frames)
        self._focus = focus
        self._stopped = False
        self._lock = threading.Lock()

    def set_focus(self, frame: int) -> None:
        """Take the frames next to this one first."""
        with self._lock:
            self._focus = frame

    def stop(self) -> None:
        """Hand out no more frames; the result of the frame at work is dropped."""
        with self._lock:
            self._stopped = True

    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped or exiting.is_set()

    def take(self) -> int | None:
        """Take the next frame; None when none is left, or stopped."""
        with self._lock:
            if self.stopped() or not self._waiting:
                return None
            frame = min(self._waiting, key=lambda f: (abs(f - self._focus), -f))
            self._waiting.discard(frame)
            return frame


@dataclass(frozen=True)
class Completed:
    """What the GUI thread keeps of an image."""

    probability: np.ndarray  # uint8 array (T, Y, X)
    predicted: np.ndarray  # bool array (T,); which frames are there


@dataclass(frozen=True)
class PredictionRequest:
    """One image to predict. ``queue`` says which frames, and when to stop."""

    number: int
    frames: Frames | None  # None: only the model is loaded
    choice: ModelChoice
    queue: FrameQueue
    engine: Engine | None
    load: EngineFactory
    complete: Completed | None = None  # of the image, if these frames complete it


@dataclass(frozen=True)
class FrameReady:
    """One frame is predicted."""

    number: int
    frame: int
    probability: np.ndarray
    seconds: float
    engine: Engine
    #: Whether all pixels of the frame are alike.
    flat: bool = False
    #: Whether its arteries seem bright; looked for in the middle frame alone.
    bright: bool | None = None


@dataclass(frozen=True)
class SeenBefore:
    """What was there before the contrast in a predicted frame, and is no artery."""

    number: int
    frame: int
    found: np.ndarray  # bool array (Y, X)
    probability: np.ndarray  # uint8 array (Y, X); without it


@dataclass(frozen=True)
class Failure:
    """The request ended early. ``message`` is for people."""

    number: int
    message: str


Event = Engine | FrameReady | SeenBefore | Failure


def predict_frames(request: PredictionRequest) -> Iterator[Event]:
    """Predict the frames of a request, the shown one first. Runs in a worker."""
    with spare_thread():
        try:
            yield from _predict(request)
        except Cancelled:
            return
        except CMUNetError as exc:
            yield Failure(request.number, str(exc))
        except MemoryError:
            yield Failure(
                request.number,
                "This computer has not enough memory for this image. Close other "
                "programs, or open fewer frames.",
            )
        except Exception as exc:
            logger.exception("Prediction failed")
            yield Failure(
                request.number,
                f"The prediction stopped on an unexpected error ({exc}). "
                "Help > Show logs has the details.",
            )


def _predict(request: PredictionRequest) -> Iterator[Event]:
    engine = request.engine
    if engine is None:
        _import_ahead()
        engine = request.load(request.choice)
        yield engine
    frames = request.frames
    while frames is not None and (frame := request.queue.take()) is not None:
        started = time.perf_counter()
        pixels = frames[frame]
        probability = engine.predict(pixels)
        if request.queue.stopped():
            return
        seconds = time.perf_counter() - started
        flat = is_flat(pixels)
        bright = has_bright_vessels(pixels) if frame == len(frames) // 2 else None
        yield FrameReady(
            request.number, frame, probability, seconds, engine, flat, bright
        )
    if not request.queue.stopped():
        yield from _subtract(request, engine)


def _subtract(request: PredictionRequest, engine: Engine) -> Iterator[SeenBefore]:
    """Leave out what was there before the contrast, once all frames are predicted."""
    kept, frames = request.complete, request.frames
    if kept is None or frames is None or len(frames) < 2 or not engine.tells_contrast:
        return
    from napari_cmunet.cine.subtraction import subtract, suppressed
    from napari_cmunet.model.threshold import threshold_byte

    while not kept.predicted.all():
        if request.queue.stopped():
            return
        time.sleep(_POLL_SECONDS)
    byte = threshold_byte(engine.threshold)
    for frame, found in subtract(frames, kept.probability, byte):
        if request.queue.stopped():
            return
        if found is not None:
            probability = suppressed(kept.probability[frame], found)
            yield SeenBefore(request.number, frame, found, probability)


def is_flat(pixels: np.ndarray) -> bool:
    """Whether a frame has no contrast: at most two neighbouring grey levels."""
    spread = float(pixels.max()) - float(pixels.min())
    return spread <= (1 if pixels.dtype.kind in "ui" else 0)


def _import_ahead() -> None:
    # The first Labels layer and the first acceptance import these, which would block
    # the GUI thread for a second.
    late = ("numba", "pandas", "scipy.linalg", "skimage.color.colorconv")
    for name in (*late, "scipy.ndimage", "skimage.draw"):
        with suppress(ImportError):
            importlib.import_module(name)


def load_engine(choice: ModelChoice) -> Engine:
    """Load a model of this installation. The first call imports torch."""
    from napari_cmunet.model.device import available_devices, choose_device_or_fallback
    from napari_cmunet.model.predictor import Predictor
    from napari_cmunet.model.registry import load_model

    # Frames are segmented here even where trainings run on a cluster.
    name = "auto" if is_address(choice.device) else choice.device
    if not gc.get_freeze_count():
        # Keep garbage collections short: torch's objects need not be traversed.
        gc.freeze()
    device, fallback = choose_device_or_fallback(name)
    predictor = Predictor(load_model(choice.model), device)
    return Engine(
        choice=choice,
        predict=predictor.predict,
        name=predictor.card.name,
        sha256=predictor.card.sha256,
        threshold=predictor.card.threshold,
        tells_contrast=predictor.card.postprocessing is not None,
        devices=tuple(available_devices()),
        device=lambda: predictor.device.type,
        device_text=lambda: predictor.description,
        notices=lambda: [*([fallback] if fallback else []), *predictor.notices],
    )
