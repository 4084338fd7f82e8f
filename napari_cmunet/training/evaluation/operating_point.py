"""The operating point and the grid that suit a hospital, chosen with its labels.

Needs no training: the labels were left out of what predicts them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.model.card import ModelCard
from napari_cmunet.model.postprocess import predicted_tree, suppress
from napari_cmunet.model.predictor import Predictor, finish
from napari_cmunet.model.registry import LoadedModel, LoadReport
from napari_cmunet.model.threshold import log_odds, mask_at, threshold_byte
from napari_cmunet.training.config import OperatingPoint
from napari_cmunet.training.evaluation.validation import score_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch

    from napari_cmunet.model.card import Postprocessing
    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.model.preprocess import Geometry
    from napari_cmunet.training.dataset import Label
    from napari_cmunet.training.evaluation.comparison import Scores
    from napari_cmunet.training.finetuning import StartModel

    ReadLabels = Callable[[Sequence[int]], Iterable[Label]]

THRESHOLDS = np.arange(0.3, 0.91, 0.05).round(2)
"""Thresholds that a hospital's own is chosen from; lower ones undo the clean-up."""

TWIG_MARGINS = (0.5, 2.0, 2.75, 3.5)
"""Margins of twigs that a hospital's own is chosen from: how many side branches its
readers trace; see :class:`napari_cmunet.model.card.Postprocessing`.
"""

FOUND_DICE = 0.5
"""Dice from which on a labelled frame shows contrast, whatever its margins."""

CONTRAST_SHARE, MEDIAN_SHARE = 0.9, 0.2
"""The limit is at most these shares of the least and, after a training, of the median
margins of such frames. What was fine-tuned is less confident than the bundled model,
whose limit is about a fifth of the median.
"""

OPERATING_POINT_PRIOR = 6.0
"""Number of labels that the start's operating point counts for."""

GRIDS = (256,)
"""Grids that are tried beside the start's own if they are coarser.

Where arteries look larger than those that the start learned from, it sees them better.
"""

MIN_GAIN = 0.005
"""Least gain of Dice, as a mean over patients, for another choice than the first."""


@dataclass(frozen=True)
class _Predicted:
    fold: int
    patient: str
    logit: torch.Tensor  # float16, of Predictor.predict_logit
    geo: Geometry
    packed: np.ndarray  # truth and reviewed, a bit a pixel
    dice: np.ndarray  # for each margin of twigs, at each of THRESHOLDS

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
        return predicted_tree(logit, threshold, how).contrast


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

    Attributes
    ----------
    folds : int
        How many have been predicted.
    """

    def __init__(
        self,
        start: StartModel,
        read: ReadLabels,
        device: torch.device,
        prior: float = OPERATING_POINT_PRIOR,
    ) -> None:
        self.start = start
        self._read, self._device, self._prior = read, device, prior
        self._found: list[_Predicted] = []
        self.folds = 0
        how = start.postprocessing
        own = how.twig_margin if how else 0.0
        is_chosen = how is not None and not math.isinf(prior)
        self._margins = (own, *(TWIG_MARGINS if is_chosen else ()))

    def predict(
        self, network: CMUNet, folds: Sequence[Sequence[int]], alpha: float
    ) -> None:
        """Predict labels that the network has not learned from.

        Parameters
        ----------
        network : CMUNet
        folds : sequence of sequence of int
            Labels of other patients each.
        alpha : float
            Share of the start in the network.
        """
        width, preprocessing = self.start.width, self.start.preprocessing
        card = ModelCard("fold", "artery", width, preprocessing=preprocessing)
        model = LoadedModel(network.eval(), card, LoadReport("fold", 0, 0, True))
        predictor = Predictor(model, self._device)
        for indices in folds:
            for label in self._read(indices):
                self._found.append(self._predict(predictor, label, alpha))
            self.folds += 1

    def _predict(self, predictor: Predictor, label: Label, alpha: float) -> _Predicted:
        logit, geo = predictor.predict_logit(label.frame)
        logit = logit.cpu()
        truth = label.mask > 0
        reviewed = np.ones_like(truth)
        if label.reviewed is not None:
            reviewed = label.reviewed > 0
        curves = [
            _dice_curve(probability[reviewed], truth[reviewed])
            for probability in self._probabilities(logit, geo, alpha)
        ]
        return _Predicted(
            self.folds,
            label.patient,
            logit.half(),
            geo,
            np.packbits([truth, reviewed]),
            np.stack(curves),
        )

    def _probabilities(
        self, logit: torch.Tensor, geo: Geometry, alpha: float
    ) -> Iterator[np.ndarray]:
        """For each margin of twigs; whether the frame shows contrast is left open."""
        threshold, how = self.start.threshold(alpha), self.start.postprocessing
        tree = predicted_tree(logit[0, 0].numpy(), threshold, how) if how else None
        for margin in self._margins:
            cleaned = logit.clone()
            if tree is not None:
                suppress(cleaned[0, 0], tree.uncertain(margin))
            yield finish(cleaned, geo, threshold, None)[0][0]

    def operating_point(self, alpha: float, but: int | None = None) -> OperatingPoint:
        """The operating point that suits these labels, drawn towards the start's.

        Parameters
        ----------
        alpha : float
            Share of the start in the network.
        but : int, optional
            A fold that is not to tell.
        """
        own, how = self.start.threshold(alpha), self.start.postprocessing
        found = [x for x in self._found if x.fold != but]
        if not found or math.isinf(self._prior):
            return OperatingPoint(own, how)
        margins = self._margins
        margin_at, best = self._best(alpha, found)
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
        if shown:
            limits = [how.contrast_margin, round(CONTRAST_SHARE * min(shown), 2)]
            if alpha < 1:  # else these are the start's own predictions
                limits.append(round(MEDIAN_SHARE * median(shown), 2))
            how = replace(how, contrast_margin=min(limits))
        return OperatingPoint(threshold, how)

    def _best(self, alpha: float, found: Sequence[_Predicted]) -> tuple[int, int]:
        """Indices of the margin and the threshold with the best mean Dice.

        Of equal ones the margin, then the threshold, nearest to the start's.
        """
        mean = np.mean([x.dice for x in found], 0)
        own = self.start.threshold(alpha)
        margin, threshold = min(
            np.argwhere(mean >= mean.max() - 0.001).tolist(),
            key=lambda at: (
                abs(self._margins[at[0]] - self._margins[0]),
                abs(THRESHOLDS[at[1]] - own),
            ),
        )
        return margin, threshold

    def best_dice(self, but: int | None = None) -> dict[str, float]:
        """Dice of each patient at the best common threshold, at the start's margin."""
        found = [x for x in self._found if x.fold != but]
        if not found:
            return {}
        best = np.mean([x.dice[0] for x in found], 0).argmax()
        of: dict[str, list[float]] = {}
        for x in found:
            of.setdefault(x.patient, []).append(x.dice[0, best])
        return {patient: float(np.mean(values)) for patient, values in of.items()}

    def scores(self, alpha: float, fold: int | None = None) -> Scores:
        """Dice and clDice of each patient, at the operating point of other folds.

        Parameters
        ----------
        alpha : float
        fold : int, optional
            Score this fold alone.
        """
        folds = range(self.folds) if fold is None else [fold]
        at = {fold: self.operating_point(alpha, fold) for fold in folds}
        return score_masks(
            (x.patient, *x.masks(at[x.fold])) for x in self._found if x.fold in at
        )


@dataclass(frozen=True)
class Adaptation:
    """What labels choose for a model without training it.

    Parameters
    ----------
    start : StartModel
        On the grid that suits them.
    operating_point : OperatingPoint
    scores : dict of str to (float, float)
        Dice and clDice of each patient, as the labels of the other folds choose.
    """

    start: StartModel
    operating_point: OperatingPoint
    scores: Scores


def adapt(
    start: StartModel,
    folds: Sequence[Sequence[int]],
    read: ReadLabels,
    device: torch.device,
    *,
    keep_grid: bool = False,
) -> Adaptation:
    """Choose the grid and the operating point of a model that segments arteries.

    Parameters
    ----------
    start : StartModel
        That has not learned from the labels.
    folds : sequence of sequence of int
        Labels of other patients each. With one fold there are no scores.
    read : callable
        Labels of indices.
    device : torch.device
    keep_grid : bool
        Choose the operating point alone.
    """
    grids = () if keep_grid else GRIDS
    tried = _predict(start, grids, folds, read, device, OPERATING_POINT_PRIOR)
    best = best_of(tried)
    scores = scores_of_best(tried, 1.0) if len(folds) > 1 else {}
    return Adaptation(best.start, best.operating_point(1.0), scores)


def choose_grid(
    start: StartModel,
    folds: Sequence[Sequence[int]],
    read: ReadLabels,
    device: torch.device,
) -> StartModel:
    """The start on the grid that suits labels, whichever fold of them is left out.

    So that no patient has a say in the grid on which it is left out.

    Parameters
    ----------
    start, folds, read, device
        See :func:`adapt`.
    """
    tried = _predict(start, GRIDS, folds, read, device, math.inf)
    best = {best_of(tried, number) for number in range(len(folds))}
    return best.pop().start if len(best) == 1 else start


def _predict(
    start: StartModel,
    grids: Sequence[int],
    folds: Sequence[Sequence[int]],
    read: ReadLabels,
    device: torch.device,
    prior: float,
) -> list[LeftOutPredictions]:
    """Predict labels on the start's own grid and on those of these that are coarser."""
    own = start.preprocessing.grid
    tried = []
    for grid in (own, *(grid for grid in grids if grid < own)):
        tried.append(LeftOutPredictions(start.on_grid(grid), read, device, prior))
        tried[-1].predict(start.network(), folds, 1.0)
    return tried


def best_of(
    tried: Sequence[LeftOutPredictions], but: int | None = None
) -> LeftOutPredictions:
    """The first of these, unless another is better by :data:`MIN_GAIN`.

    Parameters
    ----------
    tried : sequence of LeftOutPredictions
        Of the same labels.
    but : int, optional
        A fold that is left out of the choice.
    """
    best, most = tried[0], MIN_GAIN
    before = tried[0].best_dice(but)
    for predictions in tried[1:]:
        now = predictions.best_dice(but)
        # A label may have been withdrawn meanwhile.
        gains = [now[patient] - before[patient] for patient in before if patient in now]
        gain = float(np.mean(gains)) if gains else 0.0
        if gain > most:
            best, most = predictions, gain
    return best


def scores_of_best(tried: Sequence[LeftOutPredictions], alpha: float) -> Scores:
    """Dice and clDice of each patient, by what the other folds choose."""
    scores: Scores = {}
    for fold in range(tried[0].folds):
        scores |= best_of(tried, fold).scores(alpha, fold)
    return scores


def _dice_curve(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice at each of :data:`THRESHOLDS`, of uint8 probabilities."""
    artery = np.bincount(probability[truth], minlength=256)
    every = np.bincount(probability, minlength=256)
    cuts = [threshold_byte(t) for t in THRESHOLDS]
    hit = artery[::-1].cumsum()[::-1][cuts]
    found = every[::-1].cumsum()[::-1][cuts]
    return 2 * hit / np.maximum(found + artery.sum(), 1)
