"""Compare labels for uncertain images with labels for images drawn at random.

usage: python -m benchmarks.next_image run DATA OUT.jsonl [--labels 6 12] [--seeds 3]
       python -m benchmarks.next_image table OUT.jsonl

DATA holds images/, masks/ and index.csv (stem, split, patient). For each seed 60 frames
are drawn from `train`, except those that could fit the weights of
napari_cmunet/vessels/uncertainty.py. Of these, labels are chosen at random, or by
expected gain of ``--model``, one of each patient before a second. ``--start`` is
trained shortly on them and measured on every fourth frame of `val`, at the threshold
0.5. Each training is one line of OUT.jsonl; a second call continues. ``table`` prints
means and spreads as Markdown, and how many random labels would do the same.
"""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.frames import commands
from benchmarks.plain_training import train_plainly
from napari_cmunet.cli.label_folders import read_label_folders
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.config import FinetuneConfig
from napari_cmunet.training.evaluation.metrics import score
from napari_cmunet.vessels.uncertainty import expected_gain

if TYPE_CHECKING:
    import argparse

    from napari_cmunet.training.dataset import Label

RULES = ("random", "uncertainty")


class Gains:
    """What a model has to gain from each of some frames, worked out once."""

    def __init__(self, labels: list[Label], model: str, device: torch.device) -> None:
        self._labels, self._known = labels, {}
        self._predictor = Predictor(load_model(model), device)

    def __getitem__(self, index: int) -> float:
        if index not in self._known:
            frame, predictor = self._labels[index].frame, self._predictor
            probability = predictor.predict(frame)
            mask = mask_at(probability, predictor.card.threshold)
            self._known[index] = expected_gain(frame, probability, mask)
        return self._known[index]


def choose(rule: str, pool: list[int], gain: Gains, patients: list[str]):
    """Frames of a pool in the order of a rule."""
    if rule == "random":
        return pool
    seen: dict[str, int] = {}
    turn = {}
    best = sorted(pool, key=lambda i: -gain[i])
    for i in best:
        turn[i] = seen[patients[i]] = seen.get(patients[i], -1) + 1
    return sorted(best, key=lambda i: turn[i])


def run(args: argparse.Namespace) -> None:
    """Do every training that OUT does not hold yet."""
    torch.set_num_threads(args.threads)
    data = Path(args.data)
    found = read_label_folders([data / "images"], [data / "masks"], data / "index.csv")
    by_stem = {label.name: label for label in found.labels}
    with (data / "index.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["stem"] in by_stem]
    fit = [r for r in rows if r["split"] == "train"]
    val = [by_stem[r["stem"]] for r in rows if r["split"] == "val"]
    val = val[:: args.every]
    rows = [r for n, r in enumerate(fit) if n % 3][::2]
    labels = [by_stem[r["stem"]] for r in rows]
    patients = [r["patient"] for r in rows]
    device = choose_device(args.device)
    gain = Gains(labels, args.model, device)
    out = Path(args.out)
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(r["rule"], r["labels"], r["seed"]) for r in map(json.loads, lines)}
    for seed in range(args.seeds):
        drawn = (
            np.random.default_rng(seed).permutation(len(labels))[: args.pool].tolist()
        )
        for count in args.labels:
            for rule in RULES:
                if (rule, count, seed) in done:
                    continue
                chosen = choose(rule, drawn, gain, patients)[:count]
                began = time.monotonic()
                # Far less than the window's own training, so that many of them fit into
                # an hour on one core.
                config = FinetuneConfig(args.steps, batch=4, crop=256, seed=seed)
                model = train_plainly(
                    [labels[i] for i in chosen], args.start, device, config
                )
                seconds = time.monotonic() - began
                scores = [
                    score(mask_at(model.predict(x.frame), 0.5), x.mask) for x in val
                ]
                row = {
                    "rule": rule,
                    "labels": count,
                    "seed": seed,
                    "dice": round(float(np.mean([s.dice for s in scores])), 4),
                    "cldice": round(float(np.mean([s.cldice for s in scores])), 4),
                    "gain": round(float(np.mean([gain[i] for i in chosen]))),
                    "patients": len({patients[i] for i in chosen}),
                    "seconds": round(seconds, 1),
                }
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def table(args: argparse.Namespace) -> None:
    """Print the means, and the labels at random that would do the same."""
    rows = [json.loads(line) for line in Path(args.out).read_text().splitlines()]
    counts = sorted({r["labels"] for r in rows})
    print("| labels | rule | Dice, mean (SD) | clDice, mean (SD) | expected gain | n |")
    print("|---|---|---|---|---|---|")
    mean: dict[tuple[str, int], float] = {}
    for count in counts:
        for rule in RULES:
            mine = [r for r in rows if r["labels"] == count and r["rule"] == rule]
            if not mine:
                continue
            dice, cldice = ([r[k] for r in mine] for k in ("dice", "cldice"))
            mean[rule, count] = float(np.mean(dice))
            print(
                f"| {count} | {rule} | {np.mean(dice):.3f} ({np.std(dice, ddof=1):.3f})"
                f" | {np.mean(cldice):.3f} ({np.std(cldice, ddof=1):.3f})"
                f" | {np.mean([r['gain'] for r in mine]):.0f} px | {len(mine)} |"
            )
    at_random = [mean["random", c] for c in counts]
    slope, start = np.polyfit(np.log(counts), at_random, 1)
    for count in counts:
        same = np.exp((mean["uncertainty", count] - start) / slope)
        print(
            f"\n{count} labels by uncertainty do what {same:.1f} at random do "
            f"(Dice against the logarithm of labels): {100 * (1 - count / same):.0f} % "
            "fewer"
        )
    pairs = {(r["seed"], r["labels"], r["rule"]): r["dice"] for r in rows}
    gaps = [
        pairs[s, n, "uncertainty"] - pairs[s, n, "random"]
        for s, n in sorted({key[:2] for key in pairs})
        if (s, n, "uncertainty") in pairs and (s, n, "random") in pairs
    ]
    print(
        f"\nDice by uncertainty less Dice at random, same pool: {np.mean(gaps):+.3f} "
        f"(SD {np.std(gaps, ddof=1):.3f}, {len(gaps)} pairs)"
    )


def main() -> None:
    parser, runner, _ = commands(__doc__, run, table)
    runner.add_argument("--labels", type=int, nargs="+", default=[6, 12])
    runner.add_argument("--seeds", type=int, default=3)
    runner.add_argument("--pool", type=int, default=60)
    runner.add_argument("--every", type=int, default=4, help="frame of `val`")
    runner.add_argument("--steps", type=int, default=40)
    runner.add_argument("--start", default="cmunet-ssl")
    runner.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
