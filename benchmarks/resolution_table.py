"""Dice against time: a model fed the same frames at several sizes.

    python -m benchmarks.resolution_table DATA [--model NAME] [--grids 256 320 384 448]

DATA holds images/, masks/ and index.csv (stem, split, patient); the frames of the
`val` split are measured on their own grid, at the model's own threshold. Prints a table
as Markdown: Dice and clDice, mean and 95 % interval by patient, and the median time of
a warm prediction.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_cmunet.cli.label_folders import read_label_folders
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.evaluation.metrics import bootstrap_interval, score


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="cmunet-artery")
    parser.add_argument("--grids", type=int, nargs="+", default=[256, 320, 384, 448])
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    index = args.data / "index.csv"
    found = read_label_folders([args.data / "images"], [args.data / "masks"], index)
    with index.open(newline="", encoding="utf-8") as file:
        val = {r["stem"] for r in csv.DictReader(file) if r["split"] == "val"}
    frames = [label for label in found.labels if label.name in val]
    patients = tuple(label.patient for label in frames)
    print(f"{args.model}, {len(frames)} frames of {len(set(patients))} patients")
    print("| fed at, px | Dice | 95 % | clDice | ms a frame |\n|---|---|---|---|---|")
    for grid in args.grids:
        model = load_model(args.model)
        fed = replace(model.card.preprocessing, grid=grid)
        model = replace(model, card=replace(model.card, preprocessing=fed))
        predictor = Predictor(model, choose_device(args.device))
        predictor.predict(frames[0].frame)
        scores, taken = [], []
        for label in frames:
            began = time.perf_counter()
            probability = predictor.predict(label.frame)
            taken.append(time.perf_counter() - began)
            scores.append(score(mask_at(probability, model.card.threshold), label.mask))
        dice = [s.dice for s in scores]
        low, high = bootstrap_interval(dice, patients)
        print(
            f"| {grid} | {np.mean(dice):.3f} | {low:.3f} to {high:.3f} "
            f"| {np.mean([s.cldice for s in scores]):.3f} "
            f"| {1000 * statistics.median(taken):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
