"""Self-supervised pre-training after CM-UNet (arXiv 2507.17779).

Masked reconstruction by the whole U-Net, and momentum contrast (MoCo) between the
encoder's features of the masked frame and those of a momentum encoder of the whole
frame, shifted and noised. Synthetic frames with known masks may be segmented as well.
No human label is used.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.device import describe_device
from napari_cmunet.model.network import parameter_count
from napari_cmunet.pretraining.checkpoint import read_state, restore, write_checkpoint
from napari_cmunet.pretraining.config import (
    PretrainConfig,
    UnlabelledFrames,
    check_choices,
    check_same_run,
    split,
)
from napari_cmunet.pretraining.distributed import ProcessGroup
from napari_cmunet.pretraining.result import (
    HELD_OUT_PHANTOMS,
    PretrainResult,
    finished_weights,
    held_out_error,
    phantom_dice,
    reconstructions,
)
from napari_cmunet.pretraining.step import PretrainStepper, failures
from napari_cmunet.training.events import (
    Event,
    PretrainEpoch,
    PretrainFinished,
    PretrainStarted,
    PretrainStep,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.training.dataset import LabelledFrames


class Pretraining:
    """A pre-training that can be run, evaluated in between, and resumed.

    Parameters
    ----------
    frames : UnlabelledFrames
        The same in every process.
    config : PretrainConfig
    phantoms : LabelledFrames, optional
        Frames with known masks, at the grid of ``frames``; some are kept for
        measuring.
    group : ProcessGroup, optional
        The processes that share the work; this one alone by default.
    checkpoint : Path, optional
        Where the state is written, at the end of epochs and within long ones.
    start : CMUNet, optional
        Whose weights the run begins with; random ones by default.
    resume : bool
        Resume from ``checkpoint`` if it exists; the result is as if the run had never
        been interrupted.

    Raises
    ------
    TrainingError
        If the frames are too few, or the checkpoint is of another run.
    ReadError
        If the checkpoint is damaged.
    """

    def __init__(
        self,
        frames: UnlabelledFrames,
        config: PretrainConfig,
        phantoms: LabelledFrames | None = None,
        group: ProcessGroup | None = None,
        checkpoint: Path | None = None,
        *,
        start: CMUNet | None = None,
        resume: bool = False,
    ) -> None:
        self.config, self.frames = config, frames
        self.group = group or ProcessGroup(0, 1, torch.device("cpu"))
        self.checkpoint = checkpoint
        check_choices(frames, config, phantoms, self.group)
        if start is not None and start.width != config.width:
            raise TrainingError(
                f"The model to start from has width {start.width}, not "
                f"{config.width}: leave out --width, or choose another --start."
            )
        self.learn, self.held = split(frames, config)
        self.unseen: LabelledFrames | None = None
        if phantoms is not None:
            keep = min(HELD_OUT_PHANTOMS, max(1, len(phantoms) // 4))
            self.unseen = phantoms.subset(range(keep))
            phantoms = phantoms.subset(range(keep, len(phantoms)))
        with failures(self.group.device):
            self.stepper = PretrainStepper(
                frames, self.learn, phantoms, config, self.group, start
            )
        self.step, self.elapsed, self.reason = 0, 0.0, ""
        self.history: list[PretrainEpoch] = []
        self._sums = [0.0] * 5
        self._pending: list[torch.Tensor] = []
        if resume and checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)
        self._resumed_elapsed, self._resumed_at = self.elapsed, time.monotonic()
        self._saved_at = time.monotonic()

    @property
    def steps(self) -> int:
        """Steps of the whole run, if time does not end it before."""
        return self.stepper.steps

    def run(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Train until the end, or until asked to stop, which saves the state.

        Yields
        ------
        Event

        Raises
        ------
        TrainingError
            On a loss that is not a number, too little memory, or a lost device.
        """
        per_epoch = self.stepper.steps_per_epoch
        yield PretrainStarted(
            step=self.step,
            steps=self.steps,
            frames=len(self.learn),
            held_out=len(self.held),
            phantoms=0 if self.stepper.phantoms is None else len(self.stepper.phantoms),
            parameters=parameter_count(self.stepper.networks.network),
            processes=self.group.size,
            device=describe_device(self.group.device),
        )
        began, began_step = time.monotonic(), self.step
        self._resumed_elapsed, self._resumed_at = self.elapsed, began
        self._saved_at = last_event = began
        reported: list[list[float]] = []
        while not self.reason:
            stop, self.elapsed = self.group.agree_to_stop(should_stop(), self._clock())
            progress = self._progress()
            if stop or progress >= 1:
                break
            epoch, index = divmod(self.step, per_epoch)
            with failures(self.group.device):
                self._pending.append(self.stepper.step(epoch, index, progress))
            self.step += 1
            now = time.monotonic()
            epoch_ends = index + 1 == per_epoch
            if now - last_event > 0.5 or epoch_ends:
                reported += self._drain()
                speed = (now - began) / (self.step - began_step)
                yield self._step_event(epoch, reported, speed)
                reported, last_event = [], now
            if epoch_ends:
                self._end_epoch(epoch)
                yield self.history[-1]
            old = time.monotonic() - self._saved_at
            limit = self.config.save_seconds
            if not epoch_ends:
                limit = max(limit, self.config.save_minutes * 60)
            if old >= limit:
                self._drain()
                self.save()
        if not self.reason:
            self._drain()
            done = self.step >= self.steps
            self.reason = "done" if done else "stopped" if stop else "time"
            self.save()
        per_epoch = self.stepper.steps_per_epoch
        yield PretrainFinished(
            self.reason, self.step // per_epoch, self.step, self.elapsed
        )

    def result(self) -> PretrainResult:
        """Result so far; training can go on after it."""
        with failures(self.group.device):
            weights = finished_weights(self.stepper, self.learn)
            error = held_out_error(self.stepper, self.held)
            unseen = self.unseen
            dice = phantom_dice(self.stepper, unseen) if unseen is not None else None
            examples = reconstructions(self.stepper, self.held)
        return PretrainResult(
            weights,
            tuple(self.history),
            examples,
            error,
            dice,
            self.reason or "unfinished",
            self.step,
            self.elapsed,
        )

    def save(self) -> None:
        """Write the checkpoint atomically, on rank 0."""
        self.elapsed = self._clock()
        self._saved_at = time.monotonic()
        if self.checkpoint is None or not self.group.is_main:
            return
        # A stopped run can be resumed.
        reason = "" if self.reason == "stopped" else self.reason
        state: dict[str, Any] = {
            "config": asdict(self.config),
            "digest": self.frames.digest,
            "step": self.step,
            "elapsed": self.elapsed,
            "reason": reason,
            "sums": self._sums,
            "history": [asdict(epoch) for epoch in self.history],
        }
        write_checkpoint(self.checkpoint, self.stepper, state)

    def _restore(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        check_same_run(state, self.config)
        if state["digest"] != self.frames.digest:
            raise TrainingError(
                "These are not the images that the run began with. Give the same "
                "ones to --resume it, or choose another output folder."
            )
        restore(checkpoint, self.stepper)
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.reason, self._sums = state["reason"], state["sums"]
        self.history = [PretrainEpoch(**values) for values in state["history"]]
        if self.reason == "time" and self._progress() < 1:
            self.reason = ""  # the time budget was raised

    def _clock(self) -> float:
        """Seconds of training, without the time between runs."""
        if self.reason:
            return self.elapsed
        return self._resumed_elapsed + time.monotonic() - self._resumed_at

    def _progress(self) -> float:
        by_steps = self.step / self.steps
        if not self.config.minutes:
            return by_steps
        return max(by_steps, self.elapsed / (60 * self.config.minutes))

    def _drain(self) -> list[list[float]]:
        """Losses since the last call; they are added to the sums of the epoch."""
        values = [v.tolist() for v in self._pending]
        self._pending = []
        for row in values:
            if not all(map(math.isfinite, row)):
                raise TrainingError(
                    f"The loss or its gradient became {_odd(row)} by step "
                    f"{self.step}: the learning rate is too high, or a frame holds "
                    "extreme values. The last checkpoint is from before; start anew "
                    "with a lower --learning-rate."
                )
            self._sums = [a + b for a, b in zip(self._sums, row[:5], strict=True)]
        return values

    def _step_event(
        self, epoch: int, reported: list[list[float]], speed: float
    ) -> PretrainStep:
        mean = [sum(column) / len(reported) for column in zip(*reported, strict=True)]
        self.elapsed = self._clock()
        left = speed * (self.steps - self.step)
        if self.config.minutes:
            left = min(left, max(0.0, 60 * self.config.minutes - self.elapsed))
        return PretrainStep(
            epoch=epoch,
            step=self.step,
            steps=self.steps,
            loss=mean[0],
            reconstruction=mean[1],
            contrast=mean[2],
            segmentation=mean[3],
            progress=min(1.0, self._progress()),
            seconds=self.elapsed,
            seconds_left=left,
        )

    def _end_epoch(self, epoch: int) -> None:
        with failures(self.group.device):
            error = held_out_error(self.stepper, self.held)
            unseen = self.unseen
            dice = phantom_dice(self.stepper, unseen) if unseen is not None else None
        mean = [total / self.stepper.steps_per_epoch for total in self._sums]
        self._sums = [0.0] * 5
        self.elapsed = self._clock()
        self.history.append(
            PretrainEpoch(
                epoch=epoch,
                step=self.step,
                loss=mean[0],
                reconstruction=mean[1],
                contrast=mean[2],
                segmentation=mean[3],
                accuracy=mean[4],
                held_out=error,
                phantom_dice=dice,
                learning_rate=self.stepper.learning_rate,
                seconds=self.elapsed,
            )
        )


def _odd(values: list[float]) -> float:
    """The first of some values that is no finite number."""
    return next(v for v in values if not math.isfinite(v))
