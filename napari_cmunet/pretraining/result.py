"""Result of a pre-training: its evaluation, final weights, model and pictures."""

from __future__ import annotations

import dataclasses
import datetime
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from napari_cmunet.model.card import ModelCard, Preprocessing, name_for
from napari_cmunet.model.network import CMUNet, artery_logit, parameter_count
from napari_cmunet.model.registry import save_model
from napari_cmunet.pretraining.augment import draw, view_affine, warp
from napari_cmunet.pretraining.patch_masking import (
    from_patches,
    patch_mask,
    patch_statistics,
    reconstruction_loss,
    to_patches,
    to_pixels,
)
from napari_cmunet.pretraining.step import FRAME_VIEWS, MEASURE, RECALIBRATE
from napari_cmunet.training.augment import NO_AUGMENTATION
from napari_cmunet.training.dataset import TARGET, WHOLE
from napari_cmunet.training.optim import batch_norms, running_statistics_kept
from napari_cmunet.util.safe_files import atomic_write, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from napari_cmunet.pretraining.config import PretrainConfig
    from napari_cmunet.pretraining.step import PretrainStepper
    from napari_cmunet.training.dataset import LabelledFrames
    from napari_cmunet.training.events import PretrainEpoch


HELD_OUT_PHANTOMS = 24
EXAMPLES = 6
CALIBRATION_FRAMES = 192
_AT_ONCE = 8


@dataclass(frozen=True)
class Reconstructions:
    """Held-out frames, masked and reconstructed.

    Each is a float tensor (N, 1, H, W). ``rebuilt`` has the frame's own pixels where
    they were visible, and its own mean and contrast in each masked patch.
    """

    masked: torch.Tensor
    rebuilt: torch.Tensor
    whole: torch.Tensor


@dataclass(frozen=True)
class PretrainResult:
    """Result of a pre-training.

    Parameters
    ----------
    weights : dict of str to tensor
        Of the CM-UNet, ready for fine-tuning.
    history : tuple of PretrainEpoch
        All epochs, of earlier runs too where it was resumed.
    examples : Reconstructions
        Of held-out frames.
    held_out : float
        The online network's error at their masked pixels (1: each patch's mean).
    phantom_dice : float or None
    reason : str
        See :class:`napari_cmunet.training.events.PretrainFinished`.
    step : int
    seconds : float
        Of training.
    """

    weights: dict[str, torch.Tensor]
    history: tuple[PretrainEpoch, ...]
    examples: Reconstructions
    held_out: float
    phantom_dice: float | None
    reason: str
    step: int
    seconds: float


@torch.no_grad()
def held_out_error(stepper: PretrainStepper, held: list[int]) -> float:
    """Mean squared error at masked pixels of held-out frames, patches normalised.

    Of the online network. Views and masks are the same each time, and masks uniform,
    so that runs at one grid can be compared.
    """
    config, total = stepper.config, 0.0
    with batch_statistics(stepper.networks):
        for i in range(0, len(held), _AT_ONCE):
            chosen = held[i : i + _AT_ONCE]
            views, mask = _fixed_views(stepper, chosen)
            pixels = _rebuild(stepper, views, mask)
            loss = reconstruction_loss(pixels, views, mask, config.patch)
            total += float(loss) * len(chosen)
    return total / len(held)


@torch.no_grad()
def phantom_dice(stepper: PretrainStepper, phantoms: LabelledFrames) -> float:
    """Mean Dice of the momentum target on held-out phantoms."""
    scores = []
    with batch_statistics(stepper.networks):
        for i in range(0, len(phantoms), _AT_ONCE):
            x = phantoms.frames[i : i + _AT_ONCE].to(stepper.device).float()
            with stepper.autocast():
                logits = stepper.networks.target_network(x)
            found = (artery_logit(logits) > 0).flatten(1)
            truth = phantoms.maps[i : i + _AT_ONCE, TARGET].to(stepper.device)
            truth = truth.flatten(1) > WHOLE // 2
            both = (found & truth).sum(1)
            size = found.sum(1) + truth.sum(1)
            scores.append(2 * both / size.clamp_min(1))
    return float(torch.cat(scores).mean())


@torch.no_grad()
def reconstructions(stepper: PretrainStepper, held: list[int]) -> Reconstructions:
    """Reconstruct a few held-out frames."""
    patch = stepper.config.patch
    views, mask = _fixed_views(stepper, held[:EXAMPLES])
    with batch_statistics(stepper.networks):
        pixels = _rebuild(stepper, views, mask)
    mean, std = patch_statistics(to_patches(views, patch))
    rows, columns = mask.shape[-2:]
    patches = to_patches(pixels, patch) * std + mean
    rebuilt = from_patches(patches, patch, (rows, columns))
    hidden = to_pixels(mask, patch)
    shown = views.masked_fill(hidden, 0.0)
    rebuilt = torch.where(hidden, rebuilt, views)
    return Reconstructions(shown.cpu(), rebuilt.cpu(), views.cpu())


@torch.no_grad()
def finished_weights(
    stepper: PretrainStepper, learn: list[int]
) -> dict[str, torch.Tensor]:
    """The momentum target's weights, with batch statistics of whole frames.

    The target is the average of the online network over the steps, and better.
    In pre-training most patches are masked, which changes the statistics.
    ``conv_last`` is left out unless it was trained.
    """
    config = stepper.config
    network = CMUNet(config.width)
    network.to(stepper.device, memory_format=stepper.layout)  # type: ignore[call-overload]
    network.load_state_dict(stepper.networks.target_network.state_dict())
    for layer in batch_norms(network):
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches below
    network.train()
    spread = max(1, len(learn) // CALIBRATION_FRAMES)
    some = learn[::spread][:CALIBRATION_FRAMES]
    for i in range(0, len(some), _AT_ONCE):
        chosen = some[i : i + _AT_ONCE]
        draws = draw((config.seed, RECALIBRATE, i) for i in chosen)
        stack = stepper.take(chosen)
        theta = view_affine(draws, FRAME_VIEWS, stack.shape[-1], stepper.side)
        with stepper.autocast():
            network(warp(stack, theta, stepper.side))
    weights = {k: v.detach().cpu() for k, v in network.state_dict().items()}
    if stepper.phantoms is None:
        weights = {k: v for k, v in weights.items() if not k.startswith("conv_last.")}
    return weights


def _fixed_views(
    stepper: PretrainStepper, chosen: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    config, side = stepper.config, stepper.side
    rows = side // config.patch
    draws = draw(((config.seed, MEASURE, i) for i in chosen), rows * rows)
    stack = stepper.take(chosen)
    theta = view_affine(draws, NO_AUGMENTATION, stack.shape[-1], side)
    views = warp(stack, theta, side)
    noise = torch.from_numpy(draws.patches).to(stepper.device)
    return views, patch_mask(noise, (rows, rows), config.mask_ratio)


def _rebuild(
    stepper: PretrainStepper, views: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    masked = views * ~to_pixels(mask, stepper.config.patch)
    with stepper.autocast():
        online = stepper.networks.online(
            masked.contiguous(memory_format=stepper.layout)
        )
    return online.pixels.float()


@contextmanager
def batch_statistics(networks: nn.Module) -> Iterator[None]:
    """Normalise by the batch at hand and keep the running statistics unchanged.

    Those mix masked frames and whole phantoms, and fit neither.
    """
    networks.train()
    with running_statistics_kept(networks):
        yield


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
