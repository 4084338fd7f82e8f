"""Fit the weights of napari_cmunet/vessels/uncertainty.py and test them on patients.

usage: python -m benchmarks.fit_uncertainty DATA [--model cmunet-artery]
           [--phantoms 150] [--every 2] [--plot PICTURE.png]

DATA holds images/, masks/ and index.csv (stem, split, patient). Fits on synthetic
angiograms, so that the weights learn from no patient of DATA, and reports on every
second frame of its `val` split: reliability of the fitted probabilities, and how many
of the first ten places of the guided review are errors, with the weights and the
calibration that ship. Prints Markdown; ``--plot`` draws the reliability.
``--fit-on-train N`` fits on every N-th frame of the `train` split instead.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.optimize import minimize

from benchmarks.frames import list_frames, read_frame
from benchmarks.line_plot import Panel, draw_panels
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.dataset import phantom_labels
from napari_cmunet.vessels.tree import build_tree
from napari_cmunet.vessels.uncertainty import (
    FEATURE_NAMES,
    MIN_PROBABILITY,
    mask_segments,
    missing_segments,
)
from napari_cmunet.vessels.vesselness import compute_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RIGHT_WITHIN = 1.5
_PLACES = 10
MIN_ERROR_PROBABILITY, MIN_LENGTH = 0.5, 8.0  # as in the guided review

Pair = tuple[np.ndarray, np.ndarray]
"""A frame, and its true mask."""


@dataclass
class Judged:
    """Segments of many frames; one row each."""

    frame: np.ndarray
    in_mask: np.ndarray
    length: np.ndarray
    on_artery: np.ndarray  # share of the centreline
    called: np.ndarray  # probability of artery, as the package gives it
    numbers: np.ndarray


def real_frames(data: Path, split: str, every: int) -> Iterator[Pair]:
    """Every n-th frame of a split and its true mask."""
    for name, _ in list_frames(data, split, 0)[::every]:
        yield read_frame(data, name)


def synthetic_frames(count: int) -> Iterator[Pair]:
    """Phantoms that no bundled model has learned from, and their masks."""
    drawn = phantom_labels(2 * count, seed=90_001, workers=1)
    for label in itertools.islice(drawn, count):
        yield label.frame, label.mask > 0


def judge(pairs: Iterable[Pair], predictor: Predictor) -> Judged:
    """Find the segments of frames and compare them with the truth."""
    rows = []
    for index, (image, truth) in enumerate(pairs):
        probability = predictor.predict(image)
        mask = mask_at(probability, predictor.card.threshold)
        features = compute_features(image, probability)
        near = distance_transform_edt(~truth) <= RIGHT_WITHIN
        found = mask_segments(features, build_tree(mask))
        for segment in found + missing_segments(features, mask):
            share = near[tuple(segment.points.T)].mean()
            rows.append(
                (
                    *(index, segment.in_mask, segment.length, share),
                    *(segment.artery_probability, *segment.values),
                )
            )
    table = np.array(rows)
    return Judged(*table[:, :5].T, table[:, 5:])


def fit(numbers: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Constant and weights of a logistic model, lightly held down."""
    mean, spread = numbers.mean(0), numbers.std(0) + 1e-9
    x = np.column_stack([np.ones(len(numbers)), (numbers - mean) / spread])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ weights
        held = np.append(0, weights[1:])
        gradient = x.T @ (1 / (1 + np.exp(-z)) - right) + held
        return float((np.logaddexp(0, z) - right * z).sum() + held @ held / 2), gradient

    found = minimize(loss, np.zeros(x.shape[1]), jac=True).x
    weights = found[1:] / spread
    return np.append(found[0] - weights @ mean, weights)


def chance(weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(weights[0] + numbers @ weights[1:])))


def reliability(called: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Print how often what is called so and so likely is right; in per cent, too."""
    points = []
    print("| called | mean | right | segments |\n|---|---|---|---|")
    for tenth in range(10):
        here = (called >= tenth / 10) & (called < (tenth + 1) / 10 + (tenth == 9))
        if here.sum() >= 10:
            name = f"{10 * tenth} to {10 * tenth + 10} %"
            mean, share = 100 * called[here].mean(), 100 * right[here].mean()
            print(f"| {name} | {mean:.0f} % | {share:.0f} % | {here.sum()} |")
            points.append((mean, share))
    gaps = [
        abs(called[here].mean() - right[here].mean()) * here.mean()
        for tenth in range(10)
        if (here := (np.minimum(called * 10, 9).astype(int) == tenth)).any()
    ]
    print(f"\nexpected calibration error {sum(gaps):.3f}\n")
    return points


def places(judged: Judged, called: np.ndarray) -> None:
    """Print how many of the first ten places are errors, as the package ranks them."""
    in_mask = judged.in_mask > 0
    wrong = np.where(in_mask, judged.on_artery <= 0.5, judged.on_artery > 0.5)
    chance_wrong = np.where(in_mask, 1 - called, called)
    shown = (judged.length >= MIN_LENGTH) & (chance_wrong >= MIN_ERROR_PROBABILITY)
    errors, visited, every = 0, 0, []
    frames = np.unique(judged.frame)
    for frame in frames:
        here = np.flatnonzero((judged.frame == frame) & shown)
        best = here[np.argsort(-chance_wrong[here])][:_PLACES]
        errors += int(wrong[best].sum())
        visited += len(best)
        every.append(len(here))
    likely = ~in_mask & (called >= MIN_PROBABILITY)
    print(
        f"{len(frames)} frames: {np.mean(every):.1f} places worth a look a frame; of "
        f"the first ten {100 * errors / max(visited, 1):.0f} % are errors; "
        f"{likely.sum() / len(frames):.1f} missing branches proposed, "
        f"{100 * (judged.on_artery[likely] > 0.5).mean():.0f} % on artery"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="cmunet-artery")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--phantoms", type=int, default=150)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--fit-on-train", type=int, metavar="N")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    predictor = Predictor(load_model(args.model), choose_device(args.device))
    if args.fit_on_train:
        pairs = real_frames(args.data, "train", args.fit_on_train)
    else:
        pairs = synthetic_frames(args.phantoms)
    train = judge(pairs, predictor)
    val = judge(real_frames(args.data, "val", args.every), predictor)
    called = np.zeros(len(val.length))
    curves: dict[str, list[tuple[float, float]]] = {}
    print(f"weights: constant, {', '.join(FEATURE_NAMES)}\n")
    for name, wanted in (("WEIGHTS_IN_MASK", 1), ("WEIGHTS_MISSING", 0)):
        mine, theirs = train.in_mask == wanted, val.in_mask == wanted
        weights = fit(train.numbers[mine], (train.on_artery[mine] > 0.5) * 1.0)
        print(f"{name} = {tuple(weights.round(3).tolist())}\n")
        called[theirs] = chance(weights, val.numbers[theirs])
        points = reliability(called[theirs], val.on_artery[theirs] > 0.5)
        curves[name.lower().removeprefix("weights_").replace("_", " ")] = points
    places(val, val.called)
    if args.plot is not None:
        curves["as called"] = [(0, 0), (100, 100)]
        panel = Panel("right, %, of segments of other patients", "called, %", curves)
        draw_panels([panel]).save(args.plot)


if __name__ == "__main__":
    main()
