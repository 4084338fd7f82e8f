"""Events of a training, for the window, the command line and, as JSON lines, logs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, get_args


@dataclass(frozen=True)
class Started:
    """Training begins."""

    steps: int
    labels: int
    patients: int
    validation_labels: int
    validation_patients: int
    device: str
    receipt: str


@dataclass(frozen=True)
class Step:
    """Some optimiser steps were made; ``loss`` is their mean."""

    step: int
    steps: int
    loss: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Validated:
    """The averaged model was measured on the validation patients."""

    step: int
    dice: float
    dice_low: float
    dice_high: float
    cldice: float
    best: bool


@dataclass(frozen=True)
class Note:
    """A message for people."""

    text: str


@dataclass(frozen=True)
class Finished:
    """Training ended; ``reason``: ``done``, ``stopped``, ``early stop`` or ``time``."""

    reason: str
    steps: int
    seconds: float
    best_step: int
    dice: float | None


@dataclass(frozen=True)
class Saved:
    """The model's folder was written."""

    model: str


@dataclass(frozen=True)
class Fold:
    """A fold of a cross-validation begins."""

    number: int
    folds: int


@dataclass(frozen=True)
class Planned:
    """What a training will do and how long it takes, before it begins."""

    labels: int
    possible: bool
    text: str
    seconds: float


@dataclass(frozen=True)
class Stage:
    """A stage of a training begins."""

    name: str  # :data:`QUICK_STAGE` or :data:`DEEP_STAGE`
    #: steps_before, steps_total: of earlier stages, and of the whole training.
    steps_before: int
    steps_total: int
    #: That everything after the steps of this stage is expected to take.
    seconds_after: float


QUICK_STAGE, DEEP_STAGE = "quick", "deep"


@dataclass(frozen=True)
class Comparing:
    """The comparison with the model in use begins."""

    model: str
    against: str


@dataclass(frozen=True)
class Verdict:
    """Result of the comparison of a new model with the one in use."""

    #: model, against, against_sha256: the new model; the one that was in use, and
    #: the hash of its weights.
    model: str
    against: str
    against_sha256: str
    outcome: str  # :data:`BETTER`, :data:`NOT_BETTER` or :data:`CANNOT_TELL`
    text: str  # outcome and figures in plain words
    patients: int = 0  # on whom the two were compared
    #: dice, dice_before, cldice, cldice_before: means by patient of the new model
    #: and of the one in use.
    dice: float | None = None
    dice_before: float | None = None
    cldice: float | None = None
    cldice_before: float | None = None
    #: gain, gain_low, gain_high: mean difference of Dice and clDice together,
    #: paired by patient, and its 90 % interval.
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    #: sentinels, sentinels_before: Dice on synthetic angiograms.
    sentinels: float | None = None
    sentinels_before: float | None = None

    @property
    def worst_change(self) -> float:
        """The lesser of the changes of Dice and clDice; 0 where they are not known."""
        pairs = ((self.dice, self.dice_before), (self.cldice, self.cldice_before))
        known = [a - b for a, b in pairs if a is not None and b is not None]
        return min(known, default=0.0)

    @property
    def near_own(self) -> bool:
        """Whether the labels are nearly what the model in use found by itself."""
        return min(self.dice_before or 0.0, self.cldice_before or 0.0) >= 0.98


ENOUGH_PATIENTS = 3
"""Least number of patients for a comparison."""

TOLERATED_LOSS = 0.01
"""Loss of Dice or clDice that a gain of the other may outweigh."""

BETTER, NOT_BETTER, CANNOT_TELL = "better", "not better", "cannot tell"


@dataclass(frozen=True)
class Failed:
    """The training cannot go on; ``kind`` is one of :data:`FAILURES`."""

    kind: str
    text: str


OUT_OF_MEMORY, NOT_A_NUMBER, DISK_FULL = "out of memory", "not a number", "disk full"
OTHER_FAILURE = "failed"
FAILURES = (OUT_OF_MEMORY, NOT_A_NUMBER, DISK_FULL, OTHER_FAILURE)


@dataclass(frozen=True)
class PretrainStarted:
    """Pre-training begins or resumes at ``step``."""

    step: int
    steps: int
    frames: int
    held_out: int
    phantoms: int
    parameters: int
    processes: int
    device: str


@dataclass(frozen=True)
class PretrainStep:
    """Some pre-training steps were made; the losses are their means.

    ``loss`` is minimised, the others are its parts before weighting; ``segmentation``
    is 0 without phantoms. ``progress`` is the share of the run that is done, by steps
    or by time, whichever is further.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    reconstruction: float
    contrast: float
    segmentation: float
    progress: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class PretrainEpoch:
    """An epoch ended: mean losses and figures on held-out frames.

    ``held_out`` is the error at masked pixels (1: each patch's mean), ``accuracy`` the
    share of frames whose own target was the nearest of the batch; ``phantom_dice`` is
    None without phantoms.
    """

    epoch: int
    step: int
    loss: float
    reconstruction: float
    contrast: float
    segmentation: float
    accuracy: float
    held_out: float
    phantom_dice: float | None
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class PretrainFinished:
    """Pre-training ended; ``reason``: ``done``, ``time`` or ``stopped``."""

    reason: str
    epoch: int
    step: int
    seconds: float


Event = (
    Started
    | Step
    | Validated
    | Note
    | Finished
    | Saved
    | Fold
    | Comparing
    | Planned
    | Stage
    | Verdict
    | Failed
    | PretrainStarted
    | PretrainStep
    | PretrainEpoch
    | PretrainFinished
)
_KINDS = {kind.__name__.lower(): kind for kind in get_args(Event)}


def to_line(event: Event) -> str:
    """One line of JSON, without the line's end."""
    values: dict[str, Any] = {"event": type(event).__name__.lower()}
    return json.dumps(values | dataclasses.asdict(event))


def from_line(line: str) -> Event:
    """Read back what :func:`to_line` wrote.

    Raises
    ------
    ValueError
        If the line is not an event.
    """
    try:
        values = json.loads(line)
        return _KINDS[values.pop("event")](**values)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"not a training event: {line[:80]!r}") from exc
