"""Data-parallel pre-training in several processes, started by ``torchrun``.

The result equals that of one process at the same total batch, up to rounding: gradients
are averaged, and batch normalisation sees the whole batch.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import nn

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.device import choose_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, and the rank of this one."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Share of ``count`` items that this process takes."""
        if count % self.size:
            raise TrainingError(
                f"{count} frames cannot be shared evenly by {self.size} processes. "
                f"Choose a --batch that is a multiple of {self.size}, or of "
                f"{2 * self.size} with phantoms."
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def all_gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of all processes, in rank order; without gradient."""
        if self.size == 1:
            return rows.detach()
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def all_reduce_mean(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([t.reshape(-1).float() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(
            tensors, flat.split([t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(mean.view(tensor.shape))

    def agree_to_stop(self, stop: bool, elapsed: float) -> tuple[bool, float]:
        """Whether any process was asked to stop, and the elapsed time of rank 0."""
        if self.size == 1:
            return stop, elapsed
        asked = torch.tensor(float(stop), dtype=torch.float64)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        clock = torch.tensor(elapsed, dtype=torch.float64)
        dist.broadcast(clock, 0)
        return bool(asked), float(clock)

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            # Not a barrier: on CUDA it would claim the first GPU for everybody.
            dist.all_reduce(torch.zeros(1))

    def all_gather_rows(self, own: torch.Tensor) -> torch.Tensor:
        """Concatenate tensors of any lengths along their first axis."""
        if self.size == 1:
            return own
        parts: list = [None] * self.size
        dist.all_gather_object(parts, (tuple(own.shape), own.dtype))
        joined = []
        for rank, (shape, dtype) in enumerate(parts):
            part = own if rank == self.rank else torch.empty(shape, dtype=dtype)
            if part.numel():
                dist.broadcast(part.view(torch.uint8), rank)
            joined.append(part)
        return torch.cat(joined)

    def all_gather_objects(self, own: object) -> list:
        """One small object of each process, in rank order."""
        if self.size == 1:
            return [own]
        parts: list = [None] * self.size
        dist.all_gather_object(parts, own)
        return parts


@contextmanager
def process_group(device: str = "auto") -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; a single one without it.

    Parameters
    ----------
    device : str
        See :func:`napari_cmunet.model.device.choose_device`. On CUDA each process
        takes the GPU of its own number.
    """
    chosen = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup(0, 1, chosen)
        return
    backend = "gloo"
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl"
    # torch.distributed.nn must be imported by now: its default arguments would keep
    # the group, and gloo's threads could abort the process at its end.
    dist.init_process_group(backend)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def share_batch_statistics(network: nn.Module, group: ProcessGroup) -> None:
    """Let every batch normalisation inside see the batch of all processes."""
    if group.size == 1:
        return
    if group.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                shared = SharedBatchNorm2d(child.num_features)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes.

    ``torch.nn.SyncBatchNorm`` for the devices that it does not support. All batches
    have the same size.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` to the same shape and type."""
        if not self.training:
            return super().forward(x)
        size = dist.get_world_size()
        n = x.numel() // x.shape[1] * size
        wide = x.float()
        mean = _SumOverProcesses.apply(wide.sum((0, 2, 3))) / n
        centred = wide - mean.view(1, -1, 1, 1)
        var = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / n
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / max(n - 1, 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        y = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """Sum forward; the gradient of each summand is the sum of all gradients."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
