"""Checkpoints of a pre-training: one file of tensors with its state as JSON.

Random numbers need no state: see :mod:`napari_cmunet.pretraining.augment`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_cmunet.errors import ReadError
from napari_cmunet.util.safe_files import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.pretraining.step import PretrainStepper

VERSION = 1
_RENAMED_OPTIONS = {"composites": "copy_paste"}
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def write_checkpoint(
    path: Path, stepper: PretrainStepper, state: dict[str, Any]
) -> None:
    """Write networks, optimiser and state atomically."""
    tensors = {f"networks.{k}": v for k, v in stepper.networks.state_dict().items()}
    for name, parameter in stepper.trained.items():
        for moment, value in stepper.optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{moment}.{name}"] = value
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    data = save(tensors, {"state": json.dumps(state | {"version": VERSION})})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def read_state(path: Path) -> dict[str, Any]:
    """Read the state of a checkpoint's run, without its tensors.

    Raises
    ------
    ReadError
        If the file is damaged or of another version.
    """
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as exc:
        raise ReadError(
            path, "the checkpoint is damaged. Start again in another folder."
        ) from exc
    if state.get("version") != VERSION:
        raise ReadError(
            path,
            "another version of napari-cmunet wrote this checkpoint. Go on with that "
            "one, or start again in another folder.",
        )
    options = state["config"]
    for old, new in _RENAMED_OPTIONS.items():
        if old in options:
            options[new] = options.pop(old)
    return state


def restore(path: Path, stepper: PretrainStepper) -> None:
    """Load a checkpoint's tensors into networks and optimiser.

    Raises
    ------
    ReadError
        If they do not fit.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        own = {
            key.removeprefix("networks."): value
            for key, value in tensors.items()
            if key.startswith("networks.")
        }
        stepper.networks.load_state_dict(own, strict=True)
        for name, parameter in stepper.trained.items():
            if f"optimiser.step.{name}" not in tensors:
                continue
            moments = {m: tensors[f"optimiser.{m}.{name}"] for m in _MOMENTS}
            # Fused, the optimiser counts its steps on the device.
            fused = stepper.optimiser.defaults["fused"]
            stepper.optimiser.state[parameter] = {
                "step": moments["step"].to(parameter.device if fused else "cpu"),
                "exp_avg": torch.empty_like(parameter).copy_(moments["exp_avg"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(moments["exp_avg_sq"]),
            }
    except (SafetensorError, OSError, KeyError, RuntimeError) as exc:
        raise ReadError(
            path,
            "the checkpoint does not fit this run. Start again in another folder.",
        ) from exc
