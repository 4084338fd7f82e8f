"""One step of pre-training: draw a batch, backpropagate, update."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.device import (
    is_out_of_memory,
    training_dtype,
    training_layout,
)
from napari_cmunet.pretraining.augment import (
    copy_paste_pairs,
    draw,
    jitter_intensity,
    paste_arteries,
    shift_affine,
    unshift_maps,
    view_affine,
    warp,
)
from napari_cmunet.pretraining.distributed import share_batch_statistics
from napari_cmunet.pretraining.moco import PretrainNetworks, info_nce
from napari_cmunet.pretraining.patch_masking import (
    patch_mask,
    reconstruction_loss,
    to_pixels,
    vesselness,
)
from napari_cmunet.training.augment import NO_AUGMENTATION
from napari_cmunet.training.dataset import REVIEWED, SKELETON, TARGET
from napari_cmunet.training.losses import segmentation_loss
from napari_cmunet.training.optim import WarmupCosineLR, adamw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.pretraining.augment import Draws
    from napari_cmunet.pretraining.config import PretrainConfig, UnlabelledFrames
    from napari_cmunet.pretraining.distributed import ProcessGroup
    from napari_cmunet.training.dataset import LabelledFrames

# Purposes of random numbers: no two share their seeds.
ORDER, FRAME, PHANTOM_CHOICE, PHANTOM, MEASURE, RECALIBRATE = range(1, 7)

FRAME_VIEWS = replace(NO_AUGMENTATION, zoom=(0.85, 1.3))
PHANTOM_VIEWS = replace(
    FRAME_VIEWS,
    zoom=(0.8, 1.35),
    rotation=30,
    contrast=0.25,
    brightness=0.25,
    noise=0.3,
)

CONFIDENT_ARTERY, CONFIDENT_BACKGROUND = 0.9, 0.4
"""Probabilities from which, and to which, the momentum target is confident.

A network that learned from phantoms takes too much for artery.
"""

MOST_ON_DEVICE = 2**33
"""Bytes of frames that are kept on the device; more stay in main memory."""


class PseudoLabels(NamedTuple):
    """Views of real frames with pseudo-labels of the momentum target.

    Parameters
    ----------
    views : float tensor (B, 1, H, W)
    artery, confident : float tensors (B, 1, H, W)
        See :func:`confident_labels`.
    """

    views: torch.Tensor
    artery: torch.Tensor
    confident: torch.Tensor


class PretrainStepper:
    """Networks, optimiser and frames of a pre-training."""

    def __init__(
        self,
        frames: UnlabelledFrames,
        learn: list[int],
        phantoms: LabelledFrames | None,
        config: PretrainConfig,
        group: ProcessGroup,
        start: CMUNet | None = None,
    ) -> None:
        self.config, self.group, self.device = config, group, group.device
        self.goes_on = start is not None
        self.learn = np.asarray(learn)
        self.groups = frames.groups.numpy()
        self.frames = _place(frames.frames, self.device)
        self.phantoms = phantoms.to(self.device) if phantoms is not None else None
        self.side = config.crop or frames.side
        self.target_noise = replace(NO_AUGMENTATION, noise=config.noise)
        self.dtype = precision(config, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            networks = PretrainNetworks(
                config.width, segments=phantoms is not None, start=start
            )
        share_batch_statistics(networks, group)
        self.layout = training_layout(self.device)
        networks.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.networks = networks
        self.trained = {
            name: p for name, p in self.networks.named_parameters() if p.requires_grad
        }
        self.consistent = phantoms is not None and config.consistency_weight > 0
        self.steps_per_epoch = len(learn) // config.batch_frames
        self.optimiser = adamw(
            self.trained.values(),
            config.learning_rate * min(3.0, math.sqrt(config.batch / 16)),
            config.weight_decay,
            betas=(0.9, 0.95),
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.steps = config.epochs * self.steps_per_epoch
        self.schedule = WarmupCosineLR(self.optimiser, self.steps, config.warmup)
        self._order: tuple[int, np.ndarray] = (-1, self.learn)

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        return self.optimiser.param_groups[0]["lr"]

    def momentum(self, step: int, progress: float) -> float:
        """Momentum of the target: up to 1 by half a cosine.

        Less in a short run, so that the target keeps at most 1/e of its first weights.
        Without a start it is at first the average of the last third of the steps.
        """
        least = self.config.momentum
        if progress and step:  # together they tell how many steps there will be
            least = max(0.0, min(least, 1 - 2 * progress / step))
        rise = (1 - math.cos(math.pi * min(progress, 1.0))) / 2
        momentum = least + (1 - least) * rise
        return momentum if self.goes_on else min(momentum, (1 + step) / (4 + step))

    def step(self, epoch: int, index: int, progress: float) -> torch.Tensor:
        """Make a step; returns its losses and other figures.

        Parameters
        ----------
        epoch, index : int
            The step is the ``index``-th of the epoch, from 0.
        progress : float
            Share of the run that is done, for the schedules.

        Returns
        -------
        float tensor (6,)
            Loss, its three parts, the contrast's accuracy and the gradient's norm,
            of all processes' frames, still on the device.
        """
        self.schedule.go_to(progress * self.steps)  # time may be ahead of the steps
        self.networks.train()
        self.optimiser.zero_grad(set_to_none=True)
        parts, pseudo = self._learn_from_frames(epoch, index)
        if self.phantoms is not None:
            parts[3] = self._learn_from_phantoms(epoch, index, pseudo)
            parts[0] = parts[0] + self.config.segmentation_weight * parts[3]
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        measured = torch.stack(parts).detach()
        self.group.all_reduce_mean([*gradients, measured])
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip)
        self.optimiser.step()
        self.networks.follow(self.momentum(self._number(epoch, index), progress))
        return torch.cat([measured, norm.detach().float()[None]])

    def _learn_from_frames(
        self, epoch: int, index: int
    ) -> tuple[list[torch.Tensor], PseudoLabels | None]:
        config, group = self.config, self.group
        chosen = self._frames_of(epoch, index)
        part = group.part(len(chosen))
        draws, views, moved, mask = self._draw_views(epoch, chosen[part])
        masked = views * ~to_pixels(mask, config.patch)
        groups = torch.from_numpy(self.groups[chosen]).to(self.device)
        own = torch.arange(part.start, part.stop, device=self.device)
        with self.autocast():
            targets, logit = self.networks.target(
                moved.contiguous(memory_format=self.layout),
                segments=self.consistent,
            )
            online = self.networks.online(masked.contiguous(memory_format=self.layout))
        rebuilt = reconstruction_loss(online.pixels, views, mask, config.patch)
        contrast, accuracy = info_nce(
            online.embedding, group.all_gather(targets), own, groups, config.temperature
        )
        loss = rebuilt + config.contrast_weight * 2 * config.temperature * contrast
        pseudo = None
        if logit is not None:
            artery, confident = confident_labels(
                *unshift_maps(logit, draws, config.shift)
            )
            pseudo = PseudoLabels(views, artery, confident)
            consistency = _each_frame(
                online.logits, artery, confident, artery, skeleton_weight=0
            )
            loss = loss + config.consistency_weight * consistency
        loss.backward()
        nothing = torch.zeros((), device=self.device)
        parts = [p.detach() for p in (loss, rebuilt, contrast, nothing, accuracy)]
        return parts, pseudo

    def _learn_from_phantoms(
        self, epoch: int, index: int, pseudo: PseudoLabels | None
    ) -> torch.Tensor:
        """The loss, without its weight."""
        config = self.config
        assert self.phantoms is not None
        random = np.random.default_rng([config.seed, PHANTOM_CHOICE, epoch, index])
        chosen = random.integers(len(self.phantoms), size=config.batch_phantoms)
        part = self.group.part(len(chosen))
        keys = [
            (config.seed, PHANTOM, epoch, index, slot)
            for slot in range(part.start, part.stop)
        ]
        at = torch.from_numpy(chosen[part]).to(self.device)
        stack = torch.cat(
            [self.phantoms.frames[at].float(), self.phantoms.maps_at(at)], 1
        )
        draws = draw(keys)
        theta = view_affine(draws, PHANTOM_VIEWS, stack.shape[-1], self.side)
        views, maps = warp(stack, theta, self.side).split([1, len(stack[0]) - 1], 1)
        if pseudo is not None and config.copy_paste:
            # A number that would move the view, as phantoms' are not.
            chance = torch.from_numpy(draws.uniform[:, 4]).float()
            step = self._number(epoch, index)
            self._copy_paste(views, maps, part, chance, pseudo, step)
        views = jitter_intensity(views, draws, PHANTOM_VIEWS)
        with self.autocast():
            logits = self.networks.segment(views.contiguous(memory_format=self.layout))
        target = maps[:, TARGET : TARGET + 1]
        seen = (maps[:, REVIEWED : REVIEWED + 1] > 0.99).float()
        centre = (maps[:, SKELETON : SKELETON + 1] > 0.5).float()
        loss = _each_frame(logits, target, seen, centre)
        (loss * config.segmentation_weight).backward()
        return loss.detach()

    def _copy_paste(
        self,
        views: torch.Tensor,
        maps: torch.Tensor,
        part: slice,
        chance: torch.Tensor,
        pseudo: PseudoLabels,
        step: int,
    ) -> None:
        """Paste some of the phantoms' trees into real frames, in place.

        Reviewed are the tree, and where the momentum target is confident that the
        frame has no artery of its own.
        """
        config = self.config
        at, frame = copy_paste_pairs(
            config.copy_paste, part, config.batch_phantoms, config.batch_frames, step
        )
        tree = maps[at, TARGET] * (maps[at, REVIEWED] > 0.99)
        free = pseudo.confident[frame, 0] * (1 - pseudo.artery[frame, 0])
        dark = chance[at].to(views.device)
        views[at] = paste_arteries(pseudo.views[frame], tree[:, None], dark)
        maps[at, TARGET] = tree
        maps[at, REVIEWED] = torch.maximum((tree > 0.5).float(), free)

    def _number(self, epoch: int, index: int) -> int:
        """Number of a step in the whole run, from 0."""
        return epoch * self.steps_per_epoch + index

    def _frames_of(self, epoch: int, index: int) -> np.ndarray:
        """Indices of the frames of a step; each epoch has its own order."""
        if self._order[0] != epoch:
            random = np.random.default_rng([self.config.seed, ORDER, epoch])
            self._order = (epoch, random.permutation(self.learn))
        n = self.config.batch_frames
        return self._order[1][index * n : (index + 1) * n]

    def _draw_views(
        self, epoch: int, chosen: np.ndarray
    ) -> tuple[Draws, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Random draws, online view, target view, and patch mask."""
        config, side = self.config, self.side
        rows = side // config.patch
        keys = [(config.seed, FRAME, epoch, int(i)) for i in chosen]
        draws = draw(keys, rows * rows)
        stack = self.take(chosen)
        theta = view_affine(draws, FRAME_VIEWS, stack.shape[-1], side)
        views = warp(stack, theta, side)
        moved = warp(stack, shift_affine(theta, draws, config.shift, side), side)
        moved = jitter_intensity(moved, draws, self.target_noise)
        vessels = None
        if config.guidance:
            # Half the resolution suffices for patches.
            half = vesselness(nn.functional.avg_pool2d(views, 2), (1.0, 2.0))
            vessels = nn.functional.avg_pool2d(half, config.patch // 2)
        noise = torch.from_numpy(draws.patches).to(self.device)
        mask = patch_mask(
            noise, (rows, rows), config.mask_ratio, vessels, config.guidance
        )
        return draws, views, moved, mask

    def autocast(self) -> torch.autocast:
        """Context in which forward passes run in the configured precision."""
        return torch.autocast(
            self.device.type, self.dtype, enabled=self.dtype != torch.float32
        )

    def take(self, chosen: np.ndarray | list[int]) -> torch.Tensor:
        """Prepared frames, on the device."""
        at = torch.as_tensor(np.asarray(chosen), device=self.frames.device)
        return self.frames[at].to(self.device)


def confident_labels(
    logit: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Confident artery, and where the target is confident either way.

    Parameters
    ----------
    logit, seen : tensors (B, 1, H, W)

    Returns
    -------
    artery, confident : float tensors (B, 1, H, W)
    """
    probability = torch.sigmoid(logit)
    artery = (probability > CONFIDENT_ARTERY).float()
    return artery, seen * torch.maximum(
        artery, (probability < CONFIDENT_BACKGROUND).float()
    )


def _each_frame(*maps: torch.Tensor, skeleton_weight: float = 0.5) -> torch.Tensor:
    """Mean segmentation loss; the same however many processes share the frames.

    Parameters
    ----------
    logits, target, reviewed, skeleton : tensors (B, ..., H, W)
    """
    each = zip(*(m.split(1) for m in maps), strict=True)
    return torch.stack(
        [segmentation_loss(*frame, skeleton_weight=skeleton_weight) for frame in each]
    ).mean()


def precision(config: PretrainConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where it is fast, else float32.

    Half precision (older CUDA cards, MPS) would need its losses scaled to train.
    """
    if config.precision == "float32":
        return torch.float32
    return training_dtype(device)


@contextmanager
def failures(device: torch.device) -> Iterator[None]:
    """Turn errors of torch into a TrainingError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        if is_out_of_memory(exc):
            raise TrainingError(
                f"Not enough memory on {device.type} for this batch. Choose a "
                "smaller --batch, --crop or --width and start in a new folder: the "
                "batch cannot be split, since each frame is contrasted with all others."
            ) from exc
        raise TrainingError(
            f"Pre-training failed on {device.type}: {text}. Go on from the last "
            "checkpoint with --resume."
        ) from exc


def _place(frames: torch.Tensor, device: torch.device) -> torch.Tensor:
    small = frames.numel() * frames.element_size() <= MOST_ON_DEVICE
    return frames.to(device) if small else frames
