"""Train and measure the model that proposes SYNTAX segments.

usage: python -m benchmarks.vessel_names train MASKS SEGMENTS.json OUT [--steps 4000]
       python -m benchmarks.vessel_names evaluate MASKS SEGMENTS.json [--model DIR]

``MASKS`` is a folder of masks, ``SEGMENTS.json`` holds by stem the polygons
``[segment, [x, y, ...]]``. Frames whose number can be divided by five are held out of
training; the others are all learned from. ``--predicted DIR`` names masks of a model
(``STEM.npy``, probabilities in bytes) that are learned from, or measured on, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.draw import disk, polygon
from skimage.morphology import skeletonize
from torch.nn.functional import affine_grid, avg_pool2d, cross_entropy, grid_sample

from napari_cmunet.model.card import ModelCard, Preprocessing
from napari_cmunet.model.network import CMUNet, parameter_count
from napari_cmunet.model.registry import load_model, save_model
from napari_cmunet.model.vessel_names import (
    CLASSES,
    NAMES_MODEL,
    at_points,
    predict_stretches,
)
from napari_cmunet.vessels.naming import DOUBTFUL
from napari_cmunet.vessels.segments import SEGMENTS, segment_title
from napari_cmunet.vessels.tree import build_tree

GRID, WIDTH = 64, 8
HELD_OUT = 5
_FINE = 256  # pixels of a mask before it is turned
_POINTS = 256  # of a frame in each step
_NEAR = 4.0  # pixels from a polygon within which a point has its number
_LEAST = 10  # pixels of a branch that is counted
_AROUND = 0.3  # weight of vessels without a number


def number_of(stem: str) -> int:
    """The frame's number, by which it is in the training or held out."""
    return int(stem.rsplit("_", 1)[1])


def truth_map(polygons: list, shape: tuple[int, int]) -> np.ndarray:
    """Index in CLASSES of each pixel (Y, X); 0 away from all polygons."""
    classes = np.zeros(shape, np.uint8)
    for segment, points in polygons:
        corners = np.reshape(points, (-1, 2))[:, ::-1]
        classes[polygon(*corners.T, shape)] = CLASSES.index(segment)
    away, nearest = distance_transform_edt(classes == 0, return_indices=True)
    return np.where(away <= _NEAR, classes[tuple(nearest)], 0)


class Frame:
    """What is learned from a mask: the mask, and classes of its centreline's points."""

    def __init__(self, mask: np.ndarray, truth: np.ndarray) -> None:
        small = Image.fromarray(mask.astype(np.uint8) * 255)
        self.mask = np.asarray(small.resize((_FINE, _FINE), Image.Resampling.BOX))
        points = np.argwhere(skeletonize(mask))
        self.classes = truth[tuple(points.T)].astype(np.int64)
        self.points = (points + 0.5) / max(mask.shape)


def batch_of(
    frames: list[Frame], rng: np.random.Generator, grid: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masks (B, 1, grid, grid), points (B, N, 2) and their classes, moved and cut."""
    masks, points, classes, thetas = [], [], [], []
    for frame in frames:
        mask, usable = frame.mask.copy(), np.ones(len(frame.points), bool)
        for _ in range(rng.integers(0, 4)):
            centre, radius = rng.random(2), rng.uniform(0.01, 0.09)
            mask[disk(_FINE * centre, _FINE * radius, shape=mask.shape)] = 0
            usable &= np.hypot(*(frame.points - centre).T) >= radius
        angle, scale = np.deg2rad(rng.uniform(-18, 18)), rng.uniform(0.75, 1.3, 2)
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        turn = turn @ np.diag(scale)
        shift = rng.uniform(-0.2, 0.2, 2)
        thetas.append(np.column_stack([turn, shift]))
        # Where the source's points come to: the inverse, in x and y from -1 to 1.
        xy = 2 * frame.points[:, ::-1] - 1
        moved = (np.linalg.inv(turn) @ (xy - shift).T).T
        inside = usable & (np.abs(moved) < 1).all(axis=1)
        chosen = np.flatnonzero(inside if inside.any() else usable)
        chosen = rng.choice(chosen, _POINTS) if len(chosen) else np.zeros(_POINTS, int)
        masks.append(mask)
        points.append((moved[chosen][:, ::-1] + 1) / 2)
        classes.append(frame.classes[chosen])
    theta = torch.from_numpy(np.stack(thetas)).float()
    source = torch.from_numpy(np.stack(masks))[:, None].float() / 255
    fine = 2 * grid
    where = affine_grid(theta, [len(frames), 1, fine, fine], align_corners=False)
    turned = grid_sample(avg_pool2d(source, _FINE // fine), where, align_corners=False)
    # Vessels a little thinner or thicker than they were drawn.
    turned = turned ** float(rng.uniform(0.6, 1.6))
    return (
        avg_pool2d(turned, 2),
        torch.from_numpy(np.stack(points)).float(),
        torch.from_numpy(np.stack(classes)),
    )


def train(options: argparse.Namespace) -> None:
    """Train on the frames that are not held out, and save the model."""
    frames = []
    for stem, mask, truth in _frames(options, held_out=False):
        frames.append(Frame(mask, truth))
        found = _predicted(options, stem)
        if found is not None:
            frames.append(Frame(mask | found, truth))
    print(f"{len(frames)} masks")
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    network = CMUNet(options.width, len(CLASSES)).to(memory_format=torch.channels_last)
    steps = options.steps
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps, 0.1)
    mean = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    weight = torch.ones(len(CLASSES))
    weight[0] = _AROUND
    began, losses = time.monotonic(), []
    for step in range(1, steps + 1):
        chosen = [frames[i] for i in rng.integers(0, len(frames), 16)]
        masks, points, classes = batch_of(chosen, rng, options.grid)
        logits = at_points(network(masks), points)
        loss = cross_entropy(logits, classes, weight, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        mean.update_parameters(network)
        losses.append(float(loss.detach()))
        if step % 200 == 0 or step == steps:
            seconds = time.monotonic() - began
            print(f"{step} {np.mean(losses[-200:]):.3f} {seconds:.0f} s", flush=True)
            _calibrate(mean.module, frames, rng, options.grid)
            save_model(options.out, mean.module.state_dict(), _card(options, network))


def _calibrate(
    network: torch.nn.Module, frames: list[Frame], rng: np.random.Generator, grid: int
) -> None:
    """Estimate the averaged network's batch statistics."""
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for _ in range(12):
            chosen = [frames[i] for i in rng.integers(0, len(frames), 16)]
            network(batch_of(chosen, rng, grid)[0])
    network.eval()


def _card(options: argparse.Namespace, network: CMUNet) -> ModelCard:
    return ModelCard(
        name=options.out.name,
        kind="names",
        width=options.width,
        preprocessing=Preprocessing(grid=options.grid),
        parameters=parameter_count(network),
        description="SYNTAX segments of a mask's branches; learned from ARCADE.",
        data="SYNTAX segments of ARCADE (CC0, doi 10.1038/s41597-023-02871-z): frames "
        f"whose number cannot be divided by {HELD_OUT}",
        licence="CC0-1.0",
        created=time.strftime("%Y-%m-%d"),
    )


def _frames(options: argparse.Namespace, *, held_out: bool):
    """Stem, mask and truth of each frame of one part."""
    polygons = json.loads(options.segments.read_text())
    for stem in sorted(polygons):
        if (number_of(stem) % HELD_OUT == 0) == held_out:
            mask = (
                np.asarray(Image.open(options.masks / f"{stem}.png").convert("L")) > 0
            )
            yield stem, mask, truth_map(polygons[stem], mask.shape)


def _predicted(options: argparse.Namespace, stem: str) -> np.ndarray | None:
    if options.predicted is None:
        return None
    file = options.predicted / f"{stem}.npy"
    threshold = load_model("cmunet-artery").card.threshold
    return np.load(file) >= 255 * threshold if file.exists() else None


def evaluate(options: argparse.Namespace) -> None:
    """Print how often branches of held-out frames get their name."""
    model = load_model(options.model)
    rows: list[tuple[str, str, float, int]] = []
    sides: list[bool] = []
    for stem, mask, truth in _frames(options, held_out=True):
        if options.predicted is not None:
            found = _predicted(options, stem)
            if found is None:
                continue
            mask = found
        tree = build_tree(mask)
        known, predicted = Counter(), Counter()
        by_branch: dict[int, list] = {}
        for stretch in predict_stretches(tree, model):
            by_branch.setdefault(stretch.branch, []).append(stretch)
        for branch in tree.branches:
            classes = truth[tuple(branch.points.T)]
            for segment, start, end in _runs(classes):
                if end - start < _LEAST or not segment:
                    continue
                lengths: Counter = Counter()
                doubts: dict[str, float] = {}
                for s in by_branch.get(branch.number, []):
                    shared = min(end, s.end) - max(start, s.start)
                    if shared > 0:
                        lengths[s.segment] += shared
                        doubts[s.segment] = s.doubt
                name = lengths.most_common(1)[0][0]
                rows.append((segment, name, doubts[name], end - start))
                known[SEGMENTS[segment].side] += end - start
                if name:
                    predicted[SEGMENTS[name].side] += end - start
        if known:
            sides.append(
                bool(predicted)
                and known.most_common(1)[0][0] == predicted.most_common(1)[0][0]
            )
    _print(rows, sides)


def _runs(classes: np.ndarray) -> list[tuple[str, int, int]]:
    bounds = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(classes)]
    return [
        (CLASSES[classes[start]], start, end)
        for start, end in pairwise(bounds)
        if end > start
    ]


def _print(rows: list[tuple[str, str, float, int]], sides: list[bool]) -> None:
    right = np.array([known == predicted for known, predicted, _, _ in rows])
    sure = np.array(
        [doubt <= DOUBTFUL and predicted != "" for _, predicted, doubt, _ in rows]
    )
    lengths = np.array([length for *_, length in rows])
    print(f"{len(sides)} frames, {len(rows)} stretches of a branch with one segment")
    print(f"left or right: {100 * np.mean(sides):.1f} %")
    print(f"named rightly: {100 * right.mean():.1f} %, by length ", end="")
    print(f"{100 * (right * lengths).sum() / lengths.sum():.1f} %")
    print(
        f"without a question mark: {100 * sure.mean():.0f} % of them, of which "
        f"{100 * right[sure].mean():.1f} % rightly; with: "
        f"{100 * right[~sure].mean():.1f} %"
    )
    print("\n| segment | stretches | named so, % | of those named so, right, % |")
    print("|---|---|---|---|")
    for segment in SEGMENTS:
        own = np.array([known == segment for known, *_ in rows])
        called = np.array([predicted == segment for _, predicted, *_ in rows])
        found = f"{100 * right[own].mean():.0f}" if own.any() else "-"
        precise = f"{100 * right[called].mean():.0f}" if called.any() else "-"
        print(f"| {segment_title(segment)} | {own.sum()} | {found} | {precise} |")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, act in (("train", train), ("evaluate", evaluate)):
        p = commands.add_parser(name)
        p.add_argument("masks", type=Path)
        p.add_argument("segments", type=Path)
        p.add_argument("--predicted", type=Path)
        p.set_defaults(act=act)
        if name == "evaluate":
            p.add_argument("--model", default=NAMES_MODEL)
            continue
        p.add_argument("out", type=Path)
        p.add_argument("--steps", type=int, default=4000)
        p.add_argument("--grid", type=int, default=GRID)
        p.add_argument("--width", type=int, default=WIDTH)
        p.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
