"""Tiny pre-trainings in a process of their own, to be killed or shared."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from napari_cmunet.pretraining.config import PretrainConfig, UnlabelledFrames
from napari_cmunet.pretraining.distributed import ProcessGroup, process_group
from napari_cmunet.pretraining.loop import Pretraining
from napari_cmunet.training.dataset import WHOLE, LabelledFrames

if TYPE_CHECKING:
    from pathlib import Path


def frames(count: int = 14, side: int = 32) -> UnlabelledFrames:
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, 8, 8, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic")
    # The last two are frames of one cine.
    groups = torch.arange(count).clamp_max(count - 2)
    return UnlabelledFrames(smooth.half(), groups, "digest")


def phantoms(count: int = 6, side: int = 32) -> LabelledFrames:
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 1, side, side, generator=random)
    target = torch.zeros(count, 1, side, side)
    target[:, :, 10:16] = 1
    maps = torch.cat([target, torch.ones_like(target), target], 1)
    names = tuple(map(str, range(count)))
    maps = (maps * WHOLE).byte()
    return LabelledFrames((noise - 2 * target).half(), maps, names, names)


def config(**changes) -> PretrainConfig:
    small = {"width": 2, "grid": 32, "batch": 4, "epochs": 3, "held_out": 0.1}
    return PretrainConfig(**(small | {"save_seconds": 0, "save_minutes": 0} | changes))


def check_group(group: ProcessGroup) -> None:
    """What the processes tell each other arrives whole, in order and type."""
    own = torch.full((group.rank, 3), group.rank, dtype=torch.float16)
    wanted = [rank for rank in range(group.size) for _ in range(rank)]
    assert group.all_gather_rows(own)[:, 0].tolist() == (
        wanted if group.size > 1 else []
    )
    assert group.all_gather_objects(group.rank) == list(range(group.size))
    stop, clock = group.agree_to_stop(group.rank == group.size - 1, 5.0 + group.rank)
    assert (stop, clock) == (True, 5.0)
    mean = torch.tensor([float(group.rank)])
    group.all_reduce_mean([mean])
    assert mean == (group.size - 1) / 2
    group.barrier()


def main(arguments: tuple[Any, ...], variables: dict[str, object]) -> None:
    """Make one run after the other.

    Parameters
    ----------
    arguments : tuple
        Folder, checkpoint or None, seconds to pause after each event, and the runs,
        such as ``float32-6``: that precision and six phantoms. Weights and curve go to
        FOLDER/RUN.safetensors. It resumes from the checkpoint if that is there. Runs in
        float64 come last.
    variables : dict
        Of the environment, such as torchrun sets.
    """
    folder, checkpoint, pause, *runs = arguments
    os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    with process_group("cpu") as group:
        check_group(group)
        for run in runs:
            pretrain_as(run, group, folder, checkpoint, pause)


def pretrain_as(
    run: str, group: ProcessGroup, folder: Path, checkpoint: Path | None, pause: float
) -> None:
    precision, count = run.split("-")
    if precision == "float64":  # where rounding does not hide a wrong gradient
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double
    training = Pretraining(
        frames(),
        config(
            precision="float32",
            phantoms=int(count),
            phantom_share=0.5,
            consistency_weight=float(int(count) > 0),
            copy_paste=0.5 if int(count) else 0.0,
            learning_rate=1e-4,
        ),
        phantoms(int(count)) if int(count) else None,
        group,
        checkpoint,
        resume=True,
    )
    for _ in training.run():
        time.sleep(pause)
    if group.is_main:
        curve = [
            [e.loss, e.reconstruction, e.contrast, e.segmentation, e.held_out]
            for e in training.history
        ]
        state = training.stepper.networks.state_dict()
        state = {k: v.contiguous() for k, v in state.items()}
        folder.mkdir(exist_ok=True)
        save_file(state, folder / f"{run}.safetensors", {"curve": json.dumps(curve)})
