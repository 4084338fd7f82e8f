"""One stage of a fine-tuning: a network for each fold of patients, and their mean."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_cmunet.training.config import FinetuneResult, wise_ft_alpha
from napari_cmunet.training.evaluation.operating_point import (
    OPERATING_POINT_PRIOR,
    LeftOutPredictions,
    best_of,
    scores_of_best,
)
from napari_cmunet.training.evaluation.validation import mean_scores
from napari_cmunet.training.events import Event, Finished, Fold, Note, Started, Step
from napari_cmunet.training.late_decoder import feature_views
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.optim import interpolate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_cmunet.training.config import FinetuneConfig
    from napari_cmunet.training.dataset import LabelledFrames
    from napari_cmunet.training.evaluation.operating_point import ReadLabels
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.late_decoder import FeatureViews

    Weights = dict[str, torch.Tensor]

INTERPOLATED_SHARE = 0.5
"""Share of the stage before in weights that are tried beside the new ones.

Few steps on all layers can lose what the quick stage has won, where the start is good.
"""


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves.

    Parameters
    ----------
    result : FinetuneResult
    folds : list of dict
        The weights of each fold.
    """

    result: FinetuneResult
    folds: list[Weights]


@dataclass(frozen=True)
class _Candidate:
    """What the result can be made of.

    Parameters
    ----------
    share : float
        Of the weights that a fold goes on from.
    left_out : LeftOutPredictions
    weights : list of dict
        Of each fold.
    """

    share: float
    left_out: LeftOutPredictions
    weights: list[Weights]

    def add(self, trained: Weights, start: Weights) -> None:
        """Add the weights of a fold."""
        if self.share:
            trained = interpolate(trained, start, self.share)
        self.weights.append(trained)


def train_stage(
    frames: LabelledFrames,
    config: FinetuneConfig,
    *,
    start: StartModel,
    folds: Sequence[tuple[list[int], list[int]]],
    read: ReadLabels,
    prior: float = OPERATING_POINT_PRIOR,
    starts: Sequence[Weights] = (),
    final: bool = False,
    auxiliary: LabelledFrames | None = None,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, StageResult | None]:
    """Train a network for each fold.

    Parameters
    ----------
    frames : LabelledFrames
    config : FinetuneConfig
        ``steps`` and ``minutes`` are those of all trainings together.
    start : StartModel
    folds : sequence of (list of int, list of int)
        See :func:`napari_cmunet.training.evaluation.validation.folds_of`.
    read, prior
        See :class:`LeftOutPredictions`.
    starts : sequence of dict, optional
        Weights that each fold goes on from. Weights half-way between these and the new
        ones are the result if they gain more than 0.005 of Dice on the left-out
        patients; not with ``final`` or an infinite ``prior``.
    final : bool
        Whether all labels train one more network, which is the result; else it is the
        mean of the folds' weights.

    Yields
    ------
    Event
        Steps are counted through all trainings.

    Returns
    -------
    StageResult or None
        None if stopped before the first step.
    """
    began = time.monotonic()
    everything: list[tuple[list[int], list[int]]] = [(list(range(len(frames))), [])]
    trainings = [*folds, *everything] if final else [*folds]
    count = len(trainings)
    each = max(1, config.steps // count)
    known = len(set(frames.patients))
    yield Started(each * count, len(frames), known, 0, 0, str(device), start.receipt)
    views: FeatureViews | None = None
    if config.trained_blocks:
        views = feature_views(start.network(), frames, config, device, should_stop)
        if views is None:
            return None
    shares = [0.0]
    if starts and not final and math.isfinite(prior):
        shares.append(INTERPOLATED_SHARE)
    candidates = [
        _Candidate(share, LeftOutPredictions(start, read, device, prior), [])
        for share in shares
    ]
    weights = candidates[0].weights
    made, reason = 0, "done"
    folds_began = time.monotonic()
    for number, (train, held_out) in enumerate(trainings):
        if should_stop():
            reason = "stopped"
            break
        if count > 1:
            yield Fold(number + 1, count)
        network = start.network()
        if starts:
            network.load_state_dict(starts[number])
        minutes = None
        if config.minutes:
            left = config.minutes - (time.monotonic() - began) / 60
            minutes = max(0.01, left / (count - number))
        training = finetune(
            network,
            views.subset(train) if views is not None else frames.subset(train),
            replace(config, steps=each, minutes=minutes, seed=config.seed + number),
            auxiliary=auxiliary,
            device=device,
            should_stop=should_stop,
        )
        result = yield from _counted(training, number, count, each, folds_began)
        if result.steps == 0:
            reason = "stopped"
            break
        made += result.steps
        for candidate in candidates:
            candidate.add(result.weights, starts[number] if starts else {})
        if result.reason == "stopped":
            reason = "stopped"
            break
        for candidate in candidates if held_out else ():
            network = start.network()
            network.load_state_dict(candidate.weights[-1])
            candidate.left_out.predict(network, [held_out], result.wise_ft_alpha)
    if not weights:
        return None
    yield Finished(reason, made, time.monotonic() - began, made, None)
    alpha = wise_ft_alpha(config.wise_ft_prior, len(frames))
    # The stage before kept its start in the same way.
    share = alpha**2 if starts else alpha
    found = FinetuneResult(
        weights[-1] if final else average_weights(weights),
        made,
        made,
        None,
        None,
        reason,
        alpha,
        grid=start.preprocessing.grid,
        start_share=share,
    )
    if len(folds) > 1 and candidates[0].left_out.folds == len(folds):  # none stopped
        tried = [candidate.left_out for candidate in candidates]
        best = best_of(tried)
        scores = scores_of_best(tried, alpha)
        dice, cldice = mean_scores(scores)
        chosen = candidates[tried.index(best)]
        if chosen.share:
            found = replace(
                found,
                weights=average_weights(chosen.weights),
                start_share=(1 - chosen.share) * share + chosen.share * alpha,
            )
            yield Note(
                "The new model is half-way between the quick one and the training of "
                "all layers: patients left out are segmented better there."
            )
        found = replace(
            found,
            dice=dice,
            cldice=cldice,
            left_out=scores,
            operating_point=best.operating_point(alpha),
        )
    return StageResult(found, weights)


def _counted(
    training: Generator[Event, None, FinetuneResult],
    number: int,
    count: int,
    each: int,
    began: float,
) -> Generator[Event, None, FinetuneResult]:
    """Pass on steps and notes of a fold, counted and timed through all folds."""
    while True:
        try:
            event = next(training)
        except StopIteration as end:
            return end.value
        if isinstance(event, Step):
            done = (number + event.step / max(event.steps, 1)) / count
            seconds = time.monotonic() - began
            yield replace(
                event,
                step=round(done * count * each),
                steps=count * each,
                seconds=seconds,
                # With the predictions between the folds, and no fold's slow start.
                seconds_left=seconds * (1 - done) / done,
            )
        elif isinstance(event, Note):
            yield event


def average_weights(weights: Sequence[Weights]) -> Weights:
    """The mean of each tensor; of counters, the first one's."""
    return {
        name: torch.stack([w[name] for w in weights]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in weights[0].items()
    }
