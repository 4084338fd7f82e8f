"""Prediction off the GUI thread: what goes in, what comes out.

Nothing here touches the viewer, a layer or a widget. Errors come out as events,
never as exceptions: napari's generator workers swallow a RuntimeError, and show a
traceback for everything else.
"""

from __future__ import annotations

import gc
import importlib
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.jobs import spare_thread
from napari_cmunet.gui.layers import read_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from napari_cmunet.gui.prediction_queue import FrameQueue

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelChoice:
    """Which model is to run, and where."""

    model: str
    device: str


@dataclass(frozen=True)
class Engine:
    """A loaded model, ready to predict. Kept warm between jobs.

    Parameters
    ----------
    choice : ModelChoice
        What was asked for.
    predict : callable
        Artery probability (uint8) of a frame (Y, X).
    name, sha256 : str
        The model that was loaded and the hash of its weights.
    threshold : float
        The threshold that the model's card recommends.
    devices : tuple of str
        All devices of this machine.
    device, device_text : callable
        Where it runs now, as a name and for people. It may have had to move.
    notices : callable
        What it had to change on the way, oldest first.
    """

    choice: ModelChoice
    predict: Callable[[np.ndarray], np.ndarray]
    name: str
    sha256: str
    threshold: float
    devices: tuple[str, ...]
    device: Callable[[], str]
    device_text: Callable[[], str]
    notices: Callable[[], list[str]]


class EngineFactory(Protocol):
    """Loads a model. Runs in the worker's thread; may take seconds."""

    def __call__(self, choice: ModelChoice) -> Engine: ...


@dataclass(frozen=True)
class Job:
    """One image to predict. ``queue`` says which frames, and when to stop."""

    number: int
    frames: Any
    cine: bool
    rgb: bool
    choice: ModelChoice
    queue: FrameQueue
    engine: Engine | None
    factory: EngineFactory


@dataclass(frozen=True)
class EngineReady:
    """The model is loaded."""

    number: int
    engine: Engine


@dataclass(frozen=True)
class FrameReady:
    """One frame is predicted."""

    number: int
    frame: int
    probability: np.ndarray
    seconds: float
    engine: Engine


@dataclass(frozen=True)
class Failure:
    """The job ended early. ``message`` is for people."""

    number: int
    message: str


Event = EngineReady | FrameReady | Failure


def run_job(job: Job) -> Iterator[Event]:
    """Predict the frames of a job, the shown one first. Runs in a worker."""
    with spare_thread():
        try:
            yield from _predict(job)
        except Cancelled:
            return
        except CMUNetError as exc:
            yield Failure(job.number, str(exc))
        except MemoryError:
            yield Failure(
                job.number,
                "This computer has not enough memory for this image. Close other "
                "programs, or open fewer frames.",
            )
        except Exception as exc:
            logger.exception("Prediction failed")
            yield Failure(
                job.number,
                f"The prediction stopped on an unexpected error ({exc}). "
                "Help > Show logs has the details.",
            )


def _predict(job: Job) -> Iterator[Event]:
    engine = job.engine
    if engine is None:
        _import_ahead()
        engine = job.factory(job.choice)
        yield EngineReady(job.number, engine)
    while (frame := job.queue.take()) is not None:
        started = time.perf_counter()
        pixels = read_frame(job.frames, frame, cine=job.cine, rgb=job.rgb)
        probability = engine.predict(pixels)
        if job.queue.stopped():
            return
        seconds = time.perf_counter() - started
        yield FrameReady(job.number, frame, probability, seconds, engine)


def _import_ahead() -> None:
    # The first Labels layer and the first acceptance import these, which would take a
    # second of the GUI thread.
    late = ("numba", "pandas", "scipy.linalg", "skimage.color.colorconv")
    for name in (*late, "scipy.ndimage", "skimage.draw"):
        with suppress(ImportError):
            importlib.import_module(name)


def load_engine(choice: ModelChoice) -> Engine:
    """Load a model of this installation. The first call imports torch."""
    from napari_cmunet.model.device import available_devices, choose_device_or_fallback
    from napari_cmunet.model.predictor import Predictor
    from napari_cmunet.model.registry import load_model

    if not gc.get_freeze_count():
        # Collecting Python's garbage would go through all that torch has brought, for a
        # quarter of a second of the window's time. None of it is ever garbage.
        gc.freeze()
    device, gone = choose_device_or_fallback(choice.device)
    predictor = Predictor(load_model(choice.model), device)
    return Engine(
        choice=choice,
        predict=predictor.predict,
        name=predictor.card.name,
        sha256=predictor.card.sha256,
        threshold=predictor.card.threshold,
        devices=tuple(available_devices()),
        device=lambda: predictor.device.type,
        device_text=lambda: predictor.description,
        notices=lambda: [*([gone] if gone else []), *predictor.notices],
    )
