"""Few-shot fine-tuning: one loop that the command line, tests and window share."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.errors import NotANumberError, OutOfMemoryError, TrainingError
from napari_cmunet.model.device import is_out_of_memory, training_autocast
from napari_cmunet.model.network import STRIDE, artery_logit
from napari_cmunet.training.augment import Augmentation
from napari_cmunet.training.dataset import REVIEWED, TARGET, WHOLE, LabelledFrames
from napari_cmunet.training.events import (
    Event,
    Finished,
    Note,
    Started,
    Step,
    Validated,
)
from napari_cmunet.training.metrics import bootstrap_interval, cldice, dice
from napari_cmunet.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_cmunet.model.network import CMUNet


RANDOM_RATE = 2e-3
"""Peak learning rate that suits random weights."""

WISE_FT_PRIOR = 2.0
"""``wise_ft_prior`` that suits a start which already segments arteries."""


@dataclass(frozen=True)
class FinetuneConfig:
    """One training, as far as it can be chosen.

    Parameters
    ----------
    steps : int
        Optimiser steps; 0 chooses by the number of labels (:func:`default_steps`).
    batch : int
        Views in a step; 0: :data:`~napari_cmunet.training.trainer.BATCH`, or fewer where
        ``minutes`` would not suffice for all steps.
    learning_rate : float
        Peak, reached after ``warmup`` of the steps, then down to 0 by cosine. The
        default suits a pre-trained start, :data:`RANDOM_RATE` a random one. From
        ``cmunet-ssl`` and 18 labels 5e-4 gave a Dice of 0.77 after 25 steps, where
        2e-3 had unlearned at first (0.69); in the end they were alike.
    constant_rate : bool
        No warm-up and no cosine; to compare with recipes that have none.
    weight_decay : float
        AdamW's, on convolution kernels alone.
    ema : float
        Share of the past in the averaged model, at each step, once there have been
        enough steps; before that the average is over the last third of them. From
        ``cmunet-ssl`` with 18 labels that gave a Dice of 0.8166, over the last tenth
        0.8140 (one draw, the same training).
    wise_ft_prior : float
        How many labels the weights that training starts from count for in the averaged
        model: it holds ``wise_ft_prior / (wise_ft_prior + labels)`` of them (Wortsman et al.
        2021, arXiv 2109.01903). 0 for weights that do not segment arteries yet, else
        :data:`WISE_FT_PRIOR`: one label alone makes a model for that one frame.
    skeleton_weight : float
        Weight of skeleton recall beside Dice and cross-entropy.
    frozen_batchnorm : bool
        Keep the running statistics of the weights that training starts from: with
        a few frames, batch statistics describe those frames and little else.
    auxiliary_share : float
        Share of each batch that is drawn from the companion frames, if any.
    validate_every : int
        Steps between two looks at the validation frames.
    patience : int
        Looks without a better Dice after which training ends; 0: never.
    minutes : float, optional
        Time budget. The schedule is shortened to fit it, from the measured time of
        the steps so far; the result then depends on the machine.
    crop : int, optional
        Side of the training views, in pixels of the labels' grid; the whole of it by
        default.
    seed : int
    """

    steps: int = 0
    batch: int = 0
    learning_rate: float = 5e-4
    warmup: float = 0.05
    constant_rate: bool = False
    weight_decay: float = 1e-2
    ema: float = 0.99
    wise_ft_prior: float = 0.0
    skeleton_weight: float = 0.5
    frozen_batchnorm: bool = False
    auxiliary_share: float = 0.5
    validate_every: int = 50
    patience: int = 0
    minutes: float | None = None
    crop: int | None = None
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.batch < 0 or self.validate_every < 1 or self.steps < 0:
            raise TrainingError(
                "The validation interval must be at least 1, batch and steps at least "
                "0."
            )
        if self.crop is not None and (self.crop < STRIDE or self.crop % STRIDE):
            raise TrainingError(f"The crop must be a multiple of {STRIDE}.")


@dataclass(frozen=True)
class FinetuneResult:
    """What a training leaves.

    Parameters
    ----------
    weights : dict of str to tensor
        The best averaged weights by validation; the last ones without validation.
    best_step, steps : int
    dice, cldice : float or None
        On the validation frames, of these weights.
    reason : str
        See :class:`napari_cmunet.training.events.Finished`.
    wise_ft_alpha : float
        Share of the weights that training started from in these.
    left_out : dict of str to float pairs
        With few patients: Dice and clDice of each, by a network that was trained
        without that patient, on the image's own grid.
    """

    weights: dict[str, torch.Tensor]
    best_step: int
    steps: int
    dice: float | None
    cldice: float | None
    reason: str
    wise_ft_alpha: float = 0.0
    left_out: dict[str, tuple[float, float]] = field(default_factory=dict)


def finetune(
    network: CMUNet,
    train: LabelledFrames,
    config: FinetuneConfig,
    *,
    validation: LabelledFrames | None = None,
    auxiliary: LabelledFrames | None = None,
    device: torch.device | str = "cpu",
    receipt: str = "",
    look: Callable[[int, CMUNet], None] = lambda step, network: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, FinetuneResult]:
    """Train a network on labelled frames.

    Parameters
    ----------
    network : CMUNet
        With the weights to start from. It is trained in place; use the result's
        weights, not the network's.
    train : LabelledFrames
    config : FinetuneConfig
    validation : LabelledFrames, optional
        Frames of other patients, to choose the best step by.
    auxiliary : LabelledFrames, optional
        Fully labelled frames mixed into each batch, such as phantoms.
    device : torch device
    receipt : str
        What was loaded, for the first event.
    look : callable
        Called with the step and the averaged network whenever that was validated.
    should_stop : callable
        Asked before each step; training then ends with the best so far.

    Yields
    ------
    Event

    Returns
    -------
    FinetuneResult

    Raises
    ------
    TrainingError
        On a loss that is not a number, memory that does not suffice even for a
        batch of one, or a device that is lost.
    """
    _check(train, validation)
    device = torch.device(device)
    try:
        trainer = Trainer(network, train, auxiliary, config, device)
        return (
            yield from _train(
                trainer, train, config, validation, device, receipt, look, should_stop
            )
        )
    except (RuntimeError, MemoryError) as exc:  # torch: memory, lost devices
        kind = OutOfMemoryError if is_out_of_memory(exc) else TrainingError
        raise kind(_explain(exc, device)) from exc


def _train(
    trainer: Trainer,
    train: LabelledFrames,
    config: FinetuneConfig,
    validation: LabelledFrames | None,
    device: torch.device,
    receipt: str,
    look: Callable[[int, CMUNet], None],
    should_stop: Callable[[], bool],
) -> Generator[Event, None, FinetuneResult]:
    began = time.monotonic()
    most_steps = steps = config.steps or default_steps(len(train))
    yield Started(
        steps=steps,
        labels=len(train),
        patients=len(set(train.patients)),
        validation_labels=len(validation) if validation else 0,
        validation_patients=len(set(validation.patients)) if validation else 0,
        device=str(device),
        receipt=receipt,
    )
    best: dict[str, torch.Tensor] | None = None
    best_dice, best_cldice, best_step, looks_since = None, None, 0, 0
    reason, step, losses, last_told = "done", 0, [], began
    timed_from, timed_step = began, 0
    while step < steps:
        if should_stop():
            reason = "stopped"
            break
        try:
            losses.append(trainer.step(step, steps))
        except (RuntimeError, MemoryError) as exc:
            if not trainer.try_smaller(exc):
                raise
            smaller = True
        else:
            smaller = False
        if smaller:  # told out here, where the error no longer holds memory
            yield Note(
                f"Out of memory: batches are learned from in {trainer.parts} parts "
                "from now on."
            )
            continue
        step += 1
        now = time.monotonic()
        if step == 3:
            timed_from, timed_step = now, step  # the first steps compile and allocate
        each = (now - timed_from) / max(step - timed_step, 1)
        if config.minutes and (step in (5, 12) or step % 25 == 0):
            # Planned anew as the machine gets busier or freer, so that the learning
            # rate always comes down before the time is up.
            fit = int(0.95 * (config.minutes * 60 - (now - began)) / max(each, 1e-9))
            before = trainer.batch
            if step + fit < most_steps and trainer.take_small_batches():
                fit = fit * before // trainer.batch
                timed_from, timed_step = now, step
            steps = max(step + 1, min(most_steps, step + fit))
        if now - last_told > 0.25 or step == steps:
            mean = _mean_loss(losses, step)
            left = each * (steps - step)
            if config.minutes:
                left = min(left, max(0.0, config.minutes * 60 - (now - began)))
            yield Step(step, steps, mean, now - began, left)
            losses, last_told = [], now
        out_of_time = bool(config.minutes) and now - began > config.minutes * 60
        if validation and (
            step % config.validate_every == 0 or step == steps or out_of_time
        ):
            _mean_loss(losses, step)
            measured = measure(trainer.average, validation, device)
            look(step, trainer.average)
            better = best_dice is None or measured.dice > best_dice
            if better:
                best = _copy_weights(trainer.average)
                best_dice, best_cldice = measured.dice, measured.cldice
                best_step, looks_since = step, 0
            else:
                looks_since += 1
            yield Validated(
                step,
                measured.dice,
                *measured.interval,
                measured.cldice,
                better,
            )
            if config.patience and looks_since >= config.patience:
                reason = "early stop"
                break
        if out_of_time:
            reason = "time"
            break
    _mean_loss(losses, step)
    if best is None:
        best, best_step = _copy_weights(trainer.average), step
    yield Finished(reason, step, time.monotonic() - began, best_step, best_dice)
    return FinetuneResult(
        best, best_step, step, best_dice, best_cldice, reason, trainer.kept
    )


def _mean_loss(losses: list[torch.Tensor], step: int) -> float:
    """Mean of the losses since the last look; TrainingError if one is no number."""
    mean = float(torch.stack(losses).mean()) if losses else 0.0
    if not math.isfinite(mean):
        raise NotANumberError(
            f"The loss became {mean} at step {step}: the learning rate is too high for "
            "these labels, or a frame holds extreme values. Try again with a lower "
            "learning rate."
        )
    return mean


def default_steps(labels: int) -> int:
    """Optimiser steps that suit a number of labels: more labels, more steps.

    From pre-trained weights little is gained beyond: from ``cmunet-ssl``, 18 labels
    gave a Dice of 0.780 after 40 steps and 0.782 after 80 (mean of two draws).
    """
    return int(min(4000, 40 + 2 * labels))


@dataclass(frozen=True)
class Measured:
    """Mean Dice and clDice over frames, with the 95 % interval of Dice by patient."""

    dice: float
    interval: tuple[float, float]
    cldice: float


@torch.inference_mode()
def measure(
    network: CMUNet,
    frames: LabelledFrames,
    device: torch.device | str = "cpu",
    batch: int = 4,
) -> Measured:
    """Measure a network on labelled frames, on the network's grid.

    Unreviewed pixels are left out of both masks. Used to compare steps of one
    training; figures to quote come from the frames' own grid.
    """
    network.eval()
    device = torch.device(device)
    dices, cldices = [], []
    for i in range(0, len(frames), batch):
        x = frames.frames[i : i + batch].to(device, torch.float32)
        with training_autocast(device):
            logit = artery_logit(network(x.to(memory_format=torch.channels_last)))
        for found, maps in zip(
            (logit > 0).cpu(), frames.maps[i : i + batch].cpu(), strict=True
        ):
            seen, truth = (maps[[REVIEWED, TARGET]] > WHOLE // 2).numpy()
            a, b = found[0].numpy() & seen, truth & seen
            dices.append(dice(a, b))
            cldices.append(cldice(a, b))
    return Measured(
        float(np.mean(dices)),
        bootstrap_interval(dices, frames.patients),
        float(np.mean(cldices)),
    )


def _copy_weights(network: CMUNet) -> dict[str, torch.Tensor]:
    return {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}


def _check(train: LabelledFrames, validation: LabelledFrames | None) -> None:
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
                "validation; the Dice would be flattered. Put each patient on one side."
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
