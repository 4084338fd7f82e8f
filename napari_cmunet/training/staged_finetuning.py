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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import TrainingError
from napari_cmunet.training.adaptation import adapt_only
from napari_cmunet.training.config import (
    FinetuneConfig,
    FinetuneResult,
    default_steps,
)
from napari_cmunet.training.dataset import prepare_labels
from napari_cmunet.training.evaluation.operating_point import (
    OPERATING_POINT_PRIOR,
    choose_grid,
)
from napari_cmunet.training.evaluation.validation import (
    FOLDS,
    MANY_PATIENTS,
    folds_of,
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
    from collections.abc import Callable, Generator, Iterable, Iterator

    import torch

    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.evaluation.operating_point import ReadLabels
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.options import FinetuneOptions
    from napari_cmunet.training.stage import StageResult

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

SLOWER = 1.5
"""Times its planned seconds that the quick stage takes before the deep one is planned
anew.
"""


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
        yield adapt_only(start, options, labels, read, device, should_stop)
        return
    frames, auxiliary = yield from prepare(start, options, labels, device)
    validation = None
    if validation_labels:
        validation = prepare_labels(validation_labels, start.preprocessing)
    elif options.validate and len(set(frames.patients)) >= MANY_PATIENTS:
        at, held_out = split_by_patient(frames.patients)
        frames, validation = frames.subset(at), frames.subset(held_out)
    training = _StagedTraining(
        start,
        options,
        frames,
        validation,
        auxiliary,
        read,
        device,
        should_stop,
        began,
        view_seconds or seconds_per_view(start, device),
    )
    yield training.make_plan()
    yield from training.choose_folds()
    yield from training.choose_grid()
    quick = None
    if training.plan.quick:
        quick = yield from training.train_late_decoder()
        if quick is None:
            return
        yield quick.result
        if quick.result.reason == "stopped":
            return
        yield from training.plan_again()
    if training.deep_steps:
        yield from training.train_all_layers(quick)


@dataclass
class _StagedTraining:
    """What the stages of a training share; it changes as the training goes on."""

    start: StartModel
    options: FinetuneOptions
    frames: LabelledFrames
    validation: LabelledFrames | None
    auxiliary: LabelledFrames | None
    read: ReadLabels
    device: torch.device
    should_stop: Callable[[], bool]
    began: float  # by time.monotonic
    view_seconds: float  # see plan.seconds_per_view
    folds: list[tuple[list[int], list[int]]] = field(default_factory=list)
    plan: Plan = field(init=False)
    deep_steps: int = field(init=False)  # of all trainings together

    @property
    def seconds(self) -> float:
        """Since the training began."""
        return time.monotonic() - self.began

    @property
    def _leaves_out(self) -> bool:
        """Whether patients are to be left out in turn."""
        return self.options.validate and self.validation is None

    @property
    def _trains_on_all(self) -> bool:
        """Whether the folds have no common mean, so that all labels train once more."""
        return not self.start.segments and len(self.folds) > 1

    def make_plan(self) -> Planned:
        """Plan the stages; raises TrainingError if there is no time for any."""
        patients = len(set(self.frames.patients))
        options = replace(self.options, validate=self._leaves_out)
        plan = plan_stages(
            self.start, options, len(self.frames), patients, self.view_seconds
        )
        if not plan.possible:
            raise TrainingError(plan.advice)
        self.plan, self.deep_steps = plan, plan.deep
        return Planned(len(self.frames), True, str(plan), plan.seconds)

    def choose_folds(self) -> Iterator[Event]:
        """Choose who is left out in turn."""
        self.folds = [(list(range(len(self.frames))), [])]
        if self._leaves_out and not self.plan.no_folds:
            self.folds = folds_of(self.frames)
            if len(self.folds) == 1:
                yield Note(
                    "All labels are of one patient, or all but one without an artery: "
                    "how well the model does on others cannot be known."
                )
        if self._trains_on_all:
            self.deep_steps *= len(self.folds) + 1

    def choose_grid(self) -> Iterator[Event]:
        """Let the labels choose the grid, where it is not fixed."""
        options, start, patients = self.options, self.start, self.frames.patients
        fixed = options.grid or options.phantoms or options.partial_labels
        if fixed or not start.segments or len(self.folds) == 1:
            return
        count = GRID_LABELS // len(self.folds)
        sample = [spread_over_patients(x, patients, count) for _, x in self.folds]
        chosen = choose_grid(start, sample, self.read, self.device)
        share = (chosen.preprocessing.grid / start.preprocessing.grid) ** 2
        if share == 1:
            return
        frames = prepare_labels(
            self.read(range(len(self.frames))), chosen.preprocessing
        )
        if frames.names == self.frames.names:  # none was withdrawn meanwhile
            self.frames, self.start = frames, chosen
            self.view_seconds *= share
            yield self.make_plan()

    def train_late_decoder(self) -> Generator[Event, None, StageResult | None]:
        """Train the quick stage; None if stopped before its first step."""
        plan = self.plan
        after = plan.seconds - plan.quick_seconds + plan.comparing
        yield Stage(QUICK_STAGE, 0, plan.quick + self.deep_steps, after)
        config = replace(
            QUICK,
            steps=plan.quick,
            seed=self.options.seed,
            wise_ft_prior=self.start.wise_ft_prior,
        )
        return (yield from self._train_stage(config))

    def plan_again(self) -> Iterator[Event]:
        """Fit the deep stage to the time that is left after the quick one."""
        minutes, plan = self.options.minutes, self.plan
        wanted = self.options.steps or default_steps(len(self.frames))
        slow = self.seconds > SLOWER * plan.quick_seconds
        if not minutes or (plan.deep == wanted and not slow):
            return
        # Other programs may have become busy, or idle.
        view_seconds = seconds_per_view(self.start, self.device)
        left = 60 * minutes - self.seconds
        self.deep_steps = fitting_steps(plan, wanted, view_seconds, left)
        if plan.deep and not self.deep_steps:
            yield Note(
                "The machine is busier than it was: the training of all layers no "
                "longer fits in the time and is left out."
            )

    def train_all_layers(
        self, quick: StageResult | None
    ) -> Generator[Event | FinetuneResult, None, None]:
        """Train the deep stage from where the quick one, if there was one, ended."""
        plan, options = self.plan, self.options
        config = replace(
            config_for(self.start, options),
            steps=self.deep_steps,
            batch=options.batch or plan.batch,
        )
        if options.minutes:
            left = options.minutes - (self.seconds + plan.comparing) / 60
            config = replace(config, minutes=max(left, 0.05))
        total = plan.quick + self.deep_steps
        yield Stage(DEEP_STAGE, plan.quick, total, plan.comparing)
        if self.validation is not None:
            yield from self._train_validated(config, quick)
            return
        deep = yield from self._train_stage(
            config,
            starts=quick.folds if quick else (),
            final=self._trains_on_all,
            auxiliary=self.auxiliary,
        )
        if deep is not None:
            yield deep.result
        else:  # stopped before its first step
            yield Finished("stopped", 0, self.seconds, 0, None)

    def _train_stage(
        self, config: FinetuneConfig, **more: Any
    ) -> Generator[Event, None, StageResult | None]:
        return train_stage(
            self.frames,
            config,
            start=self.start,
            folds=self.folds,
            read=self.read,
            prior=math.inf if self.options.partial_labels else OPERATING_POINT_PRIOR,
            device=self.device,
            should_stop=self.should_stop,
            **more,
        )

    def _train_validated(
        self, config: FinetuneConfig, quick: StageResult | None
    ) -> Generator[Event | FinetuneResult, None, None]:
        """Train all layers on all labels but the validation patients'."""
        network, before = self.start.network(), 1.0
        if quick is not None:
            network.load_state_dict(quick.result.weights)
            before = quick.result.start_share
        result = yield from finetune(
            network,
            self.frames,
            config,
            validation=self.validation,
            auxiliary=self.auxiliary,
            device=self.device,
            receipt=self.start.receipt,
            should_stop=self.should_stop,
        )
        if result.steps:
            yield replace(result, start_share=before * result.start_share)
