"""What the tests of the project make and look at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.model.card import CARD, ModelCard, Preprocessing
from napari_cmunet.model.registry import WEIGHTS
from napari_cmunet.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (40, 48)


def save_pictures(folder: Path, count: int, seed: int = 0) -> None:
    for number in range(count):
        patient = folder / f"patient-{number // 2}"
        patient.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([seed, number])
        frame = random.integers(1, 250, SHAPE, dtype=np.uint8)
        np.save(patient / f"frame-{number}.npy", frame)


def mask_of(seed: int) -> np.ndarray:
    """A mask, another for each seed."""
    return np.random.default_rng(seed).random(SHAPE) < 0.1


def reopened(project: Project, **options) -> Project:
    project.close()
    return Project.open(project.folder, **options)


def events(project: Project) -> list[str]:
    """What the journal says that was done."""
    return [entry.what for entry in project.journal()]


def save_model_folder(project: Project, name: str, weights: bytes = b"weights") -> Path:
    card = ModelCard(
        name=name,
        kind="artery",
        width=4,
        preprocessing=Preprocessing(),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    with project.models.new_folder() as new:
        (new.folder / WEIGHTS).write_bytes(weights)
        (new.folder / CARD).write_text(json.dumps(asdict(card)))
        figures = {"dice": 0.8, "labels": 3}
        new.note_training({"version": 1, "figures": figures, "labels": []})
        return new.finish(name)
