"""Output of ``pretrain``: the model, its learning curves, reconstructions."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_cmunet.model.card import ModelCard, Preprocessing, name_for
from napari_cmunet.model.network import CMUNet, parameter_count
from napari_cmunet.model.registry import save_model
from napari_cmunet.util.safe_files import atomic_write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.pretraining.config import PretrainConfig
    from napari_cmunet.pretraining.evaluate import Reconstructions
    from napari_cmunet.pretraining.loop import PretrainResult
    from napari_cmunet.training.events import PretrainEpoch

CURVES = "curves.json"
RECONSTRUCTIONS = "reconstructions.png"


def write_model(
    folder: Path,
    result: PretrainResult,
    config: PretrainConfig,
    *,
    frames: int,
    files: int,
    held_files: int,
    about: str = "",
    licence: str = "",
    parent: ModelCard | None = None,
) -> ModelCard:
    """Write the model folder; an earlier one in its place is replaced."""
    epochs = len(result.history)
    metrics = {
        "held_out_reconstruction": {
            "value": round(result.held_out, 5),
            "protocol": f"mean squared error at hidden pixels, each {config.patch}-"
            f"pixel patch normalised (1: its mean known, nothing else); "
            f"{config.mask_ratio:.0%} of the patches hidden by chance; {held_files} "
            f"images never learned from; grid {config.grid}; by the network whose "
            "average over the steps is this model",
        },
    }
    if result.phantom_dice is not None:
        metrics["held_out_phantom_dice"] = {
            "value": round(result.phantom_dice, 4),
            "protocol": "mean Dice on synthetic frames never learned from, "
            f"grid {config.grid}",
        }
    metrics["training"] = {
        "epochs": epochs,
        "steps": result.step,
        "minutes": round(result.seconds / 60, 1),
        "ended": result.reason,
        # A folder's path stays at home; the model's name says enough.
        "options": dataclasses.asdict(config)
        | {"start": parent.name if parent else ""},
    }
    learned = f"{frames} unlabelled frames from {files} image files"
    if config.phantoms:
        learned += f", and {config.phantoms} synthetic frames with known masks"
    card = ModelCard(
        name=name_for(folder, "pretrained"),
        kind="ssl",
        width=config.width,
        preprocessing=Preprocessing(grid=config.grid),
        parameters=parameter_count(CMUNet(config.width)),
        description="Self-supervised CM-UNet: where fine-tuning starts.",
        parent=parent.name if parent else None,
        parent_sha256=parent.sha256 if parent else None,
        data=f"{about} ({learned})" if about else learned,
        licence=licence,
        labels=0,
        metrics=metrics,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return save_model(folder, result.weights, card)


def write_curves(folder: Path, history: tuple[PretrainEpoch, ...]) -> None:
    """Write ``curves.json``, one object per epoch."""
    rows = [dataclasses.asdict(epoch) for epoch in history]
    write_json(folder / CURVES, rows)


def write_reconstructions(path: Path, examples: Reconstructions) -> None:
    """A row for each held-out frame: as shown, as rebuilt, as it is."""
    columns = ("as the network sees it", "rebuilt", "the frame")
    parts = (examples.masked, examples.rebuilt, examples.whole)
    count, _, height, width = examples.whole.shape
    gap, head = 6, 22
    size = (3 * (width + gap) + gap, count * (height + gap) + gap + head)
    picture = Image.new("L", size, 255)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for column, (name, part) in enumerate(zip(columns, parts, strict=True)):
        x = gap + column * (width + gap)
        draw.text((x, 4), name, 0, font)
        for row in range(count):
            whole = examples.whole[row, 0].numpy()
            low, high = np.percentile(whole, [0.5, 99.5])
            grey = (part[row, 0].numpy() - low) / max(high - low, 1e-6)
            grey = (np.clip(grey, 0, 1) * 255).astype(np.uint8)
            picture.paste(Image.fromarray(grey), (x, head + row * (height + gap)))
    with atomic_write(path) as file:
        picture.save(file, "PNG")
