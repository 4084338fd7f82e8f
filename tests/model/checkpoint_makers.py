"""Checkpoints to read: tiny networks laid out as published ones, and raw pickles."""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_cmunet.errors import ModelError
from napari_cmunet.model.importer import import_checkpoint
from napari_cmunet.model.network import CMUNet
from napari_cmunet.model.registry import user_models_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDTH = 2


def network(out_classes: int = 2, width: int = WIDTH, seed: int = 7) -> CMUNet:
    """A network with statistics as after a training."""
    torch.manual_seed(seed)
    made = CMUNet(width, out_classes)
    for name, value in made.named_buffers():
        if name.endswith("running_mean"):
            value.normal_()
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
        else:
            value.fill_(3)
    return made


def is_decoder(name: str) -> bool:
    return name.startswith(("up_conv", "conv_last"))


@contextlib.contextmanager
def foreign_module(name: str) -> Iterator[types.ModuleType]:
    """A module that exists only while something is saved."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]


def add_class(module: types.ModuleType, made: type) -> type:
    made.__module__, made.__qualname__ = module.__name__, made.__name__
    setattr(module, made.__name__, made)
    return made


def save_whole(path: Path, source: CMUNet, wrap: bool = False, **options: Any) -> None:
    """``torch.save(model)`` of a class UNet in a module ``model``."""

    class DoubleConv(nn.Module):
        pass

    class DownBlock(nn.Module):
        pass

    class UpBlock(nn.Module):
        pass

    class UNet(nn.Module):
        pass

    with foreign_module("model") as module:
        classes = {
            made.__name__: add_class(module, made)
            for made in (DoubleConv, DownBlock, UpBlock)
        }
        add_class(module, UNet)

        def copied(part: nn.Module, into: type) -> nn.Module:
            made = into.__new__(into)
            nn.Module.__init__(made)
            for name, child in part.named_children():
                kind = classes.get(type(child).__name__)
                made.add_module(name, copied(child, kind) if kind else child)
            made.up_sample_mode = "conv_transpose"
            return made

        saved = copied(source, UNet)
        torch.save(nn.DataParallel(saved) if wrap else saved, path, **options)


def save_mmengine(path: Path, source: CMUNet) -> None:
    """As mmengine saves: with logs, whose class is saved by its methods' names."""
    import numpy as np

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.arange(5.0)
            self._count_history = np.ones(5, np.int64)
            self._statistics_methods = {"mean": HistoryBuffer.mean}
            self.last = np.float64(0.5)

        def mean(self) -> None:
            pass

    with foreign_module("mmengine_logging") as module:
        add_class(module, HistoryBuffer)
        HistoryBuffer.mean.__module__ = module.__name__
        HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
        state = {}
        for name, value in source.state_dict().items():
            if is_decoder(name):
                state[f"pixel_decoder.{name}"] = value
                state[f"feature_decoder.{name}"] = torch.zeros_like(value)
            else:
                state[f"backbone.{name}"] = value
                state[f"target_backbone.{name}"] = torch.zeros_like(value)
        state["projector.fc0.weight"] = torch.rand(4, 4)
        torch.save(
            {
                "meta": {"mmengine_version": "0.10.4", "epoch": 300, "cfg": "a = 1"},
                "state_dict": state,
                "message_hub": {"log_scalars": {"loss": HistoryBuffer()}},
                "optimizer": torch.optim.AdamW(source.parameters()).state_dict(),
            },
            path,
        )


def save_spark(path: Path, source: CMUNet) -> None:
    state: dict[str, Any] = {
        ("dense_decoder." if is_decoder(name) else "sparse_encoder.sp_cnn.")
        + name: value
        for name, value in source.state_dict().items()
    }
    state |= {
        "mask_tokens.0": torch.zeros(1, 4, 1, 1),
        "densify_norms.0.weight": torch.ones(4),
        "norm_black": torch.zeros(1, 3, 8, 8),
        "config": {"mask_ratio": 0.6},
    }
    torch.save({"args": "Args()", "epoch": 9, "module": state}, path)


def save_moco(path: Path, source: CMUNet) -> None:
    class AttributeDict(dict):
        pass

    with foreign_module("lightning_parsing") as module:
        add_class(module, AttributeDict)
        state: dict[str, torch.Tensor] = {"queue": torch.rand(8, 16)}
        for name, value in source.state_dict().items():
            if not is_decoder(name):
                state[f"encoder_q.{name}"] = value
                state[f"encoder_k.{name}"] = torch.zeros_like(value)
        state["encoder_q.fc.weight"] = torch.rand(8, 16)
        torch.save(
            {
                "epoch": 5,
                "pytorch-lightning_version": "1.7.7",
                "state_dict": state,
                "hyper_parameters": AttributeDict(base_encoder=nn.Conv2d(1, 1, 1)),
                "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}},
            },
            path,
        )


def save_genesis(path: Path, source: CMUNet) -> None:
    state = nn.DataParallel(source).state_dict()
    optimizer = torch.optim.SGD(source.parameters(), 1e-2)
    torch.save(
        {
            "epoch": 3,
            "state_dict": state,
            "optimizer_state_dict": optimizer.state_dict(),
        },
        path,
    )


def archive(path: Path, data: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A checkpoint of a pickle and storages of one's own."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", data)
        made.writestr("archive/version", b"3\n")
        for key, numbers in (storages or {}).items():
            made.writestr(f"archive/data/{key}", numbers)
    return path


def program(value: Any, protocol: int) -> bytes:
    """Instructions that put a plain value on the stack."""
    data = pickle.dumps(value, protocol)
    if protocol >= 2:
        data = data[2:]
    if protocol >= 4 and data[:1] == pickle.FRAME:
        data = data[9:]
    return data[:-1]


def named(module: str, name: str, protocol: int) -> bytes:
    """Instructions that put a class or function on the stack."""
    if protocol < 4:
        return b"c" + f"{module}\n{name}\n".encode()
    return program(module, protocol) + program(name, protocol) + pickle.STACK_GLOBAL


def calling(function: bytes, *args: bytes) -> bytes:
    """Instructions that call a function."""
    return function + b"(" + b"".join(args) + b"t" + pickle.REDUCE


def whole(instructions: bytes, protocol: int) -> bytes:
    """A pickle of instructions."""
    start = pickle.PROTO + bytes([protocol]) if protocol >= 2 else b""
    return start + instructions + pickle.STOP


def refusal(path: Path) -> str:
    """Why a file is not imported; nothing is left of it."""
    with pytest.raises(ModelError) as error:
        import_checkpoint(path, "made")
    assert not (user_models_folder() / "made").exists()
    assert path.name in str(error.value)
    assert str(path.parent) not in str(error.value)
    return str(error.value)
