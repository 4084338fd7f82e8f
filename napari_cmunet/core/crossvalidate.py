"""Few patients: each is left out in turn, and all labels train the final model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.core.events import Event, Fold, Note, Step, Validated
from napari_cmunet.core.finetune import (
    FinetuneConfig,
    FinetuneResult,
    default_steps,
    finetune,
)
from napari_cmunet.core.metrics import bootstrap_interval
from napari_cmunet.core.splits import leave_one_patient_out

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import torch

    from napari_cmunet.core.labelled import LabelledFrames
    from napari_cmunet.core.network import CMUNet

    Score = Callable[[CMUNet, Sequence[int]], tuple[float, float]]


@dataclass(frozen=True)
class ChosenSteps:
    """How long to train, and how well models trained so long did on left-out patients.

    Parameters
    ----------
    steps : int
        Where the mean Dice over the left-out patients was best.
    dice, cldice : float or None
    interval : (float, float) or None
        95 % bootstrap interval of the Dice, by patient.
    left_out : dict
        What ``score`` gave for each patient, by the network trained without it.
    """

    steps: int
    dice: float | None
    cldice: float | None
    interval: tuple[float, float] | None
    left_out: dict[str, tuple[float, float]] = field(default_factory=dict)


def cross_validated(
    start: Callable[[], CMUNet],
    frames: LabelledFrames,
    config: FinetuneConfig,
    *,
    companion: LabelledFrames | None = None,
    device: torch.device | str = "cpu",
    receipt: str = "",
    score: Score | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, FinetuneResult | None]:
    """Leave each patient out once, then train on all labels for as long as was best.

    Parameters
    ----------
    start : callable
        Gives the network with the weights to start from, anew for each training.
    frames : LabelledFrames
    config : FinetuneConfig
        ``minutes`` is shared by the folds and the final training.
    companion, device, receipt, should_stop
        As :func:`napari_cmunet.core.finetune.finetune` takes them.
    score : callable, optional
        Measures a network on the left-out frames, which are given by their indices.

    Returns
    -------
    FinetuneResult or None
        With the Dice of the left-out patients; None if stopped before the final
        training.
    """
    if config.minutes:
        trainings = len(set(frames.patients)) + 1
        config = replace(config, minutes=config.minutes / trainings)
    chosen = yield from leave_one_out_steps(
        start,
        frames,
        config,
        companion=companion,
        device=device,
        score=score,
        should_stop=should_stop,
    )
    if should_stop():
        return None
    result = yield from finetune(
        start(),
        frames,
        replace(config, steps=chosen.steps),
        companion=companion,
        device=device,
        receipt=receipt,
        should_stop=should_stop,
    )
    return replace(
        result, dice=chosen.dice, cldice=chosen.cldice, left_out=chosen.left_out
    )


def leave_one_out_steps(
    start: Callable[[], CMUNet],
    frames: LabelledFrames,
    config: FinetuneConfig,
    *,
    companion: LabelledFrames | None = None,
    device: torch.device | str = "cpu",
    score: Score | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, ChosenSteps]:
    """Train once for each patient, without that patient.

    Parameters
    ----------
    start : callable
        Gives the network with the weights to start from, anew for each fold.
    frames : LabelledFrames
    config : FinetuneConfig
        ``minutes`` is the budget of each fold.
    score : callable, optional
        See :func:`cross_validated`.

    Yields
    ------
    Event
        Which fold it is, its steps, notes, and at last one validation for each
        looked-at step, over all patients.

    Returns
    -------
    ChosenSteps
    """
    folds = list(leave_one_patient_out(frames.patients))
    config = replace(config, patience=0)
    yield Note(
        f"Only {len(folds)} patients: each is left out once, then all labels train the "
        "final model."
    )
    curves: list[dict[int, Validated]] = []
    scores: dict[str, dict[int, tuple[float, float]]] = {}
    for number, (patient, train, held_out) in enumerate(folds, 1):
        if should_stop():
            break
        yield Fold(number, len(folds))
        scores[patient] = {}

        def look(step: int, network: CMUNet, of=scores[patient], at=held_out) -> None:
            if score is not None:
                of[step] = score(network, at)

        training = finetune(
            start(),
            frames.subset(train),
            config,
            validation=frames.subset(held_out),
            companion=companion,
            device=device,
            look=look,
            should_stop=should_stop,
        )
        curve: dict[int, Validated] = {}
        for event in training:
            if isinstance(event, Validated):
                curve[event.step] = event
            elif isinstance(event, Step):
                # The trainings to come, this one's length each, are awaited too.
                each = event.seconds + event.seconds_left
                to_come = (len(folds) + 1 - number) * each
                yield replace(event, seconds_left=event.seconds_left + to_come)
            elif isinstance(event, Note):
                yield event
        if curve:
            curves.append(curve)
            best = max(e.dice for e in curve.values())
            yield Note(f"Fold {number} of {len(folds)}: best Dice {best:.3f}.")
    if not curves:
        return ChosenSteps(config.steps or default_steps(len(frames)), None, None, None)
    common = sorted(set.intersection(*(set(c) for c in curves)))
    if not common:
        # A time budget gave each fold another length: their last looks are compared.
        common = [min(max(c) for c in curves)]
        curves = [{common[0]: c[max(c)]} for c in curves]
        scores = {p: {common[0]: s[max(s)]} for p, s in scores.items() if s}
    means = {step: float(np.mean([c[step].dice for c in curves])) for step in common}
    best_step = max(means, key=means.__getitem__)
    dices = [c[best_step].dice for c in curves]
    chosen = ChosenSteps(
        best_step,
        means[best_step],
        float(np.mean([c[best_step].cldice for c in curves])),
        bootstrap_interval(dices),
        {p: s[best_step] for p, s in scores.items() if best_step in s},
    )
    for step in common:
        low, high = bootstrap_interval([c[step].dice for c in curves])
        cl = float(np.mean([c[step].cldice for c in curves]))
        yield Validated(step, means[step], low, high, cl, step == best_step)
    return chosen
