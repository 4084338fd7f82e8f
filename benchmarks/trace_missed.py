#!/usr/bin/env python3
"""How well two clicks bring back the vessels that a model misses.

usage: python benchmarks/trace_missed.py DATA [--model cmunet-artery] [--every 2]
           [--split val] [--jitter 1.0]

DATA holds images/, masks/ and index.csv (stem, split, patient), or is the word
"phantoms". Every stretch of a true centreline of 15 pixels or more that lies more than
1.5 pixels from the model's mask is traced from end to end, with clicks that are off by
a normal error of ``--jitter`` pixels. Prints the share of stretches whose centreline
comes back within 1.5 pixels on average, and whose width (pixels of the tube for each
pixel of length) within 20 %, and within one pixel.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks import read_mask
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.vessels.centreline import length
from napari_cmunet.vessels.edit_context import Scene
from napari_cmunet.vessels.features import gather
from napari_cmunet.vessels.minimal_path import snap
from napari_cmunet.vessels.tools import begin_trace, trace_offer
from napari_cmunet.vessels.tree import VesselTree, grow_tree
from napari_cmunet.vessels.width import find_lumen

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST = 15.0


def frames(args: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and truth, (Y, X) each."""
    if args.data == "phantoms":
        for seed in range(30):
            yield make_frame(PhantomConfig(seed=9000 + seed))
        return
    folder = Path(args.data)
    with (folder / "index.csv").open(newline="") as file:
        stems = [r["stem"] for r in csv.DictReader(file) if r["split"] == args.split]
    for stem in stems[:: args.every]:
        image = read_angiogram(next((folder / "images").glob(f"{stem}.*"))).frames[0]
        truth = read_mask(next((folder / "masks").glob(f"{stem}.*")))
        yield image, truth.reshape(truth.shape[-2:]) > 0


def missed(tree: VesselTree, mask: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Centreline points and true width of each stretch that the mask lacks."""
    near = binary_dilation(mask, np.ones((3, 3)))
    # Which pixel of which centreline each pixel of the truth is nearest to.
    place = np.full(mask.shape, -1)
    for branch in tree.branches:
        place[tuple(branch.points.T)] = 10_000 * branch.number + np.arange(
            len(branch.points)
        )
    nearest = distance_transform_edt(
        place < 0, return_distances=False, return_indices=True
    )
    place = np.where(tree.mask, place[tuple(nearest)], -1)
    for branch in tree.branches:
        out = np.pad(~near[tuple(branch.points.T)], 1).astype(int)
        edges = np.flatnonzero(np.diff(out))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            points = branch.points[first:last]
            if length(points) >= LEAST:
                low = 10_000 * branch.number + first
                area = ((place >= low) & (place < low + last - first)).sum()
                yield points, area / (length(points) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--model", default="cmunet-artery")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--jitter", type=float, default=1.0)
    args = parser.parse_args()
    predictor = Predictor(load_model(args.model), choose_device(args.device))
    random = np.random.default_rng(0)
    rows, times, count = [], [], 0
    for image, truth in frames(args):
        count += 1
        probability = predictor.predict(image)
        mask = mask_at(probability, predictor.card.threshold)
        scene = Scene(gather(image, probability), grow_tree(mask))
        for points, width in missed(grow_tree(truth), mask):
            first, last = (
                p + random.normal(0, args.jitter, 2) for p in points[[0, -1]]
            )
            began = time.perf_counter()
            tracer = begin_trace(scene, tuple(first))
            clicked = time.perf_counter()
            trace_offer(scene, tracer, tuple(last))
            times.append((clicked - began, time.perf_counter() - clicked))
            end, _ = snap(tuple(last), scene.evidence, scene.tree)
            found = find_lumen(scene.evidence, tracer.path_to(end))
            away = np.hypot(*(found.centre[:, None] - points[None]).transpose(2, 0, 1))
            drawn = 2 * found.radii[away.argmin(axis=0)].mean()
            rows.append((away.min(axis=0).mean(), drawn, width))
    off, drawn, width = np.array(rows).T
    centre = off <= 1.5
    relative, absolute = np.abs(drawn / width - 1) <= 0.2, np.abs(drawn - width) <= 1
    print(f"{count} frames, {len(rows)} missed stretches of {LEAST:.0f} px or more")
    print(f"true width: median {np.median(width):.1f} px")
    print(f"centreline within 1.5 px: {100 * centre.mean():.0f} %")
    print(f"of these, width within 20 %: {100 * relative[centre].mean():.0f} %")
    print(f"of these, width within 1 px: {100 * absolute[centre].mean():.0f} %")
    print(f"both, 20 %: {100 * (centre & relative).mean():.0f} %")
    print(f"both, 1 px: {100 * (centre & absolute).mean():.0f} %")
    print(f"drawn / true width, median: {np.median((drawn / width)[centre]):.2f}")
    first, second = 1000 * np.median(times, axis=0)
    print(f"first click {first:.0f} ms, second {second:.0f} ms (median)")


if __name__ == "__main__":
    main()
