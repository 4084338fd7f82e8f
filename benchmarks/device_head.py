#!/usr/bin/env python3
"""A second output for catheters, wires and leads, on frozen features of the decoder.

usage: python -m benchmarks.device_head DATA [--examples 800] [--steps 700]
           [--frames 12]

DATA holds arcade/ (images-0, images-1, masks) and the hospitals of
benchmarks/quick_finetune.py. A small head learns from the decoder features of
cmunet-artery, of synthetic angiograms and of ARCADE frames with synthetic devices drawn
in. Printed are Dice, clDice and wrong places a frame of each hospital, without the head
and with the branches left out whose mean device probability is above a limit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from benchmarks.quick_finetune import draw
from napari_cmunet.model.network import CMUNet, artery_logit
from napari_cmunet.model.postprocess import (
    suppress_small_components,
    suppress_uncertain,
)
from napari_cmunet.model.preprocess import prepare, prepare_mask, restore
from napari_cmunet.model.registry import LoadedModel, find_model, load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.synthetic import PhantomConfig, make_frame_with_devices
from napari_cmunet.synthetic.cine import make_scene
from napari_cmunet.synthetic.devices import make_clutter
from napari_cmunet.training.evaluation.metrics import cldice, dice, wrong_places
from napari_cmunet.vessels.tree import build_tree

CHANNELS, DILATIONS = 24, (1, 2, 4, 8, 16)
CROP, BATCH, RATE = 96, 8, 4e-3
LIMITS = (0.4, 0.5, 0.6, 0.7, 0.8)
LOW = -4.0  # artery log-odds of what is taken for a device

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class DeviceHead(nn.Module):
    """Device log-odds at half the grid, from three levels of the decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(n * width, CHANNELS, 1) for n in (4, 2, 1)
        )
        self.context = nn.ModuleList(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=d, dilation=d) for d in DILATIONS
        )
        self.last = nn.Conv2d(CHANNELS, 1, 1)
        nn.init.constant_(self.last.bias, -3.0)

    def forward(self, features: Features) -> torch.Tensor:
        """``(B, 1, H / 2, W / 2)``."""
        coarse, middle, fine = (
            level(x) for level, x in zip(self.levels, features, strict=True)
        )
        coarse = F.interpolate(coarse, scale_factor=2, mode="bilinear")
        h = F.relu(coarse + middle + fine)
        for layer in self.context:
            h = h + F.relu(layer(h))
        return self.last(h)


@torch.inference_mode()
def features(network: CMUNet, x: torch.Tensor) -> tuple[Features, torch.Tensor]:
    """Decoder features at a quarter and twice at half of the grid; artery log-odds."""
    latent, skips = network.encode(x)
    coarse = network.up_conv3(network.up_conv4(latent, skips[3]), skips[2])
    middle = network.up_conv2(coarse, skips[1])
    fine = network.up_conv1(middle, skips[0])
    logit = artery_logit(network.conv_last(fine))
    return (coarse, middle, F.avg_pool2d(fine, 2)), logit


def with_devices(path: Path, image: Path, seed: int) -> tuple[np.ndarray, ...]:
    """An ARCADE frame with synthetic devices, its mask, and theirs."""
    rng = np.random.default_rng(seed)
    frame = np.array(Image.open(image).convert("L")).astype(np.float32)
    arteries = np.array(Image.open(path).convert("L")) > 0
    scene = make_scene(rng, PhantomConfig(size=len(frame), seed=seed), wide=True)
    field, devices = make_clutter(rng, scene.view, 3.0)
    if scene.catheter is not None:
        filled = float(rng.choice([0.0, rng.uniform(0.3, 1), 1.0]))
        held, mask = scene.catheter.thickness(scene.view, np.zeros(3), filled)
        field, devices = field + 0.2 * held, devices | mask
    field = gaussian_filter(field, rng.uniform(0.5, 1.0))
    around = gaussian_filter(frame, 12)
    depth = max(float((around - frame)[arteries].mean()), 12) if arteries.any() else 25
    top = np.percentile(field[devices], 90) if devices.any() else 1.0
    frame = frame - field / max(top, 1e-3) * depth * rng.uniform(0.6, 2.4)
    return frame.clip(0, 255).astype(np.uint8), arteries, devices & ~arteries


def examples(
    model: LoadedModel, data: Path, count: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features, and maps (N, 4, h, w): artery, device, known, artery probability."""
    images = {
        p.stem: p for n in (0, 1) for p in (data / f"arcade/images-{n}").iterdir()
    }
    masks = sorted(p for p in (data / "arcade/masks").iterdir() if p.stem in images)
    order = np.random.default_rng(0).permutation(len(masks))
    found, maps = [], []
    for n in range(count):
        path = masks[order[n // 2 % len(order)]]
        if n % 2:
            many = float(np.random.default_rng(n).choice([1, 2, 4]))
            config = PhantomConfig(size=320, seed=500_000 + n, clutter=many)
            frame, arteries, devices = make_frame_with_devices(config)
        else:
            frame, arteries, devices = with_devices(path, images[path.stem], n)
        x, geo = prepare(frame, model.card.preprocessing)
        levels, logit = features(model.network, x)
        artery = F.avg_pool2d(prepare_mask(arteries, geo), 2)[0]
        device = F.max_pool2d(prepare_mask(devices, geo), 2)[0]
        probability = torch.sigmoid(F.max_pool2d(logit, 2))[0]
        # A real frame may hold real devices, and arteries that its mask leaves out.
        known = torch.ones_like(artery)
        if not n % 2:
            known = ((device > 0.3) | (artery > 0.3) | (probability < 0.05)).float()
        found.append([level[0].half() for level in levels])
        maps.append(torch.cat([artery, device, known, probability]).half())
    return [torch.stack(level) for level in zip(*found, strict=True)], torch.stack(maps)


def loss_of(logit: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and Dice; arteries, and what is taken for one, count more."""
    artery, device, known, probability = maps.unbind(1)
    target = ((device > 0.5) & (artery <= 0.5)).float()
    weight = known * (1 + 4 * (probability > 0.3)) * (1 + 3 * (artery > 0.5))
    entropy = F.binary_cross_entropy_with_logits(logit[:, 0], target, reduction="none")
    found = torch.sigmoid(logit[:, 0]) * known
    both = (found * target).sum()
    overlap = (2 * both + 1) / (found.sum() + (target * known).sum() + 1)
    return (entropy * weight).sum() / weight.sum() + 0.5 * (1 - overlap)


def train(model: LoadedModel, data: Path, count: int, steps: int) -> DeviceHead:
    """Train the head on crops."""
    torch.manual_seed(0)
    levels, maps = examples(model, data, count)
    head = DeviceHead(model.card.width)
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, steps, pct_start=0.1
    )
    rng = np.random.default_rng(0)
    room = (maps.shape[-1] - CROP) // 2
    for _ in range(steps):
        at = torch.from_numpy(rng.choice(len(maps), BATCH))
        top, left = rng.integers(0, room + 1, 2) * 2
        crops = [
            x[at, :, top // n :, left // n :][..., : CROP // n, : CROP // n].float()
            for x, n in zip([*levels, maps], (2, 1, 1, 1), strict=True)
        ]
        loss = loss_of(head((crops[0], crops[1], crops[2])), crops[3])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


@torch.inference_mode()
def measure(model: LoadedModel, head: DeviceHead, folder: Path, frames: int) -> None:
    """Print the figures of a hospital."""
    _, labels = draw(folder, 0)
    found: dict[str, list[tuple[float, float, int]]] = {}
    for label in labels[:: max(1, len(labels) // frames)][:frames]:
        x, geo = prepare(label.frame, model.card.preprocessing)
        levels, logit = features(model.network, x)
        device = torch.sigmoid(F.interpolate(head(levels), scale_factor=2))[0, 0]
        threshold = model.card.threshold
        mask = (torch.sigmoid(logit[0, 0]) >= threshold).numpy()
        tree = build_tree(mask)
        means = {b.number: device[tuple(b.points.T)].mean() for b in tree.branches}
        for limit in (1.0, *LIMITS):
            devices = [number for number, mean in means.items() if mean > limit]
            own = logit.clone()
            own[0, 0][torch.from_numpy(mask & np.isin(tree.numbers, devices))] = LOW
            own = suppress_small_components(own)
            assert model.card.postprocessing is not None
            own, _ = suppress_uncertain(own, threshold, model.card.postprocessing)
            shown = (255 * restore(own, geo)[0, 0].sigmoid()).round().byte().numpy()
            made, truth = mask_at(shown, threshold), label.mask
            scores = (dice(made, truth), cldice(made, truth), wrong_places(made, truth))
            found.setdefault("without" if limit == 1 else str(limit), []).append(scores)
    for limit, scores in found.items():
        print(folder.name, limit, np.mean(scores, 0).round(3).tolist(), flush=True)


def main() -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--examples", type=int, default=800)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--frames", type=int, default=12)
    args = parser.parse_args()
    model = load_model(find_model("cmunet-artery"))
    head = train(model, args.data, args.examples, args.steps)
    for hospital in ("ica_nj", "hospital_b", "hospital_c"):
        measure(model, head, args.data / hospital, args.frames)


if __name__ == "__main__":
    main()
