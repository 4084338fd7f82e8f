"""Optimiser, learning-rate schedule and weight averaging of every training."""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]


class AdamW(torch.optim.AdamW):
    """AdamW whose methods do not import torch's compiler, which takes seconds."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def adamw(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    *,
    fused: bool | None = None,
) -> AdamW:
    """AdamW with weight decay on kernels, not on biases and normalisation."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {
            "params": [p for p in trained if p.ndim > 1],
            "weight_decay": weight_decay,
        },
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate, betas=betas, fused=fused)


class WarmupCosineLR(LRScheduler):
    """Linear warm-up, then half a cosine down to 0.

    Parameters
    ----------
    total_steps : int
        May be changed while training.
    warmup : float
        Share of the steps.
    least_warmup : int
        Steps that the warm-up takes at least. The first steps of Adam change each
        weight by the full learning rate, whatever its gradient.
    constant : bool
        Keep the learning rate as it is.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        warmup: float,
        least_warmup: int = 1,
        *,
        constant: bool = False,
    ) -> None:
        self.total_steps, self.warmup = total_steps, warmup
        self.least_warmup, self.constant = least_warmup, constant
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Learning rate of each parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def factor(self, step: float) -> float:
        """Share of the peak at a step, from 0; ``step`` need not be whole."""
        if self.constant:
            return 1.0
        rise = max(self.least_warmup, round(self.total_steps * self.warmup))
        if step < rise:
            return (step + 1) / rise
        done = (step - rise) / max(1, self.total_steps - rise)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def go_to(self, step: float) -> None:
        """Set the learning rate of a step, for schedules that follow the time."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * self.factor(step)


def averaged_model(network: nn.Module, decay: float) -> AveragedModel:
    """Average of a network's weights, to be updated after each optimiser step.

    An exponential moving average, but never over more than the last third of the
    steps. The weights at the time of the call count as the first.
    """

    def update(averaged: Tensors, current: Tensors, _: object) -> None:
        if averaged[0].is_floating_point():
            steps = int(model.n_averaged)
            keep = min(decay, steps / (steps + 3))
            torch._foreach_lerp_(averaged, current, 1 - keep)
        else:
            torch._foreach_copy_(averaged, current)

    model = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    model.update_parameters(network)
    return model.eval().requires_grad_(False)


def interpolate(
    weights: dict[str, torch.Tensor], start: dict[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """Weight-space ensemble of two networks, ``alpha`` of it ``start`` (WiSE-FT)."""
    return {
        name: torch.lerp(value, start[name], alpha)
        if value.is_floating_point()
        else value
        for name, value in weights.items()
    }


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
    """Every batch normalisation layer."""
    kinds = nn.BatchNorm2d | nn.SyncBatchNorm
    return [m for m in network.modules() if isinstance(m, kinds)]


@contextlib.contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Forward passes inside leave the running statistics of BatchNorm unchanged."""
    layers = batch_norms(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
