"""Splits by patient, and cross-validation where there are few patients.

Every patient is left out once; then all labels train the final model.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.training.config import (
    FinetuneConfig,
    FinetuneResult,
    default_steps,
)
from napari_cmunet.training.events import Event, Fold, Note, Step, Validated
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.metrics import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import torch

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.training.dataset import LabelledFrames

    Scores = dict[str, tuple[float, float]]
    Score = Callable[[CMUNet, Sequence[int]], Scores]
    Curve = dict[int, Scores]

FEW_PATIENTS = 8
"""With fewer patients, each is left out in turn instead of one held-out part."""

PARTS = 4
"""Folds, where leaving patients out one by one would take too long."""


@dataclass(frozen=True)
class ChosenSteps:
    """Chosen number of steps, and the scores on left-out patients with it.

    Parameters
    ----------
    steps : int
        The best mean Dice over the left-out patients.
    at_the_end : bool
        Whether that was the last validation: longer training may be better still.
    dice, cldice : float or None
    interval : (float, float) or None
        95 % bootstrap interval of the Dice, by patient.
    left_out : dict
        What ``score`` gave for each patient, by a network trained without it.
    """

    steps: int
    dice: float | None
    cldice: float | None
    interval: tuple[float, float] | None
    left_out: dict[str, tuple[float, float]] = field(default_factory=dict)
    at_the_end: bool = False


def cross_validated(
    start: Callable[[], CMUNet],
    frames: LabelledFrames,
    config: FinetuneConfig,
    *,
    auxiliary: LabelledFrames | None = None,
    device: torch.device | str = "cpu",
    receipt: str = "",
    score: Score | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, FinetuneResult | None]:
    """Cross-validate, then train on all labels for the best number of steps.

    Parameters
    ----------
    start : callable
        Returns a new network with the weights to start from.
    frames : LabelledFrames
    config : FinetuneConfig
        Each fold has an equal share of ``minutes``, and the final training the rest,
        so that the folds are trained like it.
    companion, device, receipt, should_stop
        As :func:`napari_cmunet.training.loop.finetune` takes them.
    score : callable, optional
        Dice and clDice by patient, of a network and the indices of left-out frames;
        by default they are measured on the network's grid, for each fold as a whole.

    Returns
    -------
    FinetuneResult or None
        With the Dice of the left-out patients; None if stopped before the final
        training.
    """
    began = time.monotonic()
    share = None
    if config.minutes:
        share = config.minutes / (len(leave_patients_out(frames.patients)) + 1)
    chosen = yield from left_out_steps(
        start,
        frames,
        replace(config, minutes=share),
        auxiliary=auxiliary,
        device=device,
        score=score,
        should_stop=should_stop,
    )
    if should_stop():
        return None
    final = config
    if config.minutes and share:
        left = config.minutes - (time.monotonic() - began) / 60
        final = replace(config, minutes=max(share, left))
    result = yield from finetune(
        start(),
        frames,
        final if chosen.at_the_end else replace(final, steps=chosen.steps),
        auxiliary=auxiliary,
        device=device,
        receipt=receipt,
        should_stop=should_stop,
    )
    return replace(
        result, dice=chosen.dice, cldice=chosen.cldice, left_out=chosen.left_out
    )


def left_out_steps(
    start: Callable[[], CMUNet],
    frames: LabelledFrames,
    config: FinetuneConfig,
    *,
    auxiliary: LabelledFrames | None = None,
    device: torch.device | str = "cpu",
    score: Score | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, ChosenSteps]:
    """Leave each patient out once and train on the others.

    Parameters
    ----------
    start : callable
        Returns a new network with the weights to start from.
    frames : LabelledFrames
    config : FinetuneConfig
        ``minutes`` is the budget of each fold.
    score : callable, optional
        See :func:`cross_validated`.

    Yields
    ------
    Event
        For each fold its number, steps and notes; at the end one validation for each
        measured step, over all patients.

    Returns
    -------
    ChosenSteps
    """
    folds = leave_patients_out(frames.patients)
    config = replace(config, patience=0)
    patients = len(set(frames.patients))
    how = (
        "each is left out once"
        if len(folds) == patients
        else f"they are left out in {len(folds)} parts"
    )
    yield Note(
        f"Only {patients} patients: {how}, then all labels train the final model."
    )
    curves: list[Curve] = []
    for number, (train, held_out) in enumerate(folds, 1):
        if should_stop():
            break
        yield Fold(number, len(folds))
        curve: Curve = {}

        def record(step: int, network: CMUNet, of=curve, at=held_out) -> None:
            if score is not None:
                of[step] = score(network, at)

        training = finetune(
            start(),
            frames.subset(train),
            config,
            validation=frames.subset(held_out),
            auxiliary=auxiliary,
            device=device,
            on_validation=record,
            should_stop=should_stop,
        )
        for event in training:
            if isinstance(event, Validated):
                if not curve.get(event.step):
                    curve[event.step] = {f"fold {number}": (event.dice, event.cldice)}
            elif isinstance(event, Step):
                # The other folds and the final training are still to come.
                each = event.seconds + event.seconds_left
                to_come = (len(folds) - number + 1) * each
                yield replace(event, seconds_left=event.seconds_left + to_come)
            elif isinstance(event, Note):
                yield event
        if curve:
            curves.append(curve)
            best = max(_mean(scores)[0] for scores in curve.values())
            yield Note(f"Fold {number} of {len(folds)}: best Dice {best:.3f}.")
    if not curves:
        return ChosenSteps(config.steps or default_steps(len(frames)), None, None, None)
    common = sorted(set.intersection(*(set(c) for c in curves)))
    if not common:
        # A time budget gave each fold another length: compare their last validations.
        common = [min(max(c) for c in curves)]
        curves = [{common[0]: c[max(c)]} for c in curves]
    whole = {step: dict(x for c in curves for x in c[step].items()) for step in common}
    best_step = max(common, key=lambda step: _mean(whole[step])[0])
    for step in common:
        dice, cldice = _mean(whole[step])
        interval = _interval(whole[step])
        yield Validated(step, dice, *interval, cldice, step == best_step)
    best_scores = whole[best_step]
    return ChosenSteps(
        best_step,
        *_mean(best_scores),
        _interval(best_scores),
        best_scores if score is not None else {},
        at_the_end=best_step == common[-1],
    )


def _mean(scores: Scores) -> tuple[float, float]:
    dice, cldice = np.mean(list(scores.values()), 0)
    return float(dice), float(cldice)


def _interval(scores: Scores) -> tuple[float, float]:
    return bootstrap_interval([dice for dice, _ in scores.values()])


def validates(patient: str, share: float = 0.2) -> bool:
    """Whether a patient belongs to validation.

    Decided by a hash of the patient alone, so that other patients never change it.

    Parameters
    ----------
    patient : str
        Any stable name of the patient.
    share : float
        Expected share of the patients that validate.
    """
    digest = hashlib.sha256(f"napari-cmunet split {patient}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def split_by_patient(
    patients: Sequence[str], share: float = 0.2
) -> tuple[list[int], list[int]]:
    """Indices that train and indices that validate.

    Parameters
    ----------
    patients : sequence of str
        The patient of each label.
    share : float
        Expected share of the patients that validate.

    Returns
    -------
    train, validation : lists of int
        ``validation`` may be empty.
    """
    train: list[int] = []
    validation: list[int] = []
    for index, patient in enumerate(patients):
        (validation if validates(patient, share) else train).append(index)
    return train, validation


def leave_patients_out(
    patients: Sequence[str],
) -> list[tuple[list[int], list[int]]]:
    """Folds as indices to learn from and indices left out; each patient is out once.

    Few patients are left out one by one, more of them in :data:`PARTS` parts.
    """
    known = sorted(set(patients))
    parts = len(known) if len(known) < FEW_PATIENTS else PARTS
    part = {patient: number % parts for number, patient in enumerate(known)}
    return [
        (
            [i for i, p in enumerate(patients) if part[p] != number],
            [i for i, p in enumerate(patients) if part[p] == number],
        )
        for number in range(parts)
    ]
