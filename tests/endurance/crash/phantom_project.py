"""A project of small synthetic angiograms and a tiny model, to be crashed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "tiny"
SIZE, DRAWN = 256, 2


def make_home(folder: Path) -> None:
    """Let this process and its children have a user's folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["NAPARI_CMUNET_HOME"] = str(folder)
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")


def make_project(
    folder: Path, images: int = 8, *, model: bool = True, versions: int = 0
) -> Path:
    """Make a project of phantom frames, two of each patient; returns its folder.

    Beyond a few they are shifted ones.
    With ``model``, a network of width 4 with random weights is installed and in use,
    and trainings start from it: it learns in seconds. So many ``versions`` of it have
    been put to use after it, to go back and forward among.
    """
    from napari_cmunet.project.project import Project
    from napari_cmunet.synthetic import PhantomConfig, make_frame

    seeds = range(1, 1 + min(DRAWN, images))
    drawn = [make_frame(PhantomConfig(size=SIZE, seed=seed))[0] for seed in seeds]
    pictures = folder / "pictures"
    for number in range(images):
        place = pictures / f"patient-{number // 2:02d}"
        place.mkdir(parents=True, exist_ok=True)
        frame = np.roll(drawn[number % DRAWN], number // DRAWN, axis=1)
        np.save(place / f"frame-{number:02d}.npy", frame)
    with Project.create(folder / "project", user="reader-1") as project:
        project.images.add([pictures], lambda path: path.parts[0])
        if model:
            install_model()
            project.models.promote(MODEL, installed=True, reason="chosen")
            project.change_settings(start=MODEL, minutes=0.2)
        for number in range(versions):
            name = f"before-{number}"
            with project.models.new_folder() as new:
                _save_model(new.folder, name)
                new.finish(name)
            project.models.promote(name, reason="chosen")
        return project.folder


def install_model() -> None:
    """Install a network of width 4 with random weights, which learns in seconds."""
    from napari_cmunet.model.registry import user_models_folder

    _save_model(user_models_folder() / MODEL, MODEL)


def _save_model(folder: Path, name: str) -> None:
    import torch

    from napari_cmunet.model.card import ModelCard, Preprocessing
    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.model.registry import save_model

    torch.manual_seed(0)
    weights = CMUNet(4).state_dict()
    weights["conv_last.bias"] = torch.tensor([2.0, -2.0])  # it finds little
    card = ModelCard(
        name=name,
        kind="artery",
        width=4,
        preprocessing=Preprocessing(grid=64),
        threshold=0.5,
    )
    save_model(folder, weights, card)
