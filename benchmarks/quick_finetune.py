#!/usr/bin/env python3
"""Quick and deep fine-tuning from 18 labels at three hospitals.

usage: python benchmarks/quick_finetune.py DATA RESULTS.jsonl [--hospitals ica_nj
           hospital_b hospital_c] [--recipes none quick deep] [--draws 0] [--frames 20]

DATA holds a folder with images/ and masks/ for each hospital; ica_nj also index.csv
(stem, split, patient) and fewshot18.json. At the others, 18 frames of a seeded draw
are learned from and the rest is measured. Each training is one line in RESULTS.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_cmunet.model.device import tune_malloc
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.config import WISE_FT_PRIOR, FinetuneConfig
from napari_cmunet.training.dataset import Label, prepare_labels
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.metrics import cldice, dice, wrong_places

LABELS = 18
QUICK = FinetuneConfig(
    steps=60,
    batch=12,
    learning_rate=1e-3,
    trained_blocks=2,
    views=4,
    crop=128,
    frozen_batchnorm=True,
)


def recipes() -> dict[str, FinetuneConfig | None]:
    """Trainings by name."""
    deep = FinetuneConfig()
    return {"none": None, "quick": QUICK, "deep": deep}


def read(folder: Path) -> dict[str, Label]:
    """Labels of a hospital by stem."""
    patients = {}
    if (folder / "index.csv").exists():
        with (folder / "index.csv").open(newline="") as file:
            patients = {row["stem"]: row["patient"] for row in csv.DictReader(file)}
    labels = {}
    for path in sorted((folder / "images").iterdir()):
        stem = path.stem
        frame = np.array(Image.open(path).convert("L"))
        mask = np.array(Image.open(folder / "masks" / f"{stem}.png").convert("L"))
        mask = mask > (127 if mask.max() > 1 else 0)
        patient = patients.get(stem) or (
            stem.split("_")[0] if "hospital_b" in folder.name else stem
        )
        labels[stem] = Label(frame, mask, patient=patient, name=stem)
    return labels


def draw(folder: Path, number: int) -> tuple[list[Label], list[Label]]:
    """Labels to learn from, and those of other patients to measure on."""
    labels = read(folder)
    if (folder / "fewshot18.json").exists():
        stems = json.loads((folder / "fewshot18.json").read_text())[number]
        with (folder / "index.csv").open(newline="") as file:
            rest = [r["stem"] for r in csv.DictReader(file) if r["split"] == "val"]
    else:
        order = np.random.default_rng(number).permutation(sorted(labels)).tolist()
        stems = order[:LABELS]
        seen = {labels[s].patient for s in stems}
        rest = [s for s in order[LABELS:] if labels[s].patient not in seen]
    return [labels[s] for s in stems], [labels[s] for s in rest if s in labels]


def main() -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--start", default="cmunet-artery")
    parser.add_argument(
        "--hospitals", nargs="+", default=["ica_nj", "hospital_b", "hospital_c"]
    )
    parser.add_argument("--recipes", nargs="+", default=list(recipes()))
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--frames", type=int, default=20, help="to measure on")
    args = parser.parse_args()
    tune_malloc()
    for hospital in args.hospitals:
        for number in args.draws:
            train, rest = draw(args.data / hospital, number)
            step = max(1, len(rest) // args.frames)
            for name in args.recipes:
                result = measure(args.start, name, train, rest[::step], number)
                line = json.dumps({"hospital": hospital, "draw": number} | result)
                print(line, flush=True)
                with args.results.open("a") as file:
                    print(line, file=file)


def measure(
    start: str, recipe: str, train: list[Label], rest: list[Label], seed: int
) -> dict:
    """One training, measured on other patients at the threshold of its start."""
    model, config = load_model(start), recipes()[recipe]
    began, cpu = time.monotonic(), time.process_time()
    share = 0.0
    if config is not None:
        frames = prepare_labels(train, model.preprocessing)
        config = replace(
            config, seed=seed, wise_ft_prior=WISE_FT_PRIOR, validate_every=10**9
        )
        training = finetune(model.network, frames, config)
        while True:
            try:
                next(training)
            except StopIteration as end:
                model.network.load_state_dict(end.value.weights)
                share = end.value.wise_ft_alpha
                break
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    own = model.card.threshold
    threshold = own if config is None else round(0.5 + share * (own - 0.5), 2)
    predictor = Predictor(model, torch.device("cpu"))
    scores = []
    for label in rest:
        mask, truth = mask_at(predictor.predict(label.frame), threshold), label.mask
        scores.append(
            (dice(mask, truth), cldice(mask, truth), wrong_places(mask, truth))
        )
    means = np.mean(scores, 0).round(4).tolist()
    return {
        "recipe": recipe,
        "frames": len(rest),
        "dice": means[0],
        "cldice": means[1],
        "wrong_places": means[2],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }


if __name__ == "__main__":
    main()
