"""How the fine-tuning of a project stands, as one value, and what is said of it.

Knows no widget: every text and every disabled button can be tested without one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.project.models.promotion import (
    CANCELLED,
    PROMOTED,
    REFUSED,
    STOPPED,
    UNDECIDED,
)
from napari_cmunet.training import events
from napari_cmunet.util.text import counted, duration

if TYPE_CHECKING:
    from napari_cmunet.project.models.history import ModelVersion
    from napari_cmunet.project.models.promotion import TrainingResult
    from napari_cmunet.project.settings import Settings

STARTING, LEAVING_OUT, LEARNING, COMPARING, COMPARED = (
    "starting",
    "leaving out",
    "learning",
    "comparing",
    "compared",
)
"""The phases of a training, in their order; the second with few patients alone."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    In a training of several stages, steps and losses are counted through all of them.
    """

    phase: str = STARTING
    #: labels, patients, validation_labels, validation_patients: in use: to learn
    #: from, and held out.
    labels: int = 0
    patients: int = 0
    validation_labels: int = 0
    validation_patients: int = 0
    #: fold, folds: which patient is left out, of how many; 0 where none is.
    fold: int = 0
    folds: int = 0
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    #: Steps and their losses, of the fold or training at hand.
    losses: tuple[tuple[int, float], ...] = ()
    validations: tuple[events.Validated, ...] = ()
    plan: str = ""  # what it will do and how long it takes, once that is known
    #: The last note of this fold or training, such as that memory was short.
    note: str = ""
    stage: str = ""
    #: steps_before, seconds_after: see
    #: :class:`napari_cmunet.training.events.Stage`.
    steps_before: int = 0
    seconds_after: float = 0.0
    limit: float = math.inf  # seconds that the training may take
    #: Seconds by which ``seconds_left`` falls each second: fewer than one where it
    #: was found to be too low.
    pace: float = 1.0

    @property
    def has_model(self) -> bool:
        """Whether stopping now leaves a model."""
        return self.step > self.steps_before and (
            self.phase == LEARNING or bool(self.stage)
        )

    @property
    def best(self) -> events.Validated | None:
        """The best validation so far."""
        return max(self.validations, key=lambda v: v.dice, default=None)

    def later(self, seconds: float) -> TrainingProgress:
        """The progress after some seconds without an event."""
        if self.seconds_left is None:
            return self
        left = max(0.0, self.seconds_left - self.pace * seconds)
        return replace(self, seconds_left=left)


def _time_left(progress: TrainingProgress, seconds: float) -> dict[str, Any]:
    """The time left and its pace by a new estimate; it only falls."""
    left, before = min(seconds, progress.limit), progress.seconds_left
    if before is not None and before < left:
        return {"seconds_left": before, "pace": before / left}
    return {"seconds_left": left, "pace": 1.0}


def progress_after(progress: TrainingProgress, event: events.Event) -> TrainingProgress:
    """The progress after an event."""
    staged = bool(progress.stage)
    match event:
        case events.Planned(possible=True):
            left = min(event.seconds, progress.limit)
            planned = replace(progress, plan=event.text, labels=event.labels)
            return replace(planned, seconds_left=left, pace=1.0)
        case events.Stage():
            return replace(
                progress,
                phase=LEARNING,
                stage=event.name,
                step=event.steps_before,
                steps=event.steps_total,
                steps_before=event.steps_before,
                seconds_after=event.seconds_after,
                note="",
            )
        case events.Fold():
            updated = replace(progress, fold=event.number, folds=event.folds)
            if staged:
                return updated
            # The note told that there will be folds, or how the one before ended.
            updated = replace(updated, phase=LEAVING_OUT, patients=event.folds)
            return replace(updated, step=0, losses=(), note="")
        case events.Started():
            updated = replace(
                progress,
                phase=LEARNING,
                labels=event.labels,
                patients=event.patients,
                validation_labels=event.validation_labels,
                validation_patients=event.validation_patients,
            )
            if staged:
                return updated
            return replace(
                updated, fold=0, step=0, steps=event.steps, losses=(), note=""
            )
        case events.Step():
            left = event.seconds_left + progress.seconds_after
            known = progress if staged else replace(progress, seconds_left=None)
            step = progress.steps_before + event.step
            return replace(
                progress,
                step=step,
                steps=progress.steps if staged else event.steps,
                **_time_left(known, left),
                losses=(*progress.losses, (step, event.loss)),
            )
        case events.Validated():
            measured = replace(event, step=progress.steps_before + event.step)
            return replace(progress, validations=(*progress.validations, measured))
        case events.Verdict():
            progress = replace(progress, phase=COMPARED)
            if not staged or event.dice is None:
                return progress
            dice, cldice = event.dice, event.cldice or 0.0
            measured = events.Validated(progress.step, dice, dice, dice, cldice, True)
            return replace(progress, validations=(*progress.validations, measured))
        case events.Comparing() if staged:
            return replace(progress, phase=COMPARING)
        case events.Comparing():
            return replace(progress, phase=COMPARING, seconds_left=None)
        case events.Note():
            return replace(progress, note=event.text)
    return progress


@dataclass(frozen=True)
class TrainingState:
    """Everything that a view shows of a project's fine-tuning."""

    settings: Settings
    #: labels, patients: that the project has now.
    labels: int
    patients: int
    #: Accepted or changed since the training at work began; while none is, labels
    #: that the newest model has not seen.
    new_labels: int
    current: ModelVersion  # the model in use
    progress: TrainingProgress | None = None  # None while nothing is trained
    #: stopping, cancelling: what the training was asked to do.
    stopping: bool = False
    cancelling: bool = False
    result: TrainingResult | None = None  # how the last training of this window ended
    has_older: bool = False
    has_newer: bool = False
    #: Those that can be chosen: of the history, and the project's others.
    versions: tuple[ModelVersion, ...] = ()
    busy: bool = False  # another model is being put to use
    problem: str = ""  # why something could not be done
    plan: events.Planned | None = None  # what a training would do now, if that is known
    #: Of the quick stage, while the deep one is at work.
    first: TrainingResult | None = None
    adapting: bool = False  # the model in use is being adapted
    not_adapted: str = ""  # why the last adaptation did not change the model in use

    # -- what can be done -----------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self.progress is not None

    @property
    def undecided(self) -> str:
        """The new model that the user is to decide about; empty if there is none."""
        result = self.result
        if result is None or result.decision != UNDECIDED or self.running:
            return ""
        return result.model

    @property
    def has_model(self) -> bool:
        """Whether stopping now leaves a model."""
        return self.progress is not None and self.progress.has_model

    @property
    def can_start(self) -> bool:
        """Whether there is something to learn from, and no training."""
        return not self.running and self.labels > 0

    @property
    def can_stop(self) -> bool:
        """Whether the training can be stopped with a model."""
        asked = self.stopping or self.cancelling
        ends = self.progress is not None and self.progress.phase == COMPARED
        return self.has_model and not (asked or ends)

    @property
    def can_cancel(self) -> bool:
        """Whether a training or an adaptation runs that is not cancelled yet."""
        return (self.running and not self.cancelling) or self.adapting

    @property
    def can_go_back(self) -> bool:
        """Whether the model before can be used."""
        return self.has_older and not self.busy

    @property
    def can_go_forward(self) -> bool:
        """Whether the model after can be used."""
        return self.has_newer and not self.busy

    @property
    def can_choose(self) -> bool:
        """Whether another version can be used."""
        return len(self.versions) > 1 and not self.busy

    # -- in words -------------------------------------------------------------

    @property
    def labels_text(self) -> str:
        """How many labels there are, and what they are for."""
        if not self.labels:
            return "No label yet. Accept a corrected mask: it counts as a label."
        text = f"{counted(self.labels, 'label')} of {counted(self.patients, 'patient')}"
        new = self.new_labels
        if self.running and new:
            text += f". {new} accepted since the training began: for the next one"
        elif not self.running and 0 < new < self.labels:
            text += f", {new} of them new"
        return f"{text}."

    @property
    def failed(self) -> bool:
        """Whether the status tells that something went wrong."""
        if self.progress is not None:
            return False
        return bool(self.problem) or (self.result is not None and self.result.failed)

    @property
    def figures(self) -> str:
        """The figures of the last training's verdict; empty if there are none."""
        if self.running or self.problem or self.result is None or not self.result.model:
            return ""
        return _split(self.result.text)[1]

    @property
    def status(self) -> str:
        """What is at work, how the last training ended, or what the next would do."""
        if self.progress is not None:
            return "Cancelling…" if self.cancelling else self._working(self.progress)
        if self.problem:
            return self.problem
        if self.adapting:
            ended = f"{self._ended(self.result)}\n" if self.result is not None else ""
            return (
                f"{ended}Adapting the model to {counted(self.labels, 'label')}: "
                "threshold, side branches and grid…"
            )
        if self.result is not None:
            text = self._ended(self.result)
            if self.plan is not None and self.new_labels and not self.busy:
                text += f"\nNext training: {self.plan.text}"
            return text
        if self.not_adapted:
            return f"{self.not_adapted}\n{self.plan.text if self.plan else ''}".strip()
        if self.plan is not None and self.labels:
            return self.plan.text
        if self.labels and self.patients < events.ENOUGH_PATIENTS:
            return (
                f"With labels of fewer than {events.ENOUGH_PATIENTS} patients, a new "
                "model cannot be compared with the one in use. Label more patients "
                "first."
            )
        return ""

    def _working(self, progress: TrainingProgress) -> str:
        if self.stopping and progress.phase not in (COMPARING, COMPARED):
            return "Stopping; the best model so far is kept."
        labels = counted(progress.labels, "label")
        quick = progress.stage == events.QUICK_STAGE
        goes_on = quick and progress.step < progress.steps and not self.stopping
        finishing = progress.phase == COMPARED and not goes_on
        if finishing:
            text = "Finishing…"
        elif progress.phase == COMPARED:
            text = "Starting the training of all layers…"
        elif progress.phase == COMPARING:
            text = f"Comparing with {self.current.name}…"
        elif quick:
            text = f"Training a first model on {labels} (last layers only)."
        elif progress.stage:
            text = f"Training all layers on {labels}."
        elif progress.phase == STARTING:
            text = progress.plan or "Starting: labels are read…"
        elif progress.phase == LEAVING_OUT:
            text = (
                "Few patients: all are left out in turn, to measure on those left out "
                f"({progress.fold} of {progress.folds})."
            )
        else:
            text = f"Learning from {labels} of {counted(progress.patients, 'patient')}"
            if progress.validation_patients:
                text += (
                    f", measured on {counted(progress.validation_labels, 'label')} of "
                    f"{counted(progress.validation_patients, 'other patient')}"
                )
            text += "."
        told = finishing or progress.phase == STARTING  # the plan tells it
        if progress.seconds_left is not None and not told:
            text += f" {duration(progress.seconds_left)} left."
        if self.first is not None:
            text += f" {self._decision(self.first)}"
        if progress.note and (progress.stage or progress.phase != COMPARING):
            text += f" {progress.note}"
        return text

    def _ended(self, result: TrainingResult) -> str:
        if result.failed or not result.decision:
            return result.text
        ended = {STOPPED: "Stopped. ", CANCELLED: "Cancelled after the first model. "}
        text = f"{ended.get(result.kind, '')}{self._decision(result)}"
        if result.decision == PROMOTED and self.current.name == result.model:
            text += " Next: open an unlabelled image and see what it has learned."
        elif result.decision == REFUSED and result.verdict and result.verdict.near_own:
            text += (
                " These labels hardly differ from what the model in use finds. Next: "
                "accept masks that you had to correct."
            )
        elif result.decision == REFUSED:
            text += " Next: label images of other patients, then fine-tune again."
        elif result.decision == UNDECIDED:
            text += " Compare it on this image (I), then decide."
        return text

    def _decision(self, result: TrainingResult) -> str:
        """The verdict in one line."""
        name, verdict = result.model, _split(result.text)[0]
        in_use = self.current.name == name
        if result.decision == PROMOTED and not in_use:
            return f"{verdict}: {name} was used, and set aside again."
        if result.decision == REFUSED and in_use:
            return f"{verdict}: {name} is used all the same."
        what = {
            PROMOTED: "used from now on",
            REFUSED: "not used; it stays in the list",
        }.get(result.decision, "ready")
        return f"{verdict}: {name} is {what}."


def _split(text: str) -> tuple[str, str]:
    """The verdict and its figures."""
    verdict, _, figures = text.partition(". ")
    return verdict.removesuffix("."), figures
