"""The paper's way: the published network, as its code runs and trains it.

Width 64, eager float32 in torch's own memory layout, batch normalisation as it is,
frame by frame; trained with Adam at 1e-3 in batches of 16 on 256-pixel frames for 128
epochs (arXiv 2507.17779).
"""

from __future__ import annotations

import torch

from napari_cmunet.cli.benchmark.timing import Timing, timed
from napari_cmunet.model.network import STRIDE, CMUNet, artery_logit
from napari_cmunet.training.losses import dice_loss

WIDTH, BATCH, GRID, EPOCHS = 64, 16, 256, 128


def predict_time(side: int, device: torch.device, repeats: int = 3) -> Timing:
    """One frame of ``side`` pixels through the published network."""
    network = CMUNet(WIDTH).eval().to(device)
    padded = -(-side // STRIDE) * STRIDE
    frame = torch.randn(1, 1, padded, padded, device=device)

    @torch.no_grad()
    def run() -> torch.Tensor:
        return artery_logit(network(frame)).sigmoid().cpu()

    return timed(run, repeats=repeats)


def step_time(batch: int, device: torch.device, repeats: int = 2) -> Timing:
    """One step of the published training."""
    network = CMUNet(WIDTH).train().to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    frames = torch.randn(batch, 1, GRID, GRID, device=device)
    target = (torch.rand_like(frames) > 0.9).float()
    everywhere = torch.ones_like(target)

    def step() -> None:
        optimiser.zero_grad()
        probability = artery_logit(network(frames)).sigmoid()
        dice_loss(probability, target, everywhere).backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return timed(step, repeats=repeats)


def training_seconds(labels: int, device: torch.device) -> float:
    """The whole published training, extrapolated from measured steps."""
    full, rest = divmod(labels, BATCH)
    seconds = full * step_time(BATCH, device).median if full else 0.0
    if rest:
        seconds += step_time(rest, device).median
    return seconds * EPOCHS
