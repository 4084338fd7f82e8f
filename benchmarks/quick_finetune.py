#!/usr/bin/env python3
"""Adaptation and fine-tuning in stages from 18 labels at three hospitals.

usage: python -m benchmarks.quick_finetune DATA RESULTS.jsonl [--hospitals ica_nj
           hospital_b hospital_c] [--draws 0] [--labels 18] [--frames 20]
           [--start cmunet-artery] [--until deep] [--readers 0]

DATA holds a folder with images/ and masks/ for each hospital; ica_nj also index.csv
(stem, split, patient) and fewshot18.json. At the others, 18 frames of a seeded draw
are learned from, and patients of the rest are measured. Each model is one line in
RESULTS.jsonl: the start, the adapted model, the quick one and the deep one; with Dice,
clDice and wrong places a frame on these patients, at the operating point that the
labels chose and at the start's, and the verdict from the patients left out in turn.
With ``--readers``, also the mean seconds that a simulated reader needs to correct so
many of these frames.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from benchmarks.simulated_reader import Action, correct
from napari_cmunet.model.device import tune_malloc
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import LoadedModel, LoadReport
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.config import FinetuneResult
from napari_cmunet.training.dataset import Label
from napari_cmunet.training.evaluation.comparison import (
    TRAINED_WITHOUT,
    Pair,
    judge,
)
from napari_cmunet.training.evaluation.metrics import cldice, dice, wrong_places
from napari_cmunet.training.finetuning import StartModel, model_card
from napari_cmunet.training.options import FinetuneOptions
from napari_cmunet.training.staged_finetuning import train_in_stages
from napari_cmunet.vessels.vesselness import compute_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.model.card import ModelCard


LABELS = 18
STAGES = ("adapted", "quick", "deep")
CPU = torch.device("cpu")


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
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--frames", type=int, default=20, help="to measure on")
    parser.add_argument("--labels", type=int, default=LABELS, help="of the draw")
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1])
    parser.add_argument("--readers", type=int, default=0, help="frames to correct")
    args = parser.parse_args()
    tune_malloc()
    for hospital in args.hospitals:
        for number in args.draws:
            train, rest = draw(args.data / hospital, number)
            rest = rest[:: max(1, len(rest) // args.frames)][: args.frames]
            corrected = rest[:: max(1, len(rest) // max(args.readers, 1))]
            corrected = corrected[: args.readers]
            train = train[: args.labels]
            for row in run(args.start, train, rest, number, args.until, corrected):
                drawn = {"hospital": hospital, "draw": number, "labels": len(train)}
                line = json.dumps(drawn | row)
                print(line, flush=True)
                with args.results.open("a", encoding="utf-8") as file:
                    print(line, file=file)


def run(
    name: str,
    train: list[Label],
    rest: list[Label],
    seed: int,
    until: str,
    corrected: Sequence[Label] = (),
) -> list[dict]:
    """One fine-tuning: rows for the start and for each stage's model."""
    options = FinetuneOptions(start=name, seed=seed)
    start = StartModel.load(options)
    assert start.model is not None
    rows = [row("start", measured(start.model, rest), (0.0, 0.0))]
    if corrected:
        rows[0]["reader_seconds"] = reader_seconds(start.model, corrected)
    before = {
        label.patient: scores[:2]
        for label, scores in zip(train, measured(start.model, train), strict=True)
    }
    stages = iter(STAGES)
    for chosen in (replace(options, train=False), options):
        began, cpu = time.monotonic(), time.process_time()
        for item in train_in_stages(
            start, chosen, train, [], read=lambda at: [train[i] for i in at], device=CPU
        ):
            if not isinstance(item, FinetuneResult):
                continue
            seconds = (time.monotonic() - began, time.process_time() - cpu)
            stage = next(stages)
            card = model_card(stage, start, chosen, len(train), item)
            model = model_of(start, item, card)
            rows.append(measured_stage(model, start, item, rest, seconds))
            pairs = {p: Pair(s, before[p]) for p, s in sorted(item.left_out.items())}
            verdict = judge("new", "start", "", pairs, left_out=TRAINED_WITHOUT)
            rows[-1]["verdict"] = verdict.outcome
            rows[-1]["gain"] = [
                round(x, 4)
                for x in (verdict.gain, verdict.gain_low, verdict.gain_high)
                if x is not None
            ]
            if corrected:
                rows[-1]["reader_seconds"] = reader_seconds(model, corrected)
            if stage == until:
                return rows
            began = time.monotonic() - seconds[0]
            cpu = time.process_time() - seconds[1]
    return rows


def model_of(start: StartModel, result: FinetuneResult, card: ModelCard) -> LoadedModel:
    """The model of a stage."""
    network = start.network()
    network.load_state_dict(result.weights)
    return LoadedModel(network.eval(), card, LoadReport(card.name, 0, 0, True))


def measured_stage(
    model: LoadedModel,
    start: StartModel,
    result: FinetuneResult,
    rest: list[Label],
    seconds: tuple[float, float],
) -> dict:
    """The row of a stage, also at the start's operating point."""
    own = replace(
        model.card,
        threshold=start.threshold(result.wise_ft_alpha),
        postprocessing=start.postprocessing,
    )
    made = row(model.card.name, measured(model, rest), seconds)
    made |= {"grid": model.card.preprocessing.grid, "threshold": model.card.threshold}
    at_own = measured(replace(model, card=own), rest)
    return made | {"at_start_point": means(at_own)}


def measured(
    model: LoadedModel, labels: Sequence[Label]
) -> list[tuple[float, float, int]]:
    """Dice, clDice and wrong places of each frame, cleaned up as users see it."""
    predictor = Predictor(model, CPU)
    found = []
    for label in labels:
        mask = mask_at(predictor.predict(label.frame), model.card.threshold)
        truth = label.mask
        found.append(
            (dice(mask, truth), cldice(mask, truth), wrong_places(mask, truth))
        )
    return found


def reader_seconds(model: LoadedModel, labels: Sequence[Label]) -> list[float]:
    """Seconds in which a simulated reader corrects the prediction for each frame."""
    predictor = Predictor(model, CPU)
    seconds = []
    for label in labels:
        probability = predictor.predict(label.frame)
        found = mask_at(probability, model.card.threshold)
        features = compute_features(label.frame, probability)
        correction = correct(features, found, label.mask, list(Action))
        seconds.append(round(correction.tally.seconds, 1))
    return seconds


def row(
    stage: str,
    scores: list[tuple[float, float, int]],
    seconds: tuple[float, float],
) -> dict:
    """One line of the results; seconds are those since Start, wall and processor."""
    return {
        "stage": stage,
        "frames": len(scores),
        "rest": means(scores),
        "seconds": round(seconds[0], 1),
        "cpu_seconds": round(seconds[1], 1),
    }


def means(scores: list[tuple[float, float, int]]) -> dict[str, float]:
    """Mean Dice, clDice and wrong places."""
    names = ("dice", "cldice", "wrong_places")
    return dict(zip(names, np.mean(scores, 0).round(4).tolist(), strict=True))


if __name__ == "__main__":
    main()
