"""``pretrain``: self-supervised pre-training on folders of images."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_cmunet import __version__
from napari_cmunet.cli.progress import Progress, event_writer, stop_on_signals
from napari_cmunet.errors import TrainingError
from napari_cmunet.model.card import CARD, Preprocessing
from napari_cmunet.model.device import tune_malloc
from napari_cmunet.model.registry import load_model
from napari_cmunet.pretraining.checkpoint import read_state
from napari_cmunet.pretraining.config import (
    PretrainConfig,
    UnlabelledFrames,
    check_same_run,
    check_values,
)
from napari_cmunet.pretraining.distributed import process_group
from napari_cmunet.pretraining.loop import Pretraining
from napari_cmunet.pretraining.result import (
    RECONSTRUCTIONS,
    write_curves,
    write_model,
    write_reconstructions,
)
from napari_cmunet.pretraining.unlabelled_images import read_unlabelled
from napari_cmunet.training.dataset import (
    WHOLE,
    LabelledFrames,
    phantom_labels,
    prepare_labels,
)
from napari_cmunet.training.events import Event, PretrainEpoch, PretrainFinished
from napari_cmunet.util.safe_files import atomic_write, make_folder
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_cmunet.model.card import ModelCard
    from napari_cmunet.pretraining.distributed import ProcessGroup
    from napari_cmunet.training.dataset import Label

RUN, CHECKPOINT, PHANTOMS = "run", "checkpoint.safetensors", "phantoms.safetensors"
EXPORT_SECONDS = 900
"""While training, the model folder is brought up to date this often."""


def run(args: argparse.Namespace) -> int:
    """Pre-train; returns the exit code. Prints the model's folder on stdout."""
    options = {
        field.name: value
        for field in dataclasses.fields(PretrainConfig)
        if (value := getattr(args, field.name, None)) is not None
    }
    tune_malloc()
    with (
        process_group(args.device) as group,
        event_writer(args.events)
        if group.is_main
        else nullcontext(lambda event: None) as write_event,
    ):
        checkpoint = args.output / RUN / CHECKPOINT
        config = _config(args, options, checkpoint)
        start = load_model(config.start) if config.start else None
        if start is not None and "width" not in options:
            config = dataclasses.replace(config, width=start.card.width)
        check_values(config)
        if group.is_main:
            make_folder(args.output / RUN)
        group.barrier()
        frames, failed = _read_images(args, config.grid, group)
        phantoms = _phantoms(args, config, group) if config.phantoms else None
        training = Pretraining(
            frames,
            config,
            phantoms,
            group,
            checkpoint,
            start=start.network if start else None,
            resume=args.resume,
        )
        reason = _train(
            args, training, group, write_event, start.card if start else None
        )
    if not group.is_main:
        return 0
    if args.events != "-":
        print(args.output, flush=True)
    if failed:
        print(f"{counted(failed, 'image')} could not be read.", file=sys.stderr)
    if reason == "stopped":
        print("Stopped; go on with --resume.", file=sys.stderr)
    return 1 if failed or reason == "stopped" else 0


def _read_images(
    args: argparse.Namespace, grid: int, group: ProcessGroup
) -> tuple[UnlabelledFrames, int]:
    line = Progress(0)

    def progress(done: int, total: int, name: str) -> None:
        line.done, line.total = done, total
        if group.is_main:
            line.show(f"reading {name}")

    try:
        return read_unlabelled(
            args.inputs,
            args.output,
            grid,
            group,
            progress,
            line.complain,
            invert=args.invert,
        )
    finally:
        line.clear()


def _train(
    args: argparse.Namespace,
    training: Pretraining,
    group: ProcessGroup,
    write_event: Callable[[Event], None],
    parent: ModelCard | None,
) -> str:
    exported, reason = time.monotonic(), ""
    with stop_on_signals() as should_stop:
        for event in training.run(should_stop):
            write_event(event)
            if isinstance(event, PretrainFinished):
                reason = event.reason
            if isinstance(event, PretrainEpoch):
                if group.is_main:
                    write_curves(args.output, tuple(training.history))
                # All or none: what is measured then is measured together.
                old = time.monotonic() - exported > EXPORT_SECONDS
                if group.agree_to_stop(old, 0.0)[0]:
                    _export(args, training, group, parent)
                    exported = time.monotonic()
        if training.step:
            _export(args, training, group, parent)
    return reason


def _export(
    args: argparse.Namespace,
    training: Pretraining,
    group: ProcessGroup,
    parent: ModelCard | None,
) -> None:
    result = training.result()
    if not group.is_main:
        return
    groups = training.frames.groups.numpy()
    write_curves(args.output, result.history)
    write_reconstructions(args.output / RECONSTRUCTIONS, result.examples)
    write_model(
        args.output,
        result,
        training.config,
        frames=len(training.learn),
        files=len(np.unique(groups[training.learn])),
        held_files=len(np.unique(groups[training.held])),
        about=args.data,
        licence=args.licence,
        parent=parent,
    )


def _config(
    args: argparse.Namespace, options: dict[str, Any], checkpoint: Path
) -> PretrainConfig:
    there = checkpoint.exists()
    if not args.resume:
        if there or (args.output / CARD).exists():
            raise TrainingError(
                f"The folder '{args.output.name}' holds a run or a model already. "
                "Choose another with -o, or go on with the run by --resume."
            )
        return PretrainConfig(**options)
    if not there:
        return PretrainConfig(**options)
    state = read_state(checkpoint)
    known = {f.name for f in dataclasses.fields(PretrainConfig)}
    stored = {k: v for k, v in state["config"].items() if k in known}
    config = dataclasses.replace(PretrainConfig(**stored), **options)
    check_same_run(state, config)
    return config


def _phantoms(
    args: argparse.Namespace, config: PretrainConfig, group: ProcessGroup
) -> LabelledFrames:
    """Make the phantoms, or take those that an earlier start of the run has made."""
    path = args.output / RUN / PHANTOMS
    key = json.dumps([__version__, config.phantoms, config.seed, config.grid, WHOLE])
    kept = _kept_phantoms(path, key)
    if kept is not None:
        return kept
    side = -(-config.grid // 16) * 16
    frames = torch.empty(0, 1, side, side).half()
    maps = torch.empty(0, 3, side, side, dtype=torch.uint8)
    if group.is_main:
        made = _draw_phantoms(args, config)
        frames, maps = made.frames, made.maps
    frames, maps = group.all_gather_rows(frames), group.all_gather_rows(maps)
    if group.is_main:
        with atomic_write(path) as file:
            file.write(save({"frames": frames, "maps": maps}, {"key": key}))
    return _labels(frames, maps)


def _draw_phantoms(args: argparse.Namespace, config: PretrainConfig) -> LabelledFrames:
    progress = Progress(config.phantoms)

    def shown() -> Iterator[Label]:
        for label in phantom_labels(config.phantoms, config.seed, args.workers):
            progress.show("making phantoms")
            yield label
            progress.advance()

    try:
        return prepare_labels(shown(), Preprocessing(grid=config.grid))
    finally:
        progress.clear()


def _kept_phantoms(path: Path, key: str) -> LabelledFrames | None:
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return _labels(file.get_tensor("frames"), file.get_tensor("maps"))
    except (OSError, SafetensorError):
        return None


def _labels(frames: torch.Tensor, maps: torch.Tensor) -> LabelledFrames:
    names = tuple(f"phantom {i}" for i in range(len(frames)))
    return LabelledFrames(frames, maps, names, names)
