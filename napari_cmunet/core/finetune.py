"""Few-shot fine-tuning: one loop that the command line, tests and window share."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.core.augment import Augmentation, augment
from napari_cmunet.core.device import fast_dtype
from napari_cmunet.core.events import Event, Finished, Started, Step, Validated
from napari_cmunet.core.labelled import REVIEWED, SKELETON, TARGET, LabelledFrames
from napari_cmunet.core.losses import artery_logit, segmentation_loss
from napari_cmunet.core.metrics import bootstrap_interval, cldice, dice
from napari_cmunet.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_cmunet.core.network import CMUNet


@dataclass(frozen=True)
class FinetuneConfig:
    """One training, as far as it can be chosen.

    Parameters
    ----------
    steps : int
        Optimiser steps; 0 chooses by the number of labels (:func:`default_steps`).
    batch : int
        Views in a step.
    learning_rate : float
        Peak, reached after ``warmup`` of the steps, then down to 0 by cosine.
    constant_rate : bool
        No warm-up and no cosine; to compare with recipes that have none.
    weight_decay : float
        AdamW's, on convolution kernels alone.
    ema : float
        Share of the past in the averaged model, at each step; it rises to this
        during the first steps.
    skeleton_weight : float
        Weight of skeleton recall beside Dice and cross-entropy.
    frozen_batchnorm : bool
        Keep the running statistics of the weights that training starts from: with
        a few frames, batch statistics describe those frames and little else.
    partial_labels : bool
        Unlabelled pixels that the model itself takes for artery are unknown, not
        background (for data sets that name main branches only).
    companion_share : float
        Share of each batch that is drawn from the companion frames, if any.
    validate_every : int
        Steps between two looks at the validation frames.
    patience : int
        Looks without a better Dice after which training ends; 0: never.
    minutes : float, optional
        Time budget. The schedule is shortened to fit it, from the measured time of
        the first steps.
    grid : int, optional
        Side of the training views; the labels' own grid by default.
    seed : int
    """

    steps: int = 0
    batch: int = 8
    learning_rate: float = 2e-3
    warmup: float = 0.05
    constant_rate: bool = False
    weight_decay: float = 1e-2
    ema: float = 0.99
    skeleton_weight: float = 0.5
    frozen_batchnorm: bool = False
    partial_labels: bool = False
    companion_share: float = 0.5
    validate_every: int = 50
    patience: int = 0
    minutes: float | None = None
    grid: int | None = None
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


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
        See :class:`napari_cmunet.core.events.Finished`.
    """

    weights: dict[str, torch.Tensor]
    best_step: int
    steps: int
    dice: float | None
    cldice: float | None
    reason: str


def finetune(
    network: CMUNet,
    train: LabelledFrames,
    config: FinetuneConfig,
    *,
    validation: LabelledFrames | None = None,
    companion: LabelledFrames | None = None,
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
    train : LabelledFrames
    config : FinetuneConfig
    validation : LabelledFrames, optional
        Frames of other patients, to choose the best step by.
    companion : LabelledFrames, optional
        Fully labelled frames mixed into each batch, such as phantoms.
    device : torch device
    receipt : str
        What was loaded, for the first event.
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
    began = time.monotonic()
    device = torch.device(device)
    trainer = _Trainer(network, train, companion, config, device)
    steps = config.steps or default_steps(len(train))
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
    timed_from = began
    while step < steps:
        if should_stop():
            reason = "stopped"
            break
        try:
            losses.append(trainer.step(step, steps))
        except RuntimeError as exc:  # torch: shapes, memory, lost devices
            if not trainer.try_smaller(exc):
                raise TrainingError(_explain(exc, device)) from exc
            continue
        step += 1
        if step == 3:
            timed_from = time.monotonic()  # the first steps compile and allocate
        if config.minutes and step == 8:
            each = (time.monotonic() - timed_from) / 5
            left = config.minutes * 60 - (time.monotonic() - began)
            steps = max(step + 1, min(steps, step + int(left * 0.95 / each)))
        now = time.monotonic()
        if now - last_told > 0.25 or step == steps:
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise TrainingError(
                    f"The loss became {mean} at step {step}: the learning rate is too "
                    "high for these labels, or a frame holds extreme values. Nothing "
                    "was replaced; try again with a lower learning rate."
                )
            speed = (now - timed_from) / max(step - 3, 1)
            yield Step(step, steps, mean, now - began, speed * (steps - step))
            losses, last_told = [], now
        out_of_time = bool(config.minutes) and now - began > config.minutes * 60
        if validation and (
            step % config.validate_every == 0 or step == steps or out_of_time
        ):
            measured = measure(trainer.averaged(), validation, device)
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
    if best is None:
        best, best_step = _copy_weights(trainer.averaged()), step
    yield Finished(reason, step, time.monotonic() - began, best_step, best_dice)
    return FinetuneResult(best, best_step, step, best_dice, best_cldice, reason)


def default_steps(labels: int) -> int:
    """Optimiser steps that suit a number of labels: more labels, more steps."""
    return int(min(4000, 250 + 12 * labels))


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
        with torch.autocast(device.type, fast_dtype(device)):
            logit = artery_logit(network(x.to(memory_format=torch.channels_last)))
        for found, maps in zip(
            (logit > 0).cpu(), frames.maps[i : i + batch].cpu(), strict=True
        ):
            seen = maps[REVIEWED].bool().numpy()
            a, b = found[0].numpy() & seen, maps[TARGET].bool().numpy() & seen
            dices.append(dice(a, b))
            cldices.append(cldice(a, b))
    return Measured(
        float(np.mean(dices)),
        bootstrap_interval(dices, frames.patients),
        float(np.mean(cldices)),
    )


class _Trainer:
    """Network, optimiser, average and the drawing of batches."""

    def __init__(
        self,
        network: CMUNet,
        train: LabelledFrames,
        companion: LabelledFrames | None,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.dtype = fast_dtype(device)
        self.network = network.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.train, self.companion = train.to(device), None
        if companion is not None:
            self.companion = companion.to(device)
        self.batch, self.parts = config.batch, 1
        kernels = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": kernels, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
        self.random = torch.Generator(device).manual_seed(config.seed)
        self.order = np.random.default_rng(config.seed)
        self.queue: list[int] = []

    def step(self, step: int, steps: int) -> torch.Tensor:
        """One optimiser step; returns the loss, still on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * (
                1.0
                if self.config.constant_rate
                else _schedule(step, steps, self.config.warmup)
            )
        self.network.train()
        if self.config.frozen_batchnorm:
            for module in self.network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        frames, maps = self._draw()
        for x, m in zip(frames.chunk(self.parts), maps.chunk(self.parts), strict=True):
            loss = self._loss(x, m) * (len(x) / len(frames))
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self._update_average(step)
        return total

    def _loss(self, x: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        target = (maps[:, TARGET : TARGET + 1] > 0.5).float()
        reviewed = (maps[:, REVIEWED : REVIEWED + 1] > 0.99).float()
        centre = (maps[:, SKELETON : SKELETON + 1] > 0.5).float()
        partial = maps[:, 3:4]
        with torch.autocast(self.device.type, self.dtype):
            logits = self.network(x.to(memory_format=torch.channels_last))
        if self.config.partial_labels:
            unsure = (torch.sigmoid(artery_logit(logits.detach())) > 0.5).float()
            reviewed = reviewed * (1 - partial * (1 - target) * unsure)
        return segmentation_loss(
            logits,
            target,
            reviewed,
            centre,
            skeleton_weight=self.config.skeleton_weight,
        )

    def _draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of augmented views; the fourth map says 'labels are partial'."""
        n_companion = 0
        if self.companion is not None:
            n_companion = round(self.batch * self.config.companion_share)
        parts = []
        for source, n, partial in (
            (self.train, self.batch - n_companion, 1),
            (self.companion, n_companion, 0),
        ):
            if not n:
                continue
            at = self._next(n) if partial else self.order.integers(len(source), size=n)
            at = torch.as_tensor(np.asarray(at), device=self.device)
            maps = source.maps[at].float()
            flag = torch.full_like(maps[:, :1], partial)
            parts.append((source.frames[at], torch.cat([maps, flag], 1)))
        x, maps = (torch.cat(p) for p in zip(*parts, strict=True))
        side = self.config.grid or x.shape[-1]
        return augment(x, maps, self.config.augmentation, self.random, (side, side))

    def _next(self, n: int) -> list[int]:
        """Every frame once, in random order, before any comes again."""
        while len(self.queue) < n:
            self.queue.extend(self.order.permutation(len(self.train)).tolist())
        taken, self.queue = self.queue[:n], self.queue[n:]
        return taken

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        keep = min(self.config.ema, (1 + step) / (10 + step))
        source = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(source[name], 1 - keep)
            else:
                value.copy_(source[name])

    def averaged(self) -> CMUNet:
        """The averaged network, in evaluation mode."""
        return self.average

    def try_smaller(self, exc: RuntimeError) -> bool:
        """After running out of memory: the same batch in more, smaller parts."""
        out_of_memory = isinstance(exc, torch.OutOfMemoryError) or (
            "memory" in str(exc).lower() and "alloc" in str(exc).lower()
        )
        if not out_of_memory or self.parts >= self.batch:
            return False
        self.parts = min(self.parts * 2, self.batch)
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a half cosine down to 0."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _copy_weights(network: CMUNet) -> dict[str, torch.Tensor]:
    return {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}


def _check(train: LabelledFrames, validation: LabelledFrames | None) -> None:
    if not len(train):
        raise TrainingError("There is no label to learn from.")
    if not (train.maps[:, TARGET] * train.maps[:, REVIEWED]).any():
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


def _explain(exc: RuntimeError, device: torch.device) -> str:
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if isinstance(exc, torch.OutOfMemoryError) or "memory" in text.lower():
        return (
            f"Not enough memory on {device.type} even for one frame at a time. Close "
            "other programs or choose the CPU."
        )
    return (
        f"Training failed on {device.type}: {text}. The labels are safe; start it "
        "again, on the CPU if it fails again."
    )
