"""How the fine-tuning of a project stands, as one value for the view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from napari_cmunet.project.promotion import UNDECIDED
from napari_cmunet.training import events

if TYPE_CHECKING:
    from psygnal import SignalInstance

    from napari_cmunet.project.model_history import ModelVersion
    from napari_cmunet.project.promotion import TrainingResult
    from napari_cmunet.project.settings import Settings

STARTING, LEAVING_OUT, LEARNING, COMPARING = (
    "starting",
    "leaving out",
    "learning",
    "comparing",
)
"""The phases of a training, in their order; the second with few patients alone."""


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Parameters
    ----------
    phase : str
    labels, patients : int
        In use: to learn from.
    validation_labels, validation_patients : int
        In use: held out.
    fold, folds : int
        Which patient is left out, of how many; 0 where none is.
    step, steps : int
    seconds_left : float or None
    losses : tuple of (int, float)
        Steps and their losses, of the fold or training at hand.
    validations : tuple of Validated
    stage : str
        Of a training in stages; its steps and losses are counted through all of them.
    steps_before : int
    seconds_after : float
        See :class:`napari_cmunet.training.events.Stage`.
    note : str
        The last note of this fold or training, such as that memory was short.
    """

    phase: str = STARTING
    labels: int = 0
    patients: int = 0
    validation_labels: int = 0
    validation_patients: int = 0
    fold: int = 0
    folds: int = 0
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    losses: tuple[tuple[int, float], ...] = ()
    validations: tuple[events.Validated, ...] = ()
    note: str = ""
    stage: str = ""
    steps_before: int = 0
    seconds_after: float = 0.0

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


def progress_after(progress: Progress, event: events.Event) -> Progress:
    """The progress after an event."""
    if progress.stage or isinstance(event, events.Stage):
        return _in_stages(progress, event)
    if isinstance(event, events.Planned):
        return replace(progress, seconds_left=event.seconds)
    if isinstance(event, events.Fold):
        return replace(
            progress,
            phase=LEAVING_OUT,
            fold=event.number,
            folds=event.folds,
            patients=event.folds,
            step=0,
            losses=(),
            note="",  # that there will be folds, or how the one before ended
        )
    if isinstance(event, events.Started):
        return replace(
            progress,
            phase=LEARNING,
            labels=event.labels,
            patients=event.patients,
            validation_labels=event.validation_labels,
            validation_patients=event.validation_patients,
            fold=0,
            step=0,
            steps=event.steps,
            losses=(),
            note="",
        )
    if isinstance(event, events.Step):
        return replace(
            progress,
            step=event.step,
            steps=event.steps,
            seconds_left=event.seconds_left,
            losses=(*progress.losses, (event.step, event.loss)),
        )
    if isinstance(event, events.Validated):
        return replace(progress, validations=(*progress.validations, event))
    if isinstance(event, events.Comparing):
        return replace(progress, phase=COMPARING, seconds_left=None)
    if isinstance(event, events.Note):
        return replace(progress, note=event.text)
    return progress


def _in_stages(progress: Progress, event: events.Event) -> Progress:
    """One curve over all stages, and a time left that only falls."""
    before = progress.steps_before
    if isinstance(event, events.Stage):
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
    if isinstance(event, events.Started):
        return replace(
            progress,
            phase=LEARNING,
            labels=event.labels,
            patients=event.patients,
            validation_labels=event.validation_labels,
            validation_patients=event.validation_patients,
        )
    if isinstance(event, events.Fold):
        return replace(progress, fold=event.number, folds=event.folds)
    if isinstance(event, events.Step):
        left = event.seconds_left + progress.seconds_after
        if progress.seconds_left is not None:
            left = min(left, progress.seconds_left)
        step = before + event.step
        return replace(
            progress,
            step=step,
            seconds_left=left,
            losses=(*progress.losses, (step, event.loss)),
        )
    if isinstance(event, events.Validated):
        measured = replace(event, step=before + event.step)
        return replace(progress, validations=(*progress.validations, measured))
    if isinstance(event, events.Verdict) and event.dice is not None:
        dice, cldice = event.dice, event.cldice or 0.0
        measured = events.Validated(progress.step, dice, dice, dice, cldice, True)
        return replace(progress, validations=(*progress.validations, measured))
    if isinstance(event, events.Comparing):
        return replace(progress, phase=COMPARING)
    if isinstance(event, events.Note):
        return replace(progress, note=event.text)
    return progress


@dataclass(frozen=True)
class TrainingState:
    """Everything that a view shows of a project's fine-tuning.

    Parameters
    ----------
    settings : Settings
    labels, patients : int
        That the project has now.
    new_labels : int
        Accepted or changed since the training at work began; while none is, labels
        that the newest model has not seen.
    progress : Progress or None
        None while nothing is trained.
    stopping, cancelling : bool
        What the training was asked to do.
    result : TrainingResult or None
        How the last training of this window ended.
    current : ModelVersion
        The model in use.
    can_go_back, can_go_forward : bool
    versions : tuple of ModelVersion
        Those that can be chosen: of the history, and the project's others.
    busy : bool
        Another model is being put to use.
    problem : str
        Why something could not be done.
    plan : Planned or None
        What a training would do now, if that is known.
    first : TrainingResult or None
        Of the quick stage, while the deep one is at work.
    """

    settings: Settings
    labels: int
    patients: int
    new_labels: int
    current: ModelVersion
    progress: Progress | None = None
    stopping: bool = False
    cancelling: bool = False
    result: TrainingResult | None = None
    can_go_back: bool = False
    can_go_forward: bool = False
    versions: tuple[ModelVersion, ...] = ()
    busy: bool = False
    problem: str = ""
    plan: events.Planned | None = None
    first: TrainingResult | None = None

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


class Difference(Protocol):
    """How the predictions of two models differ in the shown frame."""

    @property
    def before(self) -> str: ...
    @property
    def now(self) -> str: ...
    @property
    def found(self) -> int: ...
    @property
    def gone(self) -> int: ...


class ModelPreview(Protocol):
    """Compares a new model with the one in use on the open image."""

    model: str

    @property
    def changed(self) -> SignalInstance: ...

    @property
    def candidate(self) -> str:
        """The newest model, while it is not in use; empty if there is none."""

    def why_not(self) -> str:
        """Why there is nothing to compare now; empty if there is."""

    def difference(self) -> Difference | None:
        """How the predictions of the shown frame differ; None if not known yet."""

    def toggle(self) -> None:
        """Begin to compare, or end it."""
