"""Fine-tuning in two stages: the late decoder in seconds, then all layers.

With few patients each stage trains one network for each of a few folds of patients, and
the mean of their weights is the model. Each fold's network is measured on the patients
that it never saw, so a verdict costs no further training. A fold of the deep stage goes
on from the same fold of the quick one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_cmunet.errors import TrainingError
from napari_cmunet.training.config import FinetuneConfig, FinetuneResult, wise_ft_alpha
from napari_cmunet.training.dataset import REVIEWED, TARGET, prepare_labels
from napari_cmunet.training.events import (
    DEEP_STAGE,
    QUICK_STAGE,
    Event,
    Finished,
    Fold,
    Note,
    Planned,
    Stage,
    Started,
    Step,
)
from napari_cmunet.training.finetuning import config_for, prepare
from napari_cmunet.training.late_decoder import feature_views
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.plan import make_plan, seconds_per_view

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.training.cross_validation import Score
    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.late_decoder import FeatureViews
    from napari_cmunet.training.options import FinetuneOptions

    Weights = dict[str, torch.Tensor]

FOLDS = 3
"""Networks of a stage where few patients are left out in turn."""

_SHARE_OF_STEPS = 0.8
"""Of the time of the quick stage; the rest is the comparison."""

QUICK = FinetuneConfig(
    batch=8,
    learning_rate=2e-3,
    trained_blocks=2,
    views=4,
    crop=128,
    frozen_batchnorm=True,
)
"""The quick stage, but for its steps."""


def train_in_stages(
    start: StartModel,
    options: FinetuneOptions,
    labels: Iterable[Label],
    validation_labels: Iterable[Label],
    *,
    device: torch.device,
    view_seconds: float | None = None,
    score: Score | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event | FinetuneResult, None, None]:
    """Train the late decoder in seconds, then all layers.

    Parameters
    ----------
    start, options, labels, validation_labels, device, score, should_stop
        See :func:`train`. The start must segment arteries.
    view_seconds : float, optional
        See :func:`napari_cmunet.training.plan.seconds_per_view`; measured if None.

    Yields
    ------
    Event or FinetuneResult
        The result of each stage, with the scores of left-out patients where no
        validation labels are given.

    Raises
    ------
    TrainingError
        If the time is too short to learn anything.
    """
    frames, auxiliary = yield from prepare(start, options, labels, device)
    validation = None
    if validation_labels:
        validation = prepare_labels(validation_labels, start.preprocessing)
    if view_seconds is None:
        view_seconds = seconds_per_view(start, device)
    began = time.monotonic()
    plan = make_plan(
        len(frames), view_seconds, minutes=options.minutes, steps=options.steps
    )
    if not plan.possible:
        raise TrainingError(plan.advice)
    yield Planned(len(frames), True, str(plan), plan.seconds)
    nobody: list[tuple[list[int], list[int]]] = [(list(range(len(frames))), [])]
    folds = folds_of(frames) if options.validate and validation is None else nobody
    common: dict[str, Any] = {
        "folds": folds,
        "device": device,
        "receipt": start.receipt,
        "score": score,
        "should_stop": should_stop,
    }
    total = plan.quick + plan.deep
    after = plan.seconds - _SHARE_OF_STEPS * plan.quick_seconds
    yield Stage(QUICK_STAGE, 0, total, after)
    quick = yield from train_stage(
        start.network,
        frames,
        replace(
            QUICK,
            steps=plan.quick,
            seed=options.seed,
            wise_ft_prior=start.wise_ft_prior,
        ),
        **common,
    )
    if quick is None:
        return
    yield quick.result
    if not plan.deep or should_stop() or quick.result.reason == "stopped":
        return
    config = replace(config_for(start, options), steps=plan.deep)
    config = replace(config, batch=options.batch or plan.batch)
    if options.minutes:
        left = options.minutes - (time.monotonic() - began) / 60
        comparing = (1 - _SHARE_OF_STEPS) * plan.quick_seconds / 60
        config = replace(config, minutes=max(left - comparing, 0.05))
    after = (1 - _SHARE_OF_STEPS) * plan.quick_seconds
    yield Stage(DEEP_STAGE, plan.quick, total, after)
    if validation is not None:
        network = start.network()
        network.load_state_dict(quick.result.weights)
        yield (
            yield from finetune(
                network,
                frames,
                config,
                validation=validation,
                auxiliary=auxiliary,
                device=device,
                receipt=start.receipt,
                should_stop=should_stop,
            )
        )
        return
    deep = yield from train_stage(
        start.network,
        frames,
        config,
        starts=quick.folds,
        auxiliary=auxiliary,
        **common,
    )
    if deep is not None:
        yield deep.result


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves.

    Parameters
    ----------
    result : FinetuneResult
        Of the mean of the folds' networks.
    folds : list of dict
        The weights of each fold.
    """

    result: FinetuneResult
    folds: list[Weights]


def folds_of(
    frames: LabelledFrames, most: int = FOLDS
) -> list[tuple[list[int], list[int]]]:
    """Indices to learn from and indices left out, for each fold of patients.

    One fold that leaves nobody out where there is one patient, or where a fold's rest
    would hold no artery.
    """
    known = sorted(set(frames.patients))
    parts = min(most, len(known))
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


def train_stage(
    network: Callable[[], CMUNet],
    frames: LabelledFrames,
    config: FinetuneConfig,
    *,
    folds: Sequence[tuple[list[int], list[int]]],
    starts: Sequence[Weights] = (),
    auxiliary: LabelledFrames | None = None,
    device: torch.device,
    receipt: str = "",
    score: Score | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, StageResult | None]:
    """Train a network for each fold and average their weights.

    Parameters
    ----------
    network : callable
        Returns a new network with the weights to start from.
    frames : LabelledFrames
    config : FinetuneConfig
        ``steps`` and ``minutes`` are those of all folds together.
    folds : sequence of (list of int, list of int)
        See :func:`folds_of`.
    starts : sequence of dict, optional
        Weights that each fold goes on from.
    score : callable, optional
        Dice and clDice by patient, of a network and the indices of left-out frames.

    Yields
    ------
    Event
        Steps are counted through all folds.

    Returns
    -------
    StageResult or None
        None if stopped before the first step.
    """
    began, count = time.monotonic(), len(folds)
    each = max(1, config.steps // count)
    yield Started(
        each * count, len(frames), len(set(frames.patients)), 0, 0, str(device), receipt
    )
    views: FeatureViews | None = None
    if config.trained_blocks:
        views = feature_views(network(), frames, config, device, should_stop)
        if views is None:
            return None
    weights: list[Weights] = []
    left_out: dict[str, tuple[float, float]] = {}
    made, reason = 0, "done"
    for number, (train, held_out) in enumerate(folds):
        if should_stop():
            reason = "stopped"
            break
        if count > 1:
            yield Fold(number + 1, count)
        own = network()
        if starts:
            own.load_state_dict(starts[number % len(starts)])
        minutes = None
        if config.minutes:
            left = config.minutes - (time.monotonic() - began) / 60
            minutes = max(0.01, left / (count - number))
        training = finetune(
            own,
            views.subset(train) if views is not None else frames.subset(train),
            replace(config, steps=each, minutes=minutes, seed=config.seed + number),
            auxiliary=auxiliary,
            device=device,
            should_stop=should_stop,
        )
        result = yield from _counted(training, number, count, each, began)
        if result.steps == 0:
            reason = "stopped"
            break
        made += result.steps
        weights.append(result.weights)
        if result.reason == "stopped":
            reason = "stopped"
            break
        if score is not None and held_out:
            own = network()
            own.load_state_dict(result.weights)
            left_out |= score(own.eval(), held_out)
    if not weights:
        return None
    if len(left_out) < len(set(frames.patients)) and reason == "stopped":
        left_out = {}  # its folds were not trained alike
    yield Finished(reason, made, time.monotonic() - began, made, None)
    alpha = wise_ft_alpha(config.wise_ft_prior, len(frames))
    dice = cldice = None
    if left_out:
        dice, cldice = (
            sum(s[i] for s in left_out.values()) / len(left_out) for i in (0, 1)
        )
    mean = FinetuneResult(
        average_weights(weights), made, made, dice, cldice, reason, alpha, left_out
    )
    return StageResult(mean, weights)


def _counted(
    training: Generator[Event, None, FinetuneResult],
    number: int,
    count: int,
    each: int,
    began: float,
) -> Generator[Event, None, FinetuneResult]:
    """Pass on steps and notes of a fold, counted through all folds."""
    while True:
        try:
            event = next(training)
        except StopIteration as end:
            return end.value
        if isinstance(event, Step):
            share = event.step / max(event.steps, 1)
            per_fold = event.seconds + event.seconds_left
            yield replace(
                event,
                step=round((number + share) * each),
                steps=count * each,
                seconds=time.monotonic() - began,
                seconds_left=event.seconds_left + (count - number - 1) * per_fold,
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
