"""The few-shot table of models/README.md: Dice against labels, start and recipe.

usage: python -m benchmarks.fewshot_table DATA RESULTS.jsonl [--labels 0 1 5 18 316]
           [--starts cmunet-ssl cmunet-artery random published] [--draws 5]

DATA holds images/, masks/, index.csv (stem, split, patient) and fewshot18.json (five
draws of 18 stems). Each training is one line in RESULTS.jsonl; a second call goes on
where the first one stopped. Every model is measured on the frames of the `val` split,
on their own grid, with the threshold 0.5. Prints the table as Markdown.

"published" is the recipe of arXiv 2507.17779 from random weights: Adam at a constant
1e-3, 16 frames of 256 x 256 in a batch, 128 epochs, width 64, no averaging.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from napari_cmunet.cli.label_folders import read_label_folders
from napari_cmunet.model.card import ModelCard, Preprocessing
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.network import CMUNet
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import LoadedModel, LoadReport, load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.augment import Augmentation
from napari_cmunet.training.config import RANDOM_RATE, WISE_FT_PRIOR, FinetuneConfig
from napari_cmunet.training.dataset import Label, prepare_labels
from napari_cmunet.training.evaluation.metrics import score
from napari_cmunet.training.events import Step
from napari_cmunet.training.loop import finetune

PUBLISHED = FinetuneConfig(
    batch=16,
    learning_rate=1e-3,
    warmup=0.0,
    constant_rate=True,
    weight_decay=0.0,
    ema=0.0,
    skeleton_weight=0.0,
    augmentation=Augmentation(
        rotation=0,
        mirror=True,
        zoom=(1.0, 1.08),
        shift=0.03,
        elastic=0,
        contrast=0.1,
        noise=0.1,
    ),
)


@dataclass(frozen=True)
class Row:
    """One training of the table."""

    start: str
    labels: int
    draw: int


def main() -> None:
    """Fill the table."""
    args = _arguments()
    by_stem, stems = _read(args.data)
    device = choose_device(args.device)
    done = _done(args.results)
    for row in _rows(args):
        if (row.start, row.labels, row.draw) in done:
            continue
        train = [by_stem[s] for s in _train_stems(row, stems)]
        result = _measure(row, train, [by_stem[s] for s in stems["val"]], device, args)
        with args.results.open("a", encoding="utf-8") as file:
            print(json.dumps(result), file=file, flush=True)
        print(json.dumps(result), flush=True)
    _print_table(args.results)


def _rows(args: argparse.Namespace) -> list[Row]:
    rows = []
    for labels in args.labels:
        for draw in range(args.draws if 0 < labels < 316 else 1):
            for start in args.starts:
                if labels or start == "cmunet-artery":
                    rows.append(Row(start, labels, draw))
    return rows


def _train_stems(row: Row, stems: dict) -> list[str]:
    if row.labels >= 316:
        return stems["train"]
    return stems["draws"][row.draw][: row.labels]


def _measure(
    row: Row,
    train: list[Label],
    val: list[Label],
    device: torch.device,
    args: argparse.Namespace,
) -> dict:
    began = time.monotonic()
    network, preprocessing, config = _start(row, len(train), args)
    if train:
        frames = prepare_labels(train, preprocessing)
        training = finetune(network, frames, config, device=device)
        while True:
            try:
                event = next(training)
            except StopIteration as end:
                network.load_state_dict(end.value.weights)
                break
            if isinstance(event, Step) and event.step == event.steps:
                print(f"# {row} loss {event.loss:.3f}", flush=True)
    seconds = time.monotonic() - began
    card = ModelCard("table", "artery", network.width, preprocessing)
    model = LoadedModel(network.cpu().eval(), card, LoadReport("table", 134, 134, True))
    predictor = Predictor(model, device)
    scores = [score(mask_at(predictor.predict(x.frame), 0.5), x.mask) for x in val]
    return {
        "start": row.start,
        "labels": row.labels,
        "draw": row.draw,
        "dice": round(float(np.mean([s.dice for s in scores])), 4),
        "cldice": round(float(np.mean([s.cldice for s in scores])), 4),
        "seconds": round(seconds, 1),
        "width": network.width,
        "grid": preprocessing.grid,
        "device": str(device),
    }


def _start(
    row: Row, labels: int, args: argparse.Namespace
) -> tuple[CMUNet, Preprocessing, FinetuneConfig]:
    torch.manual_seed(row.draw)
    config = FinetuneConfig(
        seed=row.draw, wise_ft_prior=WISE_FT_PRIOR, validate_every=10**9
    )
    if row.start == "published":
        # No larger batches than that, and 128 passes over the labels.
        batches = -(-labels // PUBLISHED.batch)
        config = replace(
            PUBLISHED,
            batch=-(-labels // batches),
            steps=128 * batches,
            seed=row.draw,
        )
        return CMUNet(64), Preprocessing(grid=256), config
    model = load_model(args.like if row.start == "random" else row.start)
    network = CMUNet(model.card.width) if row.start == "random" else model.network
    if row.start == "random":
        config = replace(config, learning_rate=RANDOM_RATE, wise_ft_prior=0.0)
    return network, model.card.preprocessing, config


def _read(data: Path) -> tuple[dict[str, Label], dict]:
    found = read_label_folders([data / "images"], [data / "masks"], data / "index.csv")
    by_stem = {label.name: label for label in found.labels}
    with (data / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stems = {
        split: [r["stem"] for r in rows if r["split"] == split and r["stem"] in by_stem]
        for split in ("train", "val")
    }
    stems["draws"] = json.loads((data / "fewshot18.json").read_text(encoding="utf-8"))
    return by_stem, stems


def _done(results: Path) -> set[tuple[str, int, int]]:
    return {(r["start"], r["labels"], r["draw"]) for r in _lines(results)}


def _lines(results: Path) -> list[dict]:
    if not results.exists():
        return []
    return [
        json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()
    ]


def _print_table(results: Path) -> None:
    groups: dict[tuple[int, str], list[dict]] = {}
    for r in _lines(results):
        groups.setdefault((r["labels"], r["start"]), []).append(r)
    print("| labels | start | Dice, mean (SD) | clDice | train s | draws |")
    print("|---|---|---|---|---|---|")
    for (labels, start), rows in sorted(groups.items()):
        dice = [r["dice"] for r in rows]
        spread = f" ({np.std(dice, ddof=1):.3f})" if len(rows) > 1 else ""
        print(
            f"| {labels} | {start} | {np.mean(dice):.3f}{spread} "
            f"| {np.mean([r['cldice'] for r in rows]):.3f} "
            f"| {np.mean([r['seconds'] for r in rows]):.0f} | {len(rows)} |"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[0, 1, 3, 5, 10, 18, 316]
    )
    parser.add_argument(
        "--starts",
        nargs="+",
        default=["cmunet-ssl", "cmunet-artery", "random", "published"],
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--like",
        default="cmunet-ssl",
        help="the random start has this model's width and grid",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
