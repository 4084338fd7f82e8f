"""Validation: splits and folds by patient, and how a network does on them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.model.card import ModelCard
from napari_cmunet.model.device import training_autocast
from napari_cmunet.model.network import artery_logit
from napari_cmunet.model.postprocess import find_uncertain
from napari_cmunet.model.predictor import Predictor, finish
from napari_cmunet.model.registry import LoadedModel, LoadReport
from napari_cmunet.model.threshold import log_odds, mask_at, threshold_byte
from napari_cmunet.training.config import OperatingPoint
from napari_cmunet.training.dataset import REVIEWED, TARGET, WHOLE
from napari_cmunet.training.evaluation.metrics import bootstrap_interval, cldice, dice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import nn

    from napari_cmunet.model.card import Postprocessing
    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.model.preprocess import Geometry
    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.evaluation.comparison import Scores
    from napari_cmunet.training.finetuning import StartModel

    Predict = Callable[[np.ndarray], np.ndarray]
    Fold = tuple[list[int], list[int]]
    ReadLabels = Callable[[Sequence[int]], Iterable[Label]]

FOLDS = 3
"""Folds where patients are left out in turn."""

MANY_PATIENTS = 100
"""From here on some patients are held out for good instead."""

_VALIDATING = 0.2  # expected share of the patients

THRESHOLDS = np.arange(0.3, 0.91, 0.05).round(2)
"""Thresholds that a hospital's own is chosen from; lower ones undo the clean-up."""

TWIG_MARGINS = (0.5, 2.0, 2.75, 3.5)
"""Margins of twigs that a hospital's own is chosen from: how many side branches its
readers trace; see :class:`napari_cmunet.model.card.Postprocessing`.
"""

FOUND_DICE = 0.5
"""Dice from which on a labelled frame shows contrast, whatever its margins."""

CONTRAST_SHARE = 0.9
"""Share of the least margins of such frames that is the limit, if that lowers it."""

OPERATING_POINT_PRIOR = 6.0
"""Number of labels that the start's operating point counts for."""


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


@dataclass(frozen=True)
class _Predicted:
    fold: int
    patient: str
    logit: torch.Tensor  # float16, of Predictor.predict_logit
    geo: Geometry
    packed: np.ndarray  # truth and reviewed, a bit a pixel
    dice: np.ndarray  # for the start's margin and TWIG_MARGINS, at each of THRESHOLDS

    @property
    def is_found(self) -> bool:
        """Whether the network finds most of an artery at any of these."""
        return float(self.dice.max()) >= FOUND_DICE

    def masks(self, at: OperatingPoint) -> tuple[np.ndarray, np.ndarray]:
        """The mask at an operating point and its truth, without unreviewed pixels."""
        logit = self.logit.float()
        probability = finish(logit, self.geo, at.threshold, at.postprocessing)[0][0]
        both = np.unpackbits(self.packed, count=2 * probability.size).view(bool)
        truth, reviewed = both.reshape(2, *probability.shape)
        return mask_at(probability, at.threshold) & reviewed, truth & reviewed

    def contrast_margin(self, threshold: float, how: Postprocessing) -> float:
        """What tells that the frame shows contrast; see Postprocessing."""
        logit = self.logit[0, 0].float().numpy()
        return find_uncertain(logit, threshold, how)[1] / max(logit.shape)


class LeftOutPredictions:
    """Predictions of labels by networks that were trained without their patients.

    Parameters
    ----------
    start : StartModel
    read : callable
        Labels of indices.
    device : torch.device
    prior : float
        See :data:`OPERATING_POINT_PRIOR`.
    """

    def __init__(
        self,
        start: StartModel,
        read: ReadLabels,
        device: torch.device,
        prior: float = OPERATING_POINT_PRIOR,
    ) -> None:
        self._start, self._read, self._device = start, read, device
        self._prior = prior
        self._found: list[_Predicted] = []
        self._folds = 0
        how = start.postprocessing
        self._candidates: list[Postprocessing | None] = [None]
        if how is not None and not math.isinf(prior):
            # Whether a frame shows contrast is not chosen here.
            self._candidates = [
                replace(how, twig_margin=margin, contrast_margin=0.0)
                for margin in (how.twig_margin, *TWIG_MARGINS)
            ]

    def predict(self, network: CMUNet, indices: Sequence[int], alpha: float) -> None:
        """Predict the labels that a fold left out.

        Parameters
        ----------
        network : CMUNet
        indices : sequence of int
        alpha : float
            Share of the start in the network.
        """
        threshold = self._start.threshold(alpha)
        width, preprocessing = self._start.width, self._start.preprocessing
        card = ModelCard("fold", "artery", width, preprocessing=preprocessing)
        model = LoadedModel(network.eval(), card, LoadReport("fold", 0, 0, True))
        predictor = Predictor(model, self._device)
        for label in self._read(indices):
            logit, geo = predictor.predict_logit(label.frame)
            logit = logit.cpu()
            truth = label.mask > 0
            reviewed = np.ones_like(truth)
            if label.reviewed is not None:
                reviewed = label.reviewed > 0
            curves, seen = [], truth[reviewed]
            for how in self._candidates:
                probability = finish(logit.clone(), geo, threshold, how)[0][0]
                curves.append(_dice_curve(probability[reviewed], seen))
            self._found.append(
                _Predicted(
                    self._folds,
                    label.patient,
                    logit.half(),
                    geo,
                    np.packbits([truth, reviewed]),
                    np.stack(curves),
                )
            )
        self._folds += 1

    def operating_point(self, alpha: float, but: int | None = None) -> OperatingPoint:
        """The operating point that suits these labels, drawn towards the start's.

        Parameters
        ----------
        alpha : float
            Share of the start in the network.
        but : int, optional
            A fold that is not to tell.
        """
        own, how = self._start.threshold(alpha), self._start.postprocessing
        found = [x for x in self._found if x.fold != but]
        if not found or math.isinf(self._prior):
            return OperatingPoint(own, how)
        mean = np.mean([x.dice for x in found], 0)
        margins = [c.twig_margin if c else 0.0 for c in self._candidates]
        # Of equal ones the margin, then the threshold, nearest to the start's.
        margin_at, best = min(
            np.argwhere(mean >= mean.max() - 0.001).tolist(),
            key=lambda at: (
                abs(margins[at[0]] - margins[0]),
                abs(THRESHOLDS[at[1]] - own),
            ),
        )
        share = len(found) / (len(found) + self._prior)
        cut = (1 - share) * log_odds(own) + share * log_odds(THRESHOLDS[best])
        threshold = round(1 / (1 + math.exp(-cut)), 2)
        if how is None:
            return OperatingPoint(threshold, how)
        if margin_at:  # else the start's stays, whatever the threshold: no drift
            # It was chosen from the start's threshold on.
            wanted = margins[margin_at] + log_odds(own) - log_odds(threshold)
            margin = (1 - share) * how.twig_margin + share * wanted
            how = replace(how, twig_margin=round(max(margin, 0.0), 2))
        shown = [x.contrast_margin(threshold, how) for x in found if x.is_found]
        least = min(shown, default=math.inf)
        if least < how.contrast_margin:
            limit = round(max(CONTRAST_SHARE * least, 0.0), 2)
            how = replace(how, contrast_margin=limit)
        return OperatingPoint(threshold, how)

    def scores(self, alpha: float) -> Scores:
        """Dice and clDice of each patient, at the operating point of other folds."""
        at = {fold: self.operating_point(alpha, fold) for fold in range(self._folds)}
        return score_masks((x.patient, *x.masks(at[x.fold])) for x in self._found)


def _dice_curve(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice at each of :data:`THRESHOLDS`, of uint8 probabilities."""
    artery = np.bincount(probability[truth], minlength=256)
    every = np.bincount(probability, minlength=256)
    cuts = [threshold_byte(t) for t in THRESHOLDS]
    hit = artery[::-1].cumsum()[::-1][cuts]
    found = every[::-1].cumsum()[::-1][cuts]
    return 2 * hit / np.maximum(found + artery.sum(), 1)


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
