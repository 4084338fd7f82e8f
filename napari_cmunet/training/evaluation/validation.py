"""Validation: splits and folds by patient, and how a network does on them."""

from __future__ import annotations

import hashlib
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import nn

    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.evaluation.comparison import Scores

    Predict = Callable[[np.ndarray], np.ndarray]
    Fold = tuple[list[int], list[int]]

FOLDS = 3
"""Folds where patients are left out in turn."""

MANY_PATIENTS = 100
"""From here on some patients are held out for good instead."""

_VALIDATING = 0.2  # expected share of the patients


def validates(patient: str) -> bool:
    """Whether a patient belongs to validation.

    Decided by a hash of the patient alone, so that other patients never change it.

    Parameters
    ----------
    patient : str
        Any stable name of the patient.
    """
    digest = hashlib.sha256(f"napari-cmunet split {patient}".encode()).digest()
    return int.from_bytes(digest[:8]) < _VALIDATING * 2**64


def split_by_patient(patients: Sequence[str]) -> Fold:
    """Indices that train and indices that validate; the latter may be none.

    Parameters
    ----------
    patients : sequence of str
        The patient of each label.
    """
    held_out = [i for i, p in enumerate(patients) if validates(p)]
    return [i for i in range(len(patients)) if i not in set(held_out)], held_out


def folds_of(frames: LabelledFrames) -> list[Fold]:
    """Indices to learn from and indices left out, for each fold of patients.

    One fold that leaves no patient out where there is only one, or where the rest of a
    fold would hold no artery.
    """
    known = sorted(set(frames.patients))
    parts = min(FOLDS, len(known))
    part = {patient: number % parts for number, patient in enumerate(known)}
    folds = [
        (
            [i for i, p in enumerate(frames.patients) if part[p] != number],
            [i for i, p in enumerate(frames.patients) if part[p] == number],
        )
        for number in range(parts)
    ]
    seen = frames.maps[:, TARGET].bool() & frames.maps[:, REVIEWED].bool()
    arteries = seen.flatten(1).any(1)
    if parts < 2 or not all(arteries[train].any() for train, _ in folds):
        return [(list(range(len(frames))), [])]
    return folds


def spread_over_patients(
    indices: Sequence[int], patients: Sequence[str], count: int
) -> list[int]:
    """So many of some labels, of as many patients as possible.

    Parameters
    ----------
    indices : sequence of int
        The labels to choose from.
    patients : sequence of str
        The patient of each label.
    count : int
    """
    seen: dict[str, int] = {}
    turns = []
    for i in indices:
        seen[patients[i]] = seen.get(patients[i], 0) + 1
        turns.append((seen[patients[i]], i))
    return sorted(i for _, i in sorted(turns)[:count])


def labels_of_whole_patients(
    indices: Sequence[int], patients: Sequence[str], count: int
) -> list[int]:
    """All labels of some patients: so many that they are not more than ``count``.

    Those of one patient at least.

    Parameters
    ----------
    indices, patients, count
        See :func:`spread_over_patients`.
    """
    of: dict[str, list[int]] = {}
    for i in indices:
        of.setdefault(patients[i], []).append(i)
    chosen: list[int] = []
    for labels in of.values():
        if not chosen or len(chosen) + len(labels) <= count:
            chosen += labels
    return chosen


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


def mean_scores(scores: Scores) -> tuple[float | None, float | None]:
    """Mean Dice and clDice over patients; None where there are none."""
    if not scores:
        return None, None
    dice, cldice = np.mean(list(scores.values()), 0)
    return float(dice), float(cldice)
