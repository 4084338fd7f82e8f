"""The training loop of few-shot fine-tuning."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_cmunet.errors import NotANumberError, OutOfMemoryError, TrainingError
from napari_cmunet.model.device import is_out_of_memory
from napari_cmunet.training.config import (
    FinetuneConfig,
    FinetuneResult,
    default_steps,
)
from napari_cmunet.training.dataset import REVIEWED, TARGET, LabelledFrames
from napari_cmunet.training.evaluation.validation import measure
from napari_cmunet.training.events import (
    Event,
    Finished,
    Note,
    Started,
    Step,
    Validated,
)
from napari_cmunet.training.late_decoder import FeatureViews, feature_views
from napari_cmunet.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_cmunet.model.network import CMUNet

EVENT_SECONDS = 0.25
"""Least time between two :class:`Step` events."""


def finetune(
    network: CMUNet,
    train: LabelledFrames | FeatureViews,
    config: FinetuneConfig,
    *,
    validation: LabelledFrames | None = None,
    auxiliary: LabelledFrames | None = None,
    device: torch.device | str = "cpu",
    receipt: str = "",
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, FinetuneResult]:
    """Train a network on labelled frames.

    Parameters
    ----------
    network : CMUNet
        With the weights to start from. It is trained in place; use the result's
        weights, not the network's.
    train : LabelledFrames or FeatureViews
        Where ``config.trained_blocks`` is set, the features are computed first
        unless they are given.
    config : FinetuneConfig
    validation : LabelledFrames, optional
        Frames of other patients, to choose the best step by.
    auxiliary : LabelledFrames, optional
        Fully labelled frames mixed into each batch, such as synthetic ones.
    device : torch device
    receipt : str
        Which weights were loaded, for the first event.
    should_stop : callable
        Asked before each step; training then ends with the best model so far.

    Yields
    ------
    Event

    Returns
    -------
    FinetuneResult

    Raises
    ------
    TrainingError
        On a loss that is not finite, too little memory even for a batch of one, or
        a lost device.
    """
    _check(train, validation)
    device = torch.device(device)
    steps = config.steps or default_steps(len(train))
    try:
        if config.trained_blocks and isinstance(train, LabelledFrames):
            views = feature_views(network, train, config, device, should_stop)
            train = views or train  # stopped
        trainer = Trainer(network, train, auxiliary, config, device, steps)
        yield Started(
            steps=steps,
            labels=len(train),
            patients=len(set(train.patients)),
            validation_labels=len(validation) if validation else 0,
            validation_patients=len(set(validation.patients)) if validation else 0,
            device=str(device),
            receipt=receipt,
        )
        return (yield from _train(trainer, validation, should_stop))
    except (RuntimeError, MemoryError) as exc:  # torch: memory, lost devices
        kind = OutOfMemoryError if is_out_of_memory(exc) else TrainingError
        raise kind(_explain(exc, device)) from exc


def _train(
    trainer: Trainer,
    validation: LabelledFrames | None,
    should_stop: Callable[[], bool],
) -> Generator[Event, None, FinetuneResult]:
    config = trainer.config
    schedule = TimedSchedule(trainer.steps, config.minutes)
    losses, best, reason = LossMeter(), Best(), "done"
    while trainer.step < trainer.steps:
        if should_stop():
            reason = "stopped"
            break
        loss = trainer.take_step()
        if loss is None:
            yield Note(
                f"Out of memory: batches are processed in {trainer.parts} parts "
                "from now on."
            )
            continue
        losses.add(loss)
        schedule.update(trainer)
        step, steps = trainer.step, trainer.steps
        if schedule.event_is_due() or step == steps:
            yield Step(
                step,
                steps,
                losses.mean(step),
                schedule.seconds,
                schedule.seconds_left(steps - step),
            )
        ends = step == steps or schedule.out_of_time
        if validation and (ends or step % config.validate_every == 0):
            losses.check(step)
            model = trainer.model()
            measured = measure(model, validation, trainer.device)
            better = best.update(step, measured.dice, measured.cldice, model)
            yield Validated(
                step, measured.dice, *measured.interval, measured.cldice, better
            )
            if config.patience and best.evaluations_since >= config.patience:
                reason = "early stop"
                break
        if schedule.out_of_time:
            reason = "time"
            break
    losses.check(trainer.step)
    if best.weights is None:
        best.weights, best.step = copy_weights(trainer.model()), trainer.step
    yield Finished(reason, trainer.step, schedule.seconds, best.step, best.dice)
    return FinetuneResult(
        best.weights,
        best.step,
        trainer.step,
        best.dice,
        best.cldice,
        reason,
        trainer.wise_ft_alpha,
        start_share=trainer.wise_ft_alpha,
    )


class TimedSchedule:
    """Times the steps and shortens the schedule to a time budget.

    Parameters
    ----------
    most_steps : int
        Steps without a budget.
    minutes : float, optional
    """

    def __init__(self, most_steps: int, minutes: float | None) -> None:
        self.most_steps = most_steps
        self.budget = 60 * minutes if minutes else math.inf
        self._began = self._last_event = self._timed_from = time.monotonic()
        self._timed_step = 0
        self._seconds_per_step = 0.0

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.monotonic() - self._began

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is used up."""
        return self.seconds > self.budget

    def seconds_left(self, steps: int) -> float:
        """Time that ``steps`` more steps take, within the budget."""
        left = max(0.0, self.budget - self.seconds)
        return min(self._seconds_per_step * steps, left)

    def event_is_due(self) -> bool:
        """Whether it is time for another :class:`Step` event."""
        now = time.monotonic()
        if now - self._last_event <= EVENT_SECONDS:
            return False
        self._last_event = now
        return True

    def update(self, trainer: Trainer) -> None:
        """Time the last step; now and then choose anew how many steps there are."""
        now, step = time.monotonic(), trainer.step
        if step == 3:  # the first steps compile and allocate
            self._timed_from, self._timed_step = now, step
        timed = max(step - self._timed_step, 1)
        self._seconds_per_step = (now - self._timed_from) / timed
        # Chosen anew as the machine gets busier or freer, so that the learning rate
        # always comes down before the time is up.
        if self.budget < math.inf and (step in (5, 12) or step % 25 == 0):
            affordable = self._affordable_steps()
            trainer.steps = max(step + 1, min(self.most_steps, step + affordable))

    def _affordable_steps(self) -> int:
        left = self.budget - self.seconds
        return int(0.95 * left / max(self._seconds_per_step, 1e-9))


class LossMeter:
    """Mean of the losses since the last event; raises if it is not finite."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor) -> None:
        """Add the loss of a step, still on its device."""
        self._losses.append(loss)

    def check(self, step: int) -> float:
        """Mean so far; raises NotANumberError."""
        mean = float(torch.stack(self._losses).mean()) if self._losses else 0.0
        if not math.isfinite(mean):
            raise NotANumberError(
                f"The loss became {mean} at step {step}: the learning rate is too high "
                "for these labels, or a frame holds extreme values. Try again with a "
                "lower learning rate."
            )
        return mean

    def mean(self, step: int) -> float:
        """Mean so far, which is then begun anew; raises NotANumberError."""
        mean = self.check(step)
        self._losses = []
        return mean


@dataclass
class Best:
    """The best validation so far."""

    weights: dict[str, torch.Tensor] | None = None
    step: int = 0
    dice: float | None = None
    cldice: float | None = None
    evaluations_since: int = 0

    def update(self, step: int, dice: float, cldice: float, model: CMUNet) -> bool:
        """Keep the model if it is better; returns whether it is."""
        if self.dice is not None and dice <= self.dice:
            self.evaluations_since += 1
            return False
        self.weights, self.step = copy_weights(model), step
        self.dice, self.cldice, self.evaluations_since = dice, cldice, 0
        return True


def copy_weights(network: CMUNet) -> dict[str, torch.Tensor]:
    """Copy of a network's weights, on the CPU."""
    return {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}


def _check(
    train: LabelledFrames | FeatureViews, validation: LabelledFrames | None
) -> None:
    if not len(train):
        raise TrainingError("There is no label to learn from.")
    if not (train.maps[:, TARGET].bool() & train.maps[:, REVIEWED].bool()).any():
        raise TrainingError(
            "None of the labels holds an artery: there is nothing to learn. Correct "
            "and accept at least one frame with arteries."
        )
    if validation is not None:
        both = (set(train.patients) & set(validation.patients)) - {""}
        if both:
            raise TrainingError(
                f"{len(both)} patient(s) have labels both in training and in "
                "validation; the Dice would be too high. Put each patient on one side."
            )


def _explain(exc: BaseException, device: torch.device) -> str:
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if is_out_of_memory(exc):
        other = "" if device.type == "cpu" else " or choose the CPU"
        return (
            f"Not enough memory on {device.type} even for one frame at a time. Close "
            f"other programs{other}."
        )
    return (
        f"Training failed on {device.type}: {text}. Start it again, on the CPU if it "
        "fails again."
    )
