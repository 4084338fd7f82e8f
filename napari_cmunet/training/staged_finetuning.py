"""Fine-tuning in two stages: the late decoder in seconds, then all layers.

Unless there are many patients, each stage trains one network for each of a few folds of
patients, and measures it on the patients that it never saw, so that a verdict costs no
further training. The mean of the folds' weights is the model, and a fold of the deep
stage goes on from the same fold of the quick one. A start that does not segment
arteries yet has no quick stage, and its folds no common mean: all labels train one more
network.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_cmunet.errors import TrainingError
from napari_cmunet.training.config import FinetuneConfig, FinetuneResult, wise_ft_alpha
from napari_cmunet.training.dataset import prepare_labels
from napari_cmunet.training.evaluation.validation import (
    FOLDS,
    MANY_PATIENTS,
    OPERATING_POINT_PRIOR,
    LeftOutPredictions,
    folds_of,
    split_by_patient,
)
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
from napari_cmunet.training.plan import (
    QUICK_VIEWS,
    Plan,
    make_plan,
    seconds_per_view,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.evaluation.validation import ReadLabels
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.late_decoder import FeatureViews
    from napari_cmunet.training.options import FinetuneOptions

    Weights = dict[str, torch.Tensor]

QUICK = FinetuneConfig(
    batch=8,
    learning_rate=2.5e-3,
    trained_blocks=2,
    views=QUICK_VIEWS,
    crop=112,
    frozen_batchnorm=True,
)
"""The quick stage, but for its steps.

Folds of a third of the steps are as long as the warm-up: their rate only rises.
"""


def plan_stages(
    start: StartModel,
    options: FinetuneOptions,
    labels: int,
    patients: int,
    view_seconds: float,
) -> Plan:
    """Plan a training; see :func:`napari_cmunet.training.plan.make_plan`."""
    trainings = 1
    if not start.segments and options.validate and 1 < patients < MANY_PATIENTS:
        trainings += min(FOLDS, patients)
    return make_plan(
        labels,
        view_seconds,
        minutes=options.minutes,
        steps=options.steps,
        quick=start.segments,
        trainings=trainings,
    )


def train_in_stages(
    start: StartModel,
    options: FinetuneOptions,
    labels: Iterable[Label],
    validation_labels: Iterable[Label],
    *,
    read: ReadLabels,
    device: torch.device,
    view_seconds: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event | FinetuneResult, None, None]:
    """Train the late decoder in seconds, then all layers.

    Parameters
    ----------
    start : StartModel
    options : FinetuneOptions
        ``start``, ``width``, ``grid`` and ``device`` are those of ``start``.
    labels, validation_labels : iterables of Label
        Read one by one. Where there are none of the latter, patients are left out in
        turn, or some held out where they are many.
    read : callable
        The labels at indices once more, to measure on.
    device : torch.device
    view_seconds : float, optional
        See :func:`napari_cmunet.training.plan.seconds_per_view`; measured if None.
    should_stop : callable
        Asked before each step.

    Yields
    ------
    Event or FinetuneResult
        The result of each stage; of none, if stopped before there was one.

    Raises
    ------
    TrainingError
        If the time is too short to learn anything.
    """
    frames, auxiliary = yield from prepare(start, options, labels, device)
    validation = None
    if validation_labels:
        validation = prepare_labels(validation_labels, start.preprocessing)
    elif options.validate and len(set(frames.patients)) >= MANY_PATIENTS:
        at, held_out = split_by_patient(frames.patients)
        frames, validation = frames.subset(at), frames.subset(held_out)
    if view_seconds is None:
        view_seconds = seconds_per_view(start, device)
    began = time.monotonic()
    alone = replace(options, validate=options.validate and validation is None)
    patients = len(set(frames.patients))
    plan = plan_stages(start, alone, len(frames), patients, view_seconds)
    if not plan.possible:
        raise TrainingError(plan.advice)
    yield Planned(len(frames), True, str(plan), plan.seconds)
    folds: list[tuple[list[int], list[int]]] = [(list(range(len(frames))), [])]
    if alone.validate and not plan.no_folds:
        folds = folds_of(frames)
        if len(folds) == 1:
            yield Note(
                "All labels are of one patient, or all but one without an artery: how "
                "well the model does on others cannot be known."
            )
    final = not start.segments and len(folds) > 1
    common: dict[str, Any] = {
        "start": start,
        "folds": folds,
        "read": read,
        "prior": math.inf if options.partial_labels else OPERATING_POINT_PRIOR,
        "device": device,
        "should_stop": should_stop,
    }
    deep_steps = plan.deep * (len(folds) + 1 if final else 1)
    total = plan.quick + deep_steps
    starts: list[Weights] = []
    if plan.quick:
        after = plan.seconds - plan.quick_seconds + plan.comparing
        yield Stage(QUICK_STAGE, 0, total, after)
        config = replace(QUICK, steps=plan.quick, seed=options.seed)
        config = replace(config, wise_ft_prior=start.wise_ft_prior)
        quick = yield from train_stage(frames, config, **common)
        if quick is None:
            return
        yield quick.result
        if not plan.deep or should_stop() or quick.result.reason == "stopped":
            return
        starts = [quick.result.weights] if validation is not None else quick.folds
    config = replace(config_for(start, options), steps=deep_steps)
    config = replace(config, batch=options.batch or plan.batch)
    if options.minutes:
        left = options.minutes - (time.monotonic() - began + plan.comparing) / 60
        config = replace(config, minutes=max(left, 0.05))
    yield Stage(DEEP_STAGE, plan.quick, total, plan.comparing)
    if validation is not None:
        network = start.network()
        if starts:
            network.load_state_dict(starts[0])
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
        frames, config, starts=starts, final=final, auxiliary=auxiliary, **common
    )
    if deep is not None:
        yield deep.result


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
        Weights that each fold goes on from.
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
    weights: list[Weights] = []
    left_out = LeftOutPredictions(start, read, device, prior)
    made, reason = 0, "done"
    for number, (train, held_out) in enumerate(trainings):
        if should_stop():
            reason = "stopped"
            break
        if count > 1:
            yield Fold(number + 1, count)
        network = start.network()
        if starts:
            network.load_state_dict(starts[number % len(starts)])
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
        result = yield from _counted(training, number, count, each, began)
        if result.steps == 0:
            reason = "stopped"
            break
        made += result.steps
        weights.append(result.weights)
        if result.reason == "stopped":
            reason = "stopped"
            break
        if held_out:
            network = start.network()
            network.load_state_dict(result.weights)
            left_out.predict(network, held_out, result.wise_ft_alpha)
    if not weights:
        return None
    yield Finished(reason, made, time.monotonic() - began, made, None)
    alpha = wise_ft_alpha(config.wise_ft_prior, len(frames))
    found = FinetuneResult(
        weights[-1] if final else average_weights(weights),
        made,
        made,
        None,
        None,
        reason,
        alpha,
    )
    if len(folds) > 1 and len(weights) >= len(folds):  # else not trained alike
        scores = left_out.scores(alpha)
        dice, cldice = (
            sum(s[i] for s in scores.values()) / len(scores) for i in (0, 1)
        )
        found = replace(
            found,
            dice=dice,
            cldice=cldice,
            left_out=scores,
            operating_point=left_out.operating_point(alpha),
        )
    return StageResult(found, weights)


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
