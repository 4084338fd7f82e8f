"""What a pre-training is measured by, and what it leaves."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_cmunet.model.network import CMUNet, artery_logit
from napari_cmunet.pretraining.augment import ViewRange, draw, placement, sample
from napari_cmunet.pretraining.patch_masking import (
    from_patches,
    patch_mask,
    patch_statistics,
    reconstruction_loss,
    to_patches,
    to_pixels,
)
from napari_cmunet.pretraining.step import MEASURE, RECALIBRATE
from napari_cmunet.training.dataset import TARGET, WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.pretraining.step import PretrainStepper
    from napari_cmunet.training.dataset import LabelledFrames

HELD_OUT_PHANTOMS = 24
EXAMPLES = 6
CALIBRATION_FRAMES = 192
_AT_ONCE = 8
_WHOLE = ViewRange(zoom=(1.0, 1.0))


@dataclass(frozen=True)
class Reconstructions:
    """Held-out frames: as the network saw them, as it rebuilt them, as they are.

    Each is a float tensor (N, 1, H, W). The rebuilt one has the frame's own pixels
    where they were shown, and the frame's own mean and contrast in each hidden
    patch, which the network is not asked for.
    """

    masked: torch.Tensor
    rebuilt: torch.Tensor
    whole: torch.Tensor


@torch.no_grad()
def held_out_error(stepper: PretrainStepper, held: list[int]) -> float:
    """Mean squared error at hidden pixels, patches normalised, of held-out frames.

    Of the online network: the target rebuilds nothing.
    Views and masks are the same each time, and masks are drawn by chance alone, so
    that figures of different runs at one grid can be compared.
    """
    config, total = stepper.config, 0.0
    with _batch_statistics(stepper.networks):
        for i in range(0, len(held), _AT_ONCE):
            chosen = held[i : i + _AT_ONCE]
            views, mask = _fixed_views(stepper, chosen)
            pixels = _rebuild(stepper, views, mask)
            loss = reconstruction_loss(pixels, views, mask, config.patch)
            total += float(loss) * len(chosen)
    return total / len(held)


@torch.no_grad()
def phantom_dice(stepper: PretrainStepper, phantoms: LabelledFrames) -> float:
    """Mean Dice of the momentum target on phantoms that are not learned from."""
    scores = []
    with _batch_statistics(stepper.networks):
        for i in range(0, len(phantoms), _AT_ONCE):
            x = phantoms.frames[i : i + _AT_ONCE].to(stepper.device).float()
            with _autocast(stepper):
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
    """Rebuild a few held-out frames, to be looked at."""
    patch = stepper.config.patch
    views, mask = _fixed_views(stepper, held[:EXAMPLES])
    with _batch_statistics(stepper.networks):
        pixels = _rebuild(stepper, views, mask)
    mean, std = patch_statistics(to_patches(views, patch))
    sides = tuple(mask.shape[-2:])
    rebuilt = from_patches(to_patches(pixels, patch) * std + mean, patch, sides)
    hidden = to_pixels(mask, patch)
    shown = views.masked_fill(hidden, 0.0)
    rebuilt = torch.where(hidden, rebuilt, views)
    return Reconstructions(shown.cpu(), rebuilt.cpu(), views.cpu())


@torch.no_grad()
def finished_weights(
    stepper: PretrainStepper, learn: list[int]
) -> dict[str, torch.Tensor]:
    """The momentum target's weights, with batch statistics of whole frames.

    The target is the online network averaged over its past, and better: with 486
    steps from ``cmunet-ssl``, Dice without any label was 0.813 and not 0.806 on 46
    frames of other patients, cut at 0.7; on the way, at a high learning rate, 0.816
    (302 steps) where the online network had 0.741 (243 steps).

    During pre-training the network sees frames with most patches hidden, whose
    statistics are not those that it will meet. ``conv_last`` is left out unless it
    was trained.
    """
    config = stepper.config
    network = CMUNet(config.width).to(stepper.device, memory_format=torch.channels_last)
    network.load_state_dict(stepper.networks.target_network.state_dict())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches below
    network.train()
    how = ViewRange(zoom=stepper.views.zoom)
    spread = max(1, len(learn) // CALIBRATION_FRAMES)
    some = learn[::spread][:CALIBRATION_FRAMES]
    for i in range(0, len(some), _AT_ONCE):
        chosen = some[i : i + _AT_ONCE]
        draws = draw((config.seed, RECALIBRATE, i) for i in chosen)
        stack = stepper.take(chosen)
        theta = placement(draws, how, stack.shape[-1], stepper.side)
        with _autocast(stepper):
            network(sample(stack, theta, stepper.side))
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
    views = sample(stack, placement(draws, _WHOLE, stack.shape[-1], side), side)
    noise = torch.from_numpy(draws.patches).to(stepper.device)
    return views, patch_mask(noise, (rows, rows), config.mask_ratio)


def _rebuild(
    stepper: PretrainStepper, views: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    masked = views * ~to_pixels(mask, stepper.config.patch)
    with _autocast(stepper):
        online = stepper.networks.online(
            masked.contiguous(memory_format=torch.channels_last)
        )
    return online.pixels.float()


def _autocast(stepper: PretrainStepper) -> torch.autocast:
    return torch.autocast(
        stepper.device.type, stepper.dtype, enabled=stepper.dtype != torch.float32
    )


@contextmanager
def _batch_statistics(networks: nn.Module) -> Iterator[None]:
    """Normalise by the batch at hand, and leave the running statistics alone.

    Those are a mixture of masked frames and whole phantoms, and fit neither.
    """
    layers = [m for m in networks.modules() if isinstance(m, nn.BatchNorm2d)]
    layers += [m for m in networks.modules() if isinstance(m, nn.SyncBatchNorm)]
    before = [layer.momentum for layer in layers]
    networks.train()
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum
