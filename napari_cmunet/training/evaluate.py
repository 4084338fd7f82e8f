"""Measure a network on labelled frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.model.device import training_autocast
from napari_cmunet.model.network import artery_logit
from napari_cmunet.training.dataset import REVIEWED, TARGET, WHOLE
from napari_cmunet.training.metrics import bootstrap_interval, cldice, dice

if TYPE_CHECKING:
    from torch import nn

    from napari_cmunet.training.dataset import LabelledFrames


@dataclass(frozen=True)
class Measured:
    """Mean Dice and clDice over frames, with the 95 % interval of Dice by patient."""

    dice: float
    interval: tuple[float, float]
    cldice: float


@torch.inference_mode()
def measure(
    network: nn.Module,
    frames: LabelledFrames,
    device: torch.device | str = "cpu",
    batch: int = 4,
) -> Measured:
    """Measure a network on labelled frames, on the network's grid.

    Unreviewed pixels are left out of both masks. Meant to compare steps of one
    training; figures to report are measured on the frames' own grid.
    """
    network.eval()
    device = torch.device(device)
    dices, cldices = [], []
    for i in range(0, len(frames), batch):
        x = frames.frames[i : i + batch].to(device, torch.float32)
        with training_autocast(device):
            logit = artery_logit(network(x.to(memory_format=torch.channels_last)))
        for found, maps in zip(
            (logit > 0).cpu(), frames.maps[i : i + batch].cpu(), strict=True
        ):
            reviewed, truth = (maps[[REVIEWED, TARGET]] > WHOLE // 2).numpy()
            a, b = found[0].numpy() & reviewed, truth & reviewed
            dices.append(dice(a, b))
            cldices.append(cldice(a, b))
    return Measured(
        float(np.mean(dices)),
        bootstrap_interval(dices, frames.patients),
        float(np.mean(cldices)),
    )
