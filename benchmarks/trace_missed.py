"""How well two clicks bring back the vessels that a model misses.

usage: python -m benchmarks.trace_missed DATA [--model cmunet-artery] [--every 2]
           [--split val] [--jitter 1.0] [--wide PIXELS]

DATA holds images/, masks/ and index.csv (stem, split, patient), or is the word
"phantoms". Every stretch of a true centreline of 15 pixels or more that lies more than
1.5 pixels from the model's mask is traced from end to end, with clicks that are off by
a normal error of ``--jitter`` pixels. Prints the share of stretches whose centreline
comes back within 1.5 pixels on average, and whose width (pixels of the tube for each
pixel of length) within 20 %, and within one pixel. With ``--wide 6``: every branch of
the truth that is wider than 6 pixels instead, taken out of the true mask, with no
probability along it.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from benchmarks.frames import PHANTOMS, list_frames, read_frame
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.vessels.centreline import length, measure_lumen, tube
from napari_cmunet.vessels.minimal_path import snap
from napari_cmunet.vessels.tools import EditContext, propose_path, start_path
from napari_cmunet.vessels.tree import VesselTree, build_tree
from napari_cmunet.vessels.vesselness import compute_features

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_LENGTH = 15.0


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
            if length(points) >= MIN_LENGTH:
                low = 10_000 * branch.number + first
                area = ((place >= low) & (place < low + last - first)).sum()
                yield points, area / (length(points) + 1)


Case = tuple[EditContext, np.ndarray, float]


def missed_cases(
    image: np.ndarray, truth: np.ndarray, probability: np.ndarray, mask: np.ndarray
) -> Iterator[Case]:
    """Stretches that the model lacks, with its mask."""
    context = EditContext(compute_features(image, probability), build_tree(mask))
    for points, width in missed(build_tree(truth), mask):
        yield context, points, width


def wide_cases(
    image: np.ndarray, truth: np.ndarray, probability: np.ndarray, least: float
) -> Iterator[Case]:
    """Wide branches of the truth, with the true mask without them."""
    tree = build_tree(truth)
    for points, width in missed(tree, np.zeros_like(truth)):
        if width > least:
            radii = np.full(len(points), 0.75 * width)
            out = np.zeros_like(truth, bool)
            out[tube(points.astype(float), radii, truth.shape)] = True
            features = compute_features(image, np.where(out, 0, probability))
            yield EditContext(features, build_tree(truth & ~out)), points, width


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
    parser.add_argument("--wide", type=float, metavar="PIXELS")
    args = parser.parse_args()
    predictor = Predictor(load_model(args.model), choose_device(args.device))
    random = np.random.default_rng(0)
    rows, times, count = [], [], 0
    every = 1 if args.data == PHANTOMS else args.every
    for name, _ in list_frames(args.data, args.split, 30)[::every]:
        image, truth = read_frame(args.data, name)
        count += 1
        probability = predictor.predict(image)
        mask = mask_at(probability, predictor.card.threshold)
        if args.wide:
            cases = wide_cases(image, truth, probability, args.wide)
        else:
            cases = missed_cases(image, truth, probability, mask)
        for context, points, width in cases:
            first, last = (
                p + random.normal(0, args.jitter, 2) for p in points[[0, -1]]
            )
            began = time.perf_counter()
            tracer = start_path(context, tuple(first))
            clicked = time.perf_counter()
            propose_path(context, tracer, tuple(last))
            times.append((clicked - began, time.perf_counter() - clicked))
            end, _ = snap(tuple(last), context.features, context.tree)
            found = measure_lumen(context.features, tracer.path_to(end))
            away = np.hypot(*(found.centre[:, None] - points[None]).transpose(2, 0, 1))
            drawn = 2 * found.radii[away.argmin(axis=0)].mean()
            rows.append((away.min(axis=0).mean(), drawn, width))
    off, drawn, width = np.array(rows).T
    centre = off <= 1.5
    relative, absolute = np.abs(drawn / width - 1) <= 0.2, np.abs(drawn - width) <= 1
    print(f"{count} frames, {len(rows)} stretches of {MIN_LENGTH:.0f} px or more")
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
