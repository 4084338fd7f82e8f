"""One step of fine-tuning: drawing a batch, its loss, the averaged network."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.model.device import is_out_of_memory, training_autocast
from napari_cmunet.training.augment import augment
from napari_cmunet.training.dataset import REVIEWED, SKELETON, TARGET, LabelledFrames
from napari_cmunet.training.losses import segmentation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.training.loop import FinetuneConfig

BATCH, SMALL_BATCH = 8, 4
"""Views in a step, and where time is short.

From ``cmunet-ssl`` with 18 labels, Dice after 76 steps of 8 views was 0.833 and 0.840
(draws 2 and 3), of 4 views 0.832 and 0.835; in three minutes, with 4 views 0.832, with
8 views and so fewer steps 0.770 (draw 2, two cores, the latter beside other work).
"""

LEAST_WARMUP = 12
"""Steps of warm-up, if there is one at all."""


class Trainer:
    """Network, optimiser, averaged network and the drawing of batches.

    Parameters
    ----------
    network : CMUNet
        Trained in place.
    train : LabelledFrames
    auxiliary : LabelledFrames or None
        Mixed into each batch.
    config : FinetuneConfig
    device : torch.device
    """

    def __init__(
        self,
        network: CMUNet,
        train: LabelledFrames,
        auxiliary: LabelledFrames | None,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.network = network.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.kept = wise_ft_alpha(config.wise_ft_prior, len(train))
        self.start = copy.deepcopy(self.average.state_dict()) if self.kept else {}
        self.train, self.auxiliary = train.to(device), None
        if auxiliary is not None:
            self.auxiliary = auxiliary.to(device)
        self.batch, self.parts = config.batch or BATCH, 1
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
        self.drawn: tuple[torch.Tensor, torch.Tensor] | None = None

    def step(self, step: int, steps: int) -> torch.Tensor:
        """One optimiser step; returns the loss, still on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * (
                1.0
                if self.config.constant_rate
                else schedule(step, steps, self.config.warmup)
            )
        self.network.train()
        if self.config.frozen_batchnorm:
            for module in self.network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        self.optimiser.zero_grad(set_to_none=True)
        # Kept until the step is made: it is the same one in smaller parts.
        self.drawn = self.drawn or self._draw()
        loss = self._backward(*self.drawn)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self._update_average(step)
        self.drawn = None
        # A gradient that is no number spoils the weights, though the loss still is one.
        return torch.where(norm.isfinite(), loss, norm)

    def _backward(self, frames: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """The batch's loss, its gradients left in the network's parameters."""
        if self.parts == 1:
            loss = self._loss(self._logits(frames), maps)
            loss.backward()
            return loss.detach()
        # The loss is not a sum over frames, so that its gradient at all the logits
        # comes first; the activations of one part at a time lie in memory.
        with torch.no_grad(), _statistics_kept(self.network):
            parts = [self._logits(x).float() for x in frames.chunk(self.parts)]
        logits = torch.cat(parts).requires_grad_()
        loss = self._loss(logits, maps)
        (gradient,) = torch.autograd.grad(loss, logits)
        for x, of_part in zip(
            frames.chunk(self.parts), gradient.chunk(self.parts), strict=True
        ):
            part = self._logits(x)
            part.backward(of_part.to(part.dtype))
        return loss.detach()

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with training_autocast(self.device):
            return self.network(x.to(memory_format=torch.channels_last))

    def _loss(self, logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        target = maps[:, TARGET : TARGET + 1]
        reviewed = (maps[:, REVIEWED : REVIEWED + 1] > 0.99).float()
        centre = (maps[:, SKELETON : SKELETON + 1] > 0.5).float()
        return segmentation_loss(
            logits,
            target,
            reviewed,
            centre,
            skeleton_weight=self.config.skeleton_weight,
        )

    def _draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of augmented views."""
        n_companion = 0
        if self.auxiliary is not None:
            n_companion = round(self.batch * self.config.auxiliary_share)
        at = self._next(self.batch - n_companion)
        parts = [self._take(self.train, at)]
        if n_companion:
            at = self.order.integers(len(self.auxiliary), size=n_companion)
            parts.append(self._take(self.auxiliary, at))
        x, maps = (torch.cat(p) for p in zip(*parts, strict=True))
        config = self.config
        return augment(x, maps, config.augmentation, self.random, config.crop)

    def _take(
        self, source: LabelledFrames, indices: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.as_tensor(np.asarray(indices, np.int64), device=self.device)
        return source.frames[at], source.maps_at(at)

    def _next(self, n: int) -> list[int]:
        """Every frame once, in random order, before any comes again."""
        while len(self.queue) < n:
            self.queue.extend(self.order.permutation(len(self.train)).tolist())
        taken, self.queue = self.queue[:n], self.queue[n:]
        return taken

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        # Over the last third of the steps so far, until that is longer than ``ema``.
        keep = min(self.config.ema, (1 + step) / (4 + step))
        source = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                new = source[name]
                if self.kept:
                    new = torch.lerp(new, self.start[name], self.kept)
                value.lerp_(new, 1 - keep)
            else:
                value.copy_(source[name])

    def take_small_batches(self) -> bool:
        """Whether batches are smaller from now on: if they may be, and were not yet."""
        if self.config.batch or self.batch <= SMALL_BATCH:
            return False
        self.batch = SMALL_BATCH
        self.parts = min(self.parts, self.batch)
        return True

    def try_smaller(self, exc: BaseException) -> bool:
        """After running out of memory: the same batch in more, smaller parts."""
        if not is_out_of_memory(exc) or self.parts >= self.batch:
            return False
        self.parts = min(self.parts * 2, self.batch)
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True


def wise_ft_alpha(wise_ft_prior: float, labels: int) -> float:
    """Share of the start in a model whose start counts for ``wise_ft_prior`` labels."""
    return wise_ft_prior / (wise_ft_prior + labels)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a half cosine to 0.

    However short the training, ``warmup`` takes some steps: Adam's first ones go as
    far in every weight as the rate allows, and would undo what a start has learned.
    """
    rise = max(LEAST_WARMUP if warmup else 1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


@contextlib.contextmanager
def _statistics_kept(network: torch.nn.Module) -> Iterator[None]:
    """Forward passes inside leave the running statistics of BatchNorm alone."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
