"""What ``bench`` measures: frames, cines and trainings, ours and the paper's way.

The paper's way is the published network as its code runs and trains it: width 64, eager
float32 in torch's own memory layout, frame by frame; Adam at 1e-3 in batches of 16 on
256-pixel frames for 128 epochs (arXiv 2507.17779).
"""

from __future__ import annotations

import itertools
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cmunet.model.device import (
    choose_device,
    describe_device,
    fast_dtype,
    tune_malloc,
)
from napari_cmunet.model.network import (
    STRIDE,
    CMUNet,
    artery_logit,
    flop_count,
    fuse_batchnorm,
)
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training.config import (
    WISE_FT_PRIOR,
    FinetuneConfig,
    default_steps,
)
from napari_cmunet.training.dataset import phantom_labels, prepare_labels
from napari_cmunet.training.events import Step, Validated
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.losses import dice_loss

if TYPE_CHECKING:
    from collections.abc import Callable

PAPER_WIDTH, PAPER_BATCH, PAPER_GRID, PAPER_EPOCHS = 64, 16, 256, 128
VALIDATION_FRAMES, VALIDATIONS = 8, 10
TIMED_SECONDS = 1.0
"""Quick things are repeated for this long."""
MATRIX_SIDE = 2048
"""Of the matrices whose product shows what a CPU can do."""

ENOUGH = 0.995
"""Share of the best validation Dice at which a training counts as done."""


@dataclass(frozen=True)
class Timing:
    """Seconds of something done several times."""

    #: median, fastest, slowest: seconds.
    median: float
    fastest: float
    slowest: float
    repeats: int

    def __str__(self) -> str:
        return seconds(self.median)


def timed(
    act: Callable[[], object],
    *,
    repeats: int = 5,
    at_least: float = 0.0,
    synchronise: Callable[[], object] = lambda: None,
) -> Timing:
    """Do something once to warm up, then time it.

    Parameters
    ----------
    at_least : float
        Seconds; repeat until so much has passed.
    synchronise : callable
        Waits for the device; its work is otherwise still going on when ``act``
        returns.
    """
    act()
    synchronise()
    taken: list[float] = []
    while len(taken) < repeats or (sum(taken) < at_least and len(taken) < 200):
        began = time.perf_counter()
        act()
        synchronise()
        taken.append(time.perf_counter() - began)
    return Timing(statistics.median(taken), min(taken), max(taken), len(taken))


def seconds(value: float) -> str:
    """A time for people: three digits, in the unit that suits it."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 600:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min"


def peak_memory() -> float | None:
    """The most memory that this process has held so far, in GB; None if unknown."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage begins with the peak of the parent
        found = re.search(
            r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii", errors="replace")
        )
        return int(found[1]) * 1024 / 1e9 if found else None
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def machine(device_name: str) -> dict[str, Any]:
    """What was measured on, and how fast it multiplies matrices.

    The limit is that of a large product in the precision that prediction uses.
    """
    device = choose_device(device_name)
    return {
        "device": describe_device(device),
        "torch": torch.__version__,
        "precision": str(fast_dtype(device)).removeprefix("torch."),
        "limit_gflops": round(matmul_gflops(device, fast_dtype(device)), 1),
        "float32_gflops": round(matmul_gflops(device, torch.float32), 1),
    }


def matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """10^9 operations a second of a large matrix product."""
    n = 8192 if device.type == "cuda" else MATRIX_SIDE
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    timing = timed(lambda: a @ b, at_least=TIMED_SECONDS, synchronise=_waiter(device))
    return 2 * n**3 / timing.fastest / 1e9


def frame(side: int, model_name: str, device_name: str) -> dict[str, Any]:
    """First and warm prediction of a square frame, beside the paper's way.

    The first one includes loading the model, as on opening the first image.
    """
    device = choose_device(device_name)
    image, _ = make_frame(PhantomConfig(frames=1, size=512, seed=3))
    image = _resized(image, side)
    began = time.perf_counter()
    predictor = Predictor(load_model(model_name), device)
    predictor.predict(image)
    first = time.perf_counter() - began
    warm = timed(lambda: predictor.predict(image), at_least=TIMED_SECONDS)
    published = paper_predict_time(side, device)
    return {
        "side": side,
        "model": model_name,
        "first_s": first,
        "warm": asdict(warm),
        "paper": asdict(published),
        "times_faster": published.median / warm.median,
    }


def network(device_name: str) -> dict[str, Any]:
    """The published network itself on a 256-pixel frame, our way and eager."""
    device = choose_device(device_name)
    dtype = fast_dtype(device)
    ours = fuse_batchnorm(CMUNet(PAPER_WIDTH).eval())
    ours = ours.to(device, dtype)
    ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(1, 1, PAPER_GRID, PAPER_GRID, device=device).to(dtype)
    x = x.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> torch.Tensor:
        return ours(x)

    timing = timed(run, at_least=TIMED_SECONDS, synchronise=_waiter(device))
    published = paper_predict_time(PAPER_GRID, device)
    gflops = flop_count(PAPER_WIDTH, PAPER_GRID, PAPER_GRID) / timing.median / 1e9
    return {
        "ours": asdict(timing),
        "paper": asdict(published),
        "times_faster": published.median / timing.median,
        "gflops": gflops,
        "share_of_limit": gflops / matmul_gflops(device, dtype),
    }


def cine(frames: int, side: int, model_name: str, device_name: str) -> dict[str, Any]:
    """A cine, the shown frame first, with the model warm."""
    device = choose_device(device_name)
    image, _ = make_frame(PhantomConfig(frames=1, size=512, seed=4))
    stack = np.broadcast_to(_resized(image, side), (frames, side, side))
    predictor = Predictor(load_model(model_name), device)
    predictor.predict(stack[0])
    began, first = time.perf_counter(), None
    for _ in predictor.predict_frames(stack):
        first = first or time.perf_counter() - began
    whole = time.perf_counter() - began
    published = paper_predict_time(side, device).median * frames
    return {
        "frames": frames,
        "side": side,
        "first_s": first,
        "all_s": whole,
        "paper_s": published,  # one frame measured
        "times_faster": published / whole,
    }


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    at = np.arange(side) * image.shape[-1] // side
    return np.ascontiguousarray(image[np.ix_(at, at)])


def _waiter(device: torch.device):
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def paper_predict_time(side: int, device: torch.device) -> Timing:
    """One frame of ``side`` pixels through the published network."""
    network = CMUNet(PAPER_WIDTH).eval().to(device)
    padded = -(-side // STRIDE) * STRIDE
    frame = torch.randn(1, 1, padded, padded, device=device)

    @torch.no_grad()
    def run() -> torch.Tensor:
        return artery_logit(network(frame)).sigmoid().cpu()

    return timed(run, repeats=3)


def paper_step_time(batch: int, device: torch.device) -> Timing:
    """One step of the published training."""
    network = CMUNet(PAPER_WIDTH).train().to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    frames = torch.randn(batch, 1, PAPER_GRID, PAPER_GRID, device=device)
    target = (torch.rand_like(frames) > 0.9).float()
    everywhere = torch.ones_like(target)

    def step() -> None:
        optimiser.zero_grad()
        probability = artery_logit(network(frames)).sigmoid()
        dice_loss(probability, target, everywhere).backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return timed(step, repeats=2)


def paper_training_seconds(labels: int, device: torch.device) -> float:
    """The whole published training, extrapolated from measured steps."""
    full, rest = divmod(labels, PAPER_BATCH)
    seconds = full * paper_step_time(PAPER_BATCH, device).median if full else 0.0
    if rest:
        seconds += paper_step_time(rest, device).median
    return seconds * PAPER_EPOCHS


def fine_tuning(
    labels: int, start: str, device_name: str, minutes: float
) -> dict[str, Any]:
    """Fine-tune on phantoms and see when others of them are found as well as ever.

    Parameters
    ----------
    start : str
        Name of the model to start from.
    minutes : float
        Time budget; the schedule is fitted to it.
    """
    tune_malloc()
    device = choose_device(device_name)
    model = load_model(start)
    # Some phantoms show next to no artery and are left out: draw a few more.
    drawn = phantom_labels(2 * (labels + VALIDATION_FRAMES), seed=11, workers=1)
    taken = itertools.islice(drawn, labels + VALIDATION_FRAMES)
    frames = prepare_labels(taken, model.card.preprocessing)
    learned = frames.subset(range(labels))
    others = frames.subset(range(labels, len(frames)))
    steps = default_steps(labels)
    config = FinetuneConfig(
        minutes=minutes,
        wise_ft_prior=WISE_FT_PRIOR,
        validate_every=max(1, steps // VALIDATIONS),
    )
    began = time.perf_counter()
    curve: list[tuple[float, float]] = []
    last: Step | None = None
    for event in finetune(
        model.network, learned, config, validation=others, device=device
    ):
        if isinstance(event, Step):
            last = event
        elif isinstance(event, Validated):
            curve.append((time.perf_counter() - began, event.dice))
    best = max(dice for _, dice in curve)
    there = next(at for at, dice in curve if dice >= ENOUGH * best)
    published = paper_training_seconds(labels, device)
    return {
        "labels": labels,
        "start": start,
        "steps": last.step if last else 0,
        "seconds_to_99.5%": there,
        "seconds": curve[-1][0],
        "dice": best,
        "paper_s": published,  # from measured steps
        "times_faster": published / there,
    }
