"""Dice and clDice of a network on its own grid, and by patient on the images' grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.model.device import training_autocast
from napari_cmunet.model.network import artery_logit
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.dataset import REVIEWED, TARGET, WHOLE
from napari_cmunet.training.evaluation.metrics import bootstrap_interval, cldice, dice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

    from napari_cmunet.training.dataset import Label, LabelledFrames

    Predict = Callable[[np.ndarray], np.ndarray]
    Scores = dict[str, tuple[float, float]]


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


def score_frames(predict: Predict, threshold: float, labels: Iterable[Label]) -> Scores:
    """Dice and clDice of each patient, on the images' own grid.

    Parameters
    ----------
    predict : callable
        Artery probability (uint8) of a frame (Y, X).
    threshold : float
    labels : iterable of Label
        Consumed one by one. What was not reviewed is left out of both masks.

    Returns
    -------
    dict
        Means over the frames of each patient.
    """

    def masks() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for label in labels:
            mask = mask_at(predict(label.frame), threshold)
            truth = label.mask.astype(bool)
            if label.reviewed is not None:
                mask, truth = mask & label.reviewed, truth & label.reviewed
            yield label.patient, mask, truth

    return score_masks(masks())


def score_masks(masks: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> Scores:
    """Mean Dice and clDice of each patient; a patient, a mask and its truth each."""
    found: dict[str, list[tuple[float, float]]] = {}
    for patient, mask, truth in masks:
        found.setdefault(patient, []).append((dice(mask, truth), cldice(mask, truth)))
    return {
        patient: (float(np.mean([d for d, _ in s])), float(np.mean([c for _, c in s])))
        for patient, s in found.items()
    }
