"""A real study of phantoms, and trainings of tiny networks in real processes."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from qtpy.QtCore import QCoreApplication

from napari_cmunet.core.models import load_model, save_model
from napari_cmunet.core.network import CMUNet
from napari_cmunet.core.phantom import PhantomConfig, make_frame
from napari_cmunet.gui.training.training import Training
from napari_cmunet.study.study import Study

SIZE = 96
TINY = ("--start", "random", "--width", "4", "--grid", "64", "--batch", "4")
"""Options for a training that takes a second or two."""


@pytest.fixture(scope="session")
def phantoms():
    """Frames and masks of 12 synthetic patients."""
    seeds = iter(range(100))
    found = []
    while len(found) < 12:
        frame, mask = make_frame(PhantomConfig(size=SIZE, seed=next(seeds)))
        if mask.mean() > 0.01:
            found.append((frame, mask))
    return found


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def make_study(tmp_path, phantoms):
    """Make an open study of so many patients, one accepted label each."""
    made: list[Study] = []

    def make(patients: int, masks=None, accepted: int | None = None) -> Study:
        images = tmp_path / f"images-{len(made)}"
        for number, (frame, _) in enumerate(phantoms[:patients]):
            folder = images / f"Roe-{number:02d}"
            folder.mkdir(parents=True)
            np.save(folder / "frame.npy", frame)
        study = Study.create(tmp_path / f"study-{len(made)}", user="reader-1")
        made.append(study)
        study.images.add([images], lambda path: path.parts[0])
        for image in study.images.ids()[: patients if accepted is None else accepted]:
            accept(study, image, phantoms, masks)
        return study

    yield make
    for study in made:
        study.close()


def accept(study: Study, image: str, phantoms, masks=None) -> None:
    """Accept the true mask of an image, or another one."""
    number = study.images.ids().index(image)
    truth = phantoms[number][1]
    study.labels.accept(image, 0, truth if masks is None else masks[number])


@pytest.fixture
def add_model(tiny_model):
    """Put a network to use in a study: an untrained one, or one that finds arteries."""

    def add(study: Study, name: str, *, knows_arteries: bool) -> None:
        with study.models.new_folder() as new:
            if knows_arteries:
                shutil.copytree(tiny_model, new.folder, dirs_exist_ok=True)
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    weights = CMUNet(4).state_dict()
                card = replace(load_model(tiny_model).card, name=name)
                save_model(new.folder, weights, card)
            new.note_training({"version": 1, "labels": [], "learned_patients": []})
            new.finish(name)
        study.models.promote(name)

    return add


@pytest.fixture
def make_training(qtbot):
    """Make a training of a study; ended after the test whatever it does."""
    made: list[Training] = []

    def make(study: Study, *options: str) -> Training:
        training = Training(study, options=(*TINY, *options))
        made.append(training)
        settled(training)
        return training

    yield make
    for training in made:
        training.shut_down()
        assert wait_until(lambda t=training: not t.running, 20)


def wait_until(happened, seconds: float = 60) -> bool:
    """Let Qt go on until something has happened."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        QCoreApplication.processEvents()
        time.sleep(0.01)
    return True


def settled(training: Training, seconds: float = 120):
    """Wait until nothing is at work; returns how the last training ended."""
    assert wait_until(
        lambda: not training.running and not training.state().busy, seconds
    )
    return training.state().settled
