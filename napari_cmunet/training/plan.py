"""What a fine-tuning will do and how long it takes, from one measured step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_cmunet.training.config import (
    BATCH,
    SMALL_BATCH,
    FinetuneConfig,
    default_steps,
)
from napari_cmunet.training.dataset import REVIEWED, TARGET, WHOLE, LabelledFrames
from napari_cmunet.training.late_decoder import MOST_VIEWS
from napari_cmunet.training.trainer import Trainer
from napari_cmunet.util.text import duration

if TYPE_CHECKING:
    from napari_cmunet.training.finetuning import StartModel

QUICK_STEPS, QUICK_VIEWS = 36, 3
"""Steps of the quick stage, all folds together, and views of each label."""

GRID_LABELS = 12
"""Labels that choose the grid of a training."""

LEAST_STEPS = 24
"""Fewer steps of the whole network teach too little to begin them."""

# In units of one view in a step of the whole network.
_FEATURES, _LATE_STEP, _PREDICTION = 0.2, 0.4, 0.35
_REGRESSION_FRAMES = 6
_CLEAN_UP = 0.25  # seconds a label, for all candidates, on any device
_OVERHEAD = 1.15  # reading, augmenting, saving


@dataclass(frozen=True)
class Plan:
    """What a training of a project will do."""

    labels: int
    #: quick, deep: steps of the two stages; 0: the stage is left out.
    quick: int
    deep: int
    batch: int  # views in a step of the deep stage
    #: quick_seconds, seconds: until the quick model can be used, and until all is
    #: done.
    quick_seconds: float
    seconds: float
    comparing: float  # seconds of these, at the end of each stage
    #: What was left out for want of time and what would help; empty if nothing.
    advice: str = ""
    trainings: int = 1  # of the deep stage, where patients are left out in turn
    #: There is no time for that: patients are not left out, nothing is compared.
    no_folds: bool = False

    @property
    def possible(self) -> bool:
        """Whether the training can teach anything in its time."""
        return self.quick > 0 or self.deep > 0

    def __str__(self) -> str:
        if not self.possible:
            return self.advice
        if not self.deep:
            about = duration(self.seconds)
            return f"About {about}: a first model, of the last layers. {self.advice}"
        parts = []
        if self.quick:
            parts.append(f"a first model in about {duration(self.quick_seconds)}")
        if self.deep:
            times = f"{self.trainings} times " if self.trainings > 1 else ""
            parts.append(f"{times}{self.deep} steps on all layers")
        text = f"About {duration(self.seconds)}: {', then '.join(parts)}."
        return f"{text} {self.advice}".rstrip()


def make_plan(
    labels: int,
    seconds_per_view: float,
    *,
    minutes: float | None = None,
    steps: int = 0,
    quick: bool = True,
    trainings: int = 1,
    interpolated: bool = False,
) -> Plan:
    """Plan a training so that it fits its time.

    Parameters
    ----------
    seconds_per_view : float
        See :func:`seconds_per_view`.
    minutes : float, optional
        Time limit.
    steps : int
        Of the deep stage; 0 chooses by the number of labels.
    quick : bool
        Whether there is a quick stage.
    trainings : int
        Of the deep stage, without a quick one: patients are left out in turn.
    interpolated : bool
        Whether left-out patients are segmented half-way between the stages, too.
    """
    unit = seconds_per_view * _OVERHEAD
    budget = 60 * minutes if minutes else math.inf
    predictions = 2 * (labels + _REGRESSION_FRAMES)
    comparing = unit * _PREDICTION * predictions + _CLEAN_UP * labels
    sample = min(labels, GRID_LABELS)
    choosing = 2 * unit * _PREDICTION * sample + _CLEAN_UP * sample
    views = min(labels * QUICK_VIEWS, max(MOST_VIEWS, labels))
    first, quick_steps = 0.0, 0
    for quick_steps in (QUICK_STEPS, QUICK_STEPS // 2) if quick else ():
        first = unit * (_FEATURES * views + _LATE_STEP * quick_steps)
        first += choosing + comparing
        if first <= budget:
            break
    wanted = steps or default_steps(labels)
    if first > budget:
        return Plan(labels, 0, 0, BATCH, 0.0, 0.0, 0.0, _impossible(first))
    halfway = (unit * _PREDICTION + _CLEAN_UP) * labels if interpolated else 0.0
    room = budget - first - halfway - comparing
    if trainings > 1:
        return _with_folds(
            make_plan(
                labels, seconds_per_view, minutes=minutes, steps=steps, quick=False
            ),
            trainings,
            wanted,
            unit,
            room,
            comparing,
        )
    # After the quick stage, small batches do.
    for batch in (SMALL_BATCH,) if quick else (BATCH, SMALL_BATCH):
        if wanted * batch * unit <= room:
            seconds = first + halfway + wanted * batch * unit + comparing
            return Plan(labels, quick_steps, wanted, batch, first, seconds, comparing)
    whole = first + halfway + comparing + wanted * SMALL_BATCH * unit
    fitting = int(room / (SMALL_BATCH * unit))
    if fitting >= min(wanted, LEAST_STEPS):
        limit, needed = duration(budget), duration(whole)
        advice = f"Of {wanted} steps {fitting} fit in {limit}"
        advice += f"; all would take {needed}." if needed != limit else "."
        return Plan(
            labels,
            quick_steps,
            fitting,
            SMALL_BATCH,
            first,
            budget,
            comparing,
            advice,
        )
    if not quick:
        return Plan(labels, 0, 0, BATCH, 0.0, 0.0, 0.0, _impossible(whole))
    advice = (
        f"The training of all layers is left out: it needs {duration(whole)} on this "
        "machine now. Allow more time, or close other programs."
    )
    return Plan(labels, quick_steps, 0, SMALL_BATCH, first, first, comparing, advice)


def fitting_steps(
    plan: Plan, wanted: int, seconds_per_view: float, seconds: float
) -> int:
    """Steps of the deep stage for the time that is left after the quick one.

    More than planned, where other programs were busy then; 0 where they are busier now
    and fewer than :data:`LEAST_STEPS` fit. In between, those planned: the training
    shortens itself to its time.

    Parameters
    ----------
    plan : Plan
    wanted : int
        Steps if there were time enough.
    seconds_per_view : float
        Measured anew.
    seconds : float
        That are left, with the comparison.
    """
    of_step = SMALL_BATCH * seconds_per_view * _OVERHEAD
    fitting = min(wanted, int((seconds - plan.comparing) / of_step))
    return max(fitting, plan.deep) if fitting >= min(wanted, LEAST_STEPS) else 0


def _with_folds(
    alone: Plan,
    trainings: int,
    wanted: int,
    unit: float,
    room: float,
    comparing: float,
) -> Plan:
    """The plan of several trainings of all steps; one, if these do not fit."""
    for batch in (BATCH, SMALL_BATCH):
        seconds = trainings * wanted * batch * unit
        if seconds <= room:
            return Plan(
                alone.labels,
                0,
                wanted,
                batch,
                0.0,
                seconds + comparing,
                comparing,
                trainings=trainings,
            )
    advice = (
        "The new model is not compared: to leave patients out in turn would take "
        f"{duration(seconds)}. Allow more time, or start from a model that segments "
        f"arteries. {alone.advice}"
    )
    return replace(alone, advice=advice.rstrip(), no_folds=alone.possible)


def _impossible(seconds: float) -> str:
    return (
        f"The time is too short to learn anything: this machine needs about "
        f"{duration(seconds)} now. Allow more time, or close other programs."
    )


def seconds_per_view(start: StartModel, device: torch.device) -> float:
    """Time of a view in a step of the whole network, measured now."""
    side = -(-start.preprocessing.grid // 16) * 16
    maps = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    maps[:, REVIEWED] = WHOLE
    maps[:, TARGET, side // 4 : side // 2] = WHOLE
    frames = LabelledFrames(torch.rand(1, 1, side, side).half(), maps, ("",), ("",))
    config = FinetuneConfig(batch=1)
    trainer = Trainer(start.network(), frames, None, config, device, 10)
    trainer.take_step()  # allocates and compiles
    _synchronise(device)
    began = time.monotonic()
    trainer.take_step()
    _synchronise(device)
    return time.monotonic() - began


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
