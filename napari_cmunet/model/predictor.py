"""Predict the artery probability of frames with a model kept on a device."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.errors import DeviceError
from napari_cmunet.model.device import (
    describe_device,
    inference_dtype,
    is_out_of_memory,
)
from napari_cmunet.model.inference import inference_network
from napari_cmunet.model.network import STRIDE
from napari_cmunet.model.postprocess import (
    suppress_small_components,
    suppress_uncertain,
)
from napari_cmunet.model.preprocess import prepare, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from napari_cmunet.model.card import Postprocessing
    from napari_cmunet.model.preprocess import Geometry
    from napari_cmunet.model.registry import LoadedModel

    T = TypeVar("T")

logger = logging.getLogger(__name__)

TILE, CONTEXT = 192, 112
"""Side of a tile when memory is short, and the context around it, in grid pixels.

No output pixel sees farther than 107: 92 by its convolutions and 15 by the place that
it happens to have in a block of 16.
"""


MAX_WORKERS = 8
"""Frames of a cine that are predicted at once on the CPU."""

_SHORT = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int8: "int8",
}


@dataclass(frozen=True)
class FramePrediction:
    """The prediction of one frame of several.

    Parameters
    ----------
    index : int
        Which frame.
    probability : uint8 array (Y, X)
        Or float32, where it was asked for exactly.
    contrast : bool
        Whether the frame shows arteries filled with contrast agent. Always True for a
        model whose card does not say how to tell.
    """

    index: int
    probability: np.ndarray
    contrast: bool


class Predictor:
    """Segments frames with one model on one device.

    Parameters
    ----------
    model : LoadedModel
    device : torch.device
        As :func:`napari_cmunet.model.device.choose_device` gives it.
    reduced_precision : bool
        Use the device's fast number format; the mask changes by less than 0.002
        Dice.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: torch.device,
        *,
        reduced_precision: bool = True,
    ) -> None:
        self.card = model.card
        self.notices: list[str] = []
        self._model = model.network
        self._reduced = reduced_precision
        self._tiled = False
        self._place(device)

    def _place(self, device: torch.device) -> None:
        self.device = device
        wanted = inference_dtype(device) if self._reduced else torch.float32
        self.batch = 1 if device.type == "cpu" else 8
        try:
            self._network, self.dtype = inference_network(self._model, device, wanted)
        except RuntimeError as exc:  # torch: memory or a lost device
            if device.type == "cpu":
                raise DeviceError(
                    "Not enough memory to load the model. Close other programs."
                ) from exc
            self._say(f"The model does not fit on {device.type}; using the CPU.")
            self._place(torch.device("cpu"))

    @property
    def description(self) -> str:
        """Device and number format, for people."""
        return f"{describe_device(self.device)}, {_SHORT[self.dtype]}"

    def predict(self, frame: np.ndarray) -> np.ndarray:
        """Artery probability of one frame on its own grid.

        Parameters
        ----------
        frame : array (Y, X)
            Grey values of any real type and range, arteries dark.

        Returns
        -------
        uint8 array (Y, X)
            Probability in steps of 1/255.

        Raises
        ------
        DeviceError
            If memory does not suffice on the CPU either.
        """
        return self._predict_batch(np.asarray(frame)[None])[0][0]

    def predict_logit(self, frame: np.ndarray) -> tuple[torch.Tensor, Geometry]:
        """Artery logit of one frame on the network's grid, for :func:`finish`.

        Small components are lowered already.

        Parameters
        ----------
        frame : array (Y, X)
            See :meth:`predict`.

        Returns
        -------
        logit : float tensor (1, 1, H, W)
            On the predictor's device.
        geo : Geometry

        Raises
        ------
        DeviceError
            See :meth:`predict`.
        """
        return self._with_memory(lambda: self._logit(np.asarray(frame)[None]))

    def predict_frames(
        self, frames: np.ndarray, *, exact: bool = False
    ) -> Iterator[FramePrediction]:
        """Predict frames one after the other, as they are done.

        Parameters
        ----------
        frames : array (T, Y, X)
            May be lazy; frames are taken when needed.
        exact : bool
            float32, 0 to 1, instead of uint8; :func:`to_uint8` makes one the other.
        """
        cores = torch.get_num_threads() if self.device.type == "cpu" else 1
        if self.batch == 1 < cores:
            return self._predict_in_threads(frames, exact)
        return self._predict_in_batches(frames, exact)

    def _predict_in_batches(
        self, frames: np.ndarray, exact: bool
    ) -> Iterator[FramePrediction]:
        done = 0
        while done < len(frames):
            # The first frame alone: somebody is looking at it.
            end = min(done + (self.batch if done else 1), len(frames))
            batch = np.stack([np.asarray(frames[i]) for i in range(done, end)])
            made = self._predict_batch(batch, exact)
            for index, probability, contrast in zip(
                range(done, end), *made, strict=True
            ):
                yield FramePrediction(index, probability, contrast)
            done = end

    def _predict_in_threads(
        self, frames: np.ndarray, exact: bool
    ) -> Iterator[FramePrediction]:
        """Predict the first frame with all cores, then a frame on each core.

        Frames are read here, beside the prediction of those before them.
        """
        threads = torch.get_num_threads()
        workers = min(threads, MAX_WORKERS)

        def run(frame: np.ndarray) -> tuple[np.ndarray, list[bool]]:
            torch.set_num_threads(max(1, threads // workers))  # of this thread
            return self._run(frame, exact)

        running: deque[tuple[np.ndarray, Future[tuple[np.ndarray, list[bool]]]]]
        running = deque()
        ahead = iter(range(1, len(frames)))
        try:
            with ThreadPoolExecutor(workers) as pool:
                for index in range(len(frames)):
                    if not index:
                        made = self._predict_batch(np.array(frames[0])[None], exact)
                    else:
                        for number in islice(ahead, workers + 1 - len(running)):
                            frame = np.array(frames[number])[None]
                            running.append((frame, pool.submit(run, frame)))
                        frame, future = running.popleft()
                        try:
                            made = future.result()
                        except RuntimeError:  # memory: alone, and in smaller parts
                            made = self._predict_batch(frame, exact)
                    yield FramePrediction(index, made[0][0], made[1][0])
        finally:
            torch.set_num_threads(threads)

    def _predict_batch(
        self, frames: np.ndarray, exact: bool = False
    ) -> tuple[np.ndarray, list[bool]]:
        def run() -> tuple[np.ndarray, list[bool]]:
            parts = [
                self._run(frames[i : i + self.batch], exact)
                for i in range(0, len(frames), self.batch)
            ]
            return (
                np.concatenate([probability for probability, _ in parts]),
                [one for _, contrast in parts for one in contrast],
            )

        return self._with_memory(run)

    def _with_memory(self, run: Callable[[], T]) -> T:
        """Run until it fits into memory, with less at a time."""
        while True:
            try:
                return run()
            except RuntimeError as exc:  # torch: memory, lost devices
                self._step_down(exc)

    @torch.inference_mode()
    def _logit(self, frames: np.ndarray) -> tuple[torch.Tensor, Geometry]:
        x, geo = prepare(frames, self.card.preprocessing, self.device)
        if self.dtype != torch.int8:
            x = x.to(self.dtype, memory_format=torch.channels_last)
        if self._tiled:
            logit = torch.cat([_forward_tiled(self._network, one[None]) for one in x])
        else:
            logit = self._network(x).float()
        return suppress_small_components(logit), geo

    def _run(self, frames: np.ndarray, exact: bool) -> tuple[np.ndarray, list[bool]]:
        logit, geo = self._logit(frames)
        return finish(
            logit, geo, self.card.threshold, self.card.postprocessing, exact=exact
        )

    def _step_down(self, exc: RuntimeError) -> None:
        """Use smaller batches, then tiles, then the CPU, with a notice for each."""
        if not is_out_of_memory(exc):
            if self.device.type == "cpu":
                raise DeviceError(f"Prediction failed: {_first_line(exc)}") from exc
            self._say(f"{self.device.type} failed ({_first_line(exc)}); using the CPU.")
            self._place(torch.device("cpu"))
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            self._say(f"Out of memory: {self.batch} frame(s) at a time from now on.")
        elif not self._tiled:
            self._tiled = True
            self._say("Out of memory: the frame is predicted in tiles from now on.")
        elif self.device.type != "cpu":
            self._say(f"Out of memory on {self.device.type}; using the CPU.")
            self._tiled = False
            self._place(torch.device("cpu"))
        else:
            raise DeviceError(
                "Not enough memory to segment this frame, even in tiles. Close other "
                "programs or use a smaller frame."
            ) from exc

    def _say(self, text: str) -> None:
        # Whoever runs the predictor shows the notices; a warning would double them.
        logger.info("%s", text)
        self.notices.append(text)


@torch.inference_mode()
def finish(
    logit: torch.Tensor,
    geo: Geometry,
    threshold: float,
    how: Postprocessing | None,
    *,
    exact: bool = False,
) -> tuple[np.ndarray, list[bool]]:
    """Clean up a prediction and bring it to the frames' own grid.

    Parameters
    ----------
    logit : float tensor (B, 1, H, W)
        Of :meth:`Predictor.predict_logit`; changed in place.
    geo : Geometry
    threshold : float
        Probability from which the model calls a pixel artery.
    how : Postprocessing or None
        None: no clean-up.
    exact : bool
        float32, 0 to 1, instead of uint8.

    Returns
    -------
    probability : array (B, Y, X)
    contrast : list of bool
        See :class:`FramePrediction`.
    """
    contrast = [True] * len(logit)
    if how is not None:
        logit, contrast = suppress_uncertain(logit, threshold, how)
    own = restore(logit, geo)[:, 0]
    # In place: a frame of 10,000 x 10,000 is 0.4 GB in float32.
    own = own.sigmoid_()
    if exact:
        return own.float().cpu().numpy(), contrast
    own = own.mul_(255).round_()
    return own.to(torch.uint8).cpu().numpy(), contrast


def to_uint8(probability: np.ndarray) -> np.ndarray:
    """The uint8 probability, in steps of 1/255, of a float32 one."""
    return np.rint(probability * np.float32(255)).astype(np.uint8)


def _forward_tiled(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Artery logit of ``(1, 1, H, W)`` tile by tile, each with context around it."""
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    height, width = x.shape[-2:]
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            # Multiples of 16 from the frame's origin, so that poolings agree.
            y0, x0 = max(0, top - CONTEXT), max(0, left - CONTEXT)
            y1, x1 = min(height, bottom + CONTEXT), min(width, right + CONTEXT)
            part = network(x[..., y0:y1, x0:x1])
            out[..., top:bottom, left:right] = part[
                ..., top - y0 : bottom - y0, left - x0 : right - x0
            ]
    return out


assert TILE % STRIDE == 0 and CONTEXT % STRIDE == 0


def _first_line(exc: BaseException) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
