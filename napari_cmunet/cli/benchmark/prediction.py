"""How long frames and cines take to be segmented."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from napari_cmunet.cli.benchmark import paper
from napari_cmunet.cli.benchmark.timing import timed
from napari_cmunet.model.device import choose_device, describe_device, fast_dtype
from napari_cmunet.model.network import CMUNet, flop_count
from napari_cmunet.model.predictor import Predictor, fuse_batchnorm
from napari_cmunet.model.registry import load_model
from napari_cmunet.synthetic import PhantomConfig, make_frame


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
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    timing = timed(lambda: a @ b, at_least=1.0, synchronise=_waiter(device))
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
    warm = timed(lambda: predictor.predict(image), at_least=1.0)
    published = paper.predict_time(side, device)
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
    ours = fuse_batchnorm(CMUNet(paper.WIDTH).eval())
    ours = ours.to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(1, 1, paper.GRID, paper.GRID, device=device).to(dtype)
    x = x.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> torch.Tensor:
        return ours(x)

    timing = timed(run, at_least=1.0, synchronise=_waiter(device))
    published = paper.predict_time(paper.GRID, device)
    gflops = flop_count(paper.WIDTH, paper.GRID, paper.GRID) / timing.median / 1e9
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
    published = paper.predict_time(side, device).median * frames
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
