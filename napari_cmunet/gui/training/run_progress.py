"""What a running training has told so far, as one value for the view."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_cmunet.training import events

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
    looks : tuple of Validated
    note : str
        The last thing that it said in words in this fold or training, such as that
        memory was short.
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
    looks: tuple[events.Validated, ...] = ()
    note: str = ""

    @property
    def something_to_keep(self) -> bool:
        """Whether stopping now leaves a model."""
        return self.phase == LEARNING and self.step > 0

    @property
    def best(self) -> events.Validated | None:
        """The best look so far."""
        return max(self.looks, key=lambda look: look.dice, default=None)


def after(progress: Progress, event: events.Event) -> Progress:
    """The progress once an event has been heard."""
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
        return replace(progress, looks=(*progress.looks, event))
    if isinstance(event, events.Comparing):
        return replace(progress, phase=COMPARING, seconds_left=None)
    if isinstance(event, events.Note):
        return replace(progress, note=event.text)
    return progress
