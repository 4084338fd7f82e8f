"""Fine-tuning in two stages: the late decoder in seconds, then all layers.

Labels choose the grid first: that needs no training.

Unless there are many patients, each stage trains one network for each of a few folds of
patients, and measures it on the patients that it never saw, so that a verdict costs no
further training. The mean of the folds' weights is the model. A fold of the deep stage
goes on from the same fold of the quick one; half-way between the two are the weights
where that segments the left-out patients better. A start that does not segment
arteries yet has no quick stage, and its folds no common mean: all labels train one more
network.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import Cancelled, TrainingError
from napari_cmunet.model.registry import DEFAULT_MODEL
from napari_cmunet.training.config import (
    FinetuneConfig,
    FinetuneResult,
    default_steps,
)
from napari_cmunet.training.dataset import prepare_labels
from napari_cmunet.training.evaluation.operating_point import (
    OPERATING_POINT_PRIOR,
    adapt,
    choose_grid,
)
from napari_cmunet.training.evaluation.validation import (
    FOLDS,
    MANY_PATIENTS,
    folds_of,
    labels_of_whole_patients,
    mean_scores,
    split_by_patient,
    spread_over_patients,
)
from napari_cmunet.training.events import (
    DEEP_STAGE,
    QUICK_STAGE,
    Event,
    Finished,
    Note,
    Planned,
    Stage,
)
from napari_cmunet.training.finetuning import config_for, prepare
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.plan import (
    GRID_LABELS,
    QUICK_VIEWS,
    Plan,
    fitting_steps,
    make_plan,
    seconds_per_view,
)
from napari_cmunet.training.stage import train_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import torch

    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.evaluation.operating_point import ReadLabels
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.options import FinetuneOptions
    from napari_cmunet.training.stage import Weights

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

ADAPTING_LABELS = 36
"""Labels that choose without a training; more would take long."""


def plan_stages(
    start: StartModel,
    options: FinetuneOptions,
    labels: int,
    patients: int,
    view_seconds: float,
) -> Plan:
    """Plan a training; see :func:`napari_cmunet.training.plan.make_plan`."""
    trainings, leaves_out = 1, options.validate and 1 < patients < MANY_PATIENTS
    if leaves_out and not start.segments:
        trainings += min(FOLDS, patients)
    return make_plan(
        labels,
        view_seconds,
        minutes=options.minutes,
        steps=options.steps,
        quick=start.segments,
        trainings=trainings,
        interpolated=leaves_out and start.segments and not options.partial_labels,
    )


def _grid_is_fixed(options: FinetuneOptions) -> bool:
    return bool(options.grid or options.phantoms or options.partial_labels)


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
    began = time.monotonic()
    if not options.train:
        frames = prepare_labels(labels, start.preprocessing)
        read = _until_stopped(read, should_stop)
        yield adapt_only(start, options, frames, read, device)
        return
    frames, auxiliary = yield from prepare(start, options, labels, device)
    validation = None
    if validation_labels:
        validation = prepare_labels(validation_labels, start.preprocessing)
    elif options.validate and len(set(frames.patients)) >= MANY_PATIENTS:
        at, held_out = split_by_patient(frames.patients)
        frames, validation = frames.subset(at), frames.subset(held_out)
    if view_seconds is None:
        view_seconds = seconds_per_view(start, device)
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
    if start.segments and len(folds) > 1 and not _grid_is_fixed(options):
        count = GRID_LABELS // len(folds)
        sample = [spread_over_patients(x, frames.patients, count) for _, x in folds]
        chosen = choose_grid(start, sample, read, device)
        share = (chosen.preprocessing.grid / start.preprocessing.grid) ** 2
        if share < 1:
            again = prepare_labels(read(range(len(frames))), chosen.preprocessing)
            if again.names == frames.names:  # none was withdrawn meanwhile
                frames, start = again, chosen
                view_seconds *= share
                plan = plan_stages(start, alone, len(frames), patients, view_seconds)
                yield Planned(len(frames), True, str(plan), plan.seconds)
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
        made = quick.result
        yield made
        if made.reason == "stopped":
            return
        wanted = options.steps or default_steps(len(frames))
        if options.minutes and plan.deep < wanted:
            # Other programs may have been busy when it was planned.
            view_seconds = seconds_per_view(start, device)
            left = 60 * options.minutes - (time.monotonic() - began)
            deep_steps = fitting_steps(plan, wanted, view_seconds, left)
            total = plan.quick + deep_steps
            if plan.deep and not deep_steps:
                yield Note(
                    "The machine is busier than it was: the training of all layers no "
                    "longer fits in the time and is left out."
                )
        if not deep_steps:
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
        result = yield from finetune(
            network,
            frames,
            config,
            validation=validation,
            auxiliary=auxiliary,
            device=device,
            receipt=start.receipt,
            should_stop=should_stop,
        )
        if result.steps:
            share = result.start_share * (made.start_share if starts else 1.0)
            yield replace(result, start_share=share)
        return
    deep = yield from train_stage(
        frames, config, starts=starts, final=final, auxiliary=auxiliary, **common
    )
    if deep is not None:
        yield deep.result
    else:  # stopped before its first step
        yield Finished("stopped", 0, time.monotonic() - began, 0, None)


def _until_stopped(read: ReadLabels, should_stop: Callable[[], bool]) -> ReadLabels:
    """Reads labels; raises Cancelled once a stop is asked for."""

    def read_on(at: Sequence[int]) -> Iterator[Label]:
        for label in read(at):
            if should_stop():
                raise Cancelled("Stopped before the model was adapted.")
            yield label

    return read_on


def adapt_only(
    start: StartModel,
    options: FinetuneOptions,
    frames: LabelledFrames,
    read: ReadLabels,
    device: torch.device,
) -> FinetuneResult:
    """The start, with the grid and the operating point that labels choose.

    Raises
    ------
    TrainingError
        If the start does not segment arteries, or the masks leave some out.
    """
    if options.partial_labels:
        raise TrainingError(
            "Masks that leave arteries out cannot choose a threshold. Leave "
            "--no-training out, or give whole masks."
        )
    if not start.segments:
        raise TrainingError(
            "Without a training, labels choose the threshold, the side branches and "
            f"the grid of a model that segments arteries: --start {DEFAULT_MODEL}."
        )
    folds = [held_out for _, held_out in folds_of(frames)]
    if not options.validate or len(folds) < 2:
        folds = [list(range(len(frames)))]
    count = ADAPTING_LABELS // len(folds)
    sample = [labels_of_whole_patients(x, frames.patients, count) for x in folds]
    found = adapt(start, sample, read, device, keep_grid=bool(options.grid))
    return FinetuneResult(
        start.network().state_dict(),
        0,
        0,
        *mean_scores(found.scores),
        "done",
        1.0,
        found.scores,
        found.operating_point,
        found.start.preprocessing.grid,
    )
