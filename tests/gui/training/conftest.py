"""A real project of phantoms, and trainings of tiny networks in real processes."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from qtpy.QtCore import QCoreApplication

from napari_cmunet.gui.training.session import TrainingSession
from napari_cmunet.model.network import CMUNet
from napari_cmunet.model.registry import load_model, save_model, user_models_folder
from napari_cmunet.project.project import Project
from napari_cmunet.project.training import worker

SIZE = 96

#: A training without a first stage and folds, where it matters only that one ends.
BARE = {"start": "random", "width": 2, "grid": 64, "steps": 2, "validate": False}


@pytest.fixture(scope="session")
def phantoms():
    """Frames and masks of 15 synthetic patients, easy enough for a tiny network."""
    return [_draw(seed) for seed in range(15)]


def _draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two winding dark vessels on a bright, noisy ground."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    mask = np.zeros((SIZE, SIZE), bool)
    for middle in (0.3, 0.7):
        bend = random.uniform(4, 9) * np.sin(columns / random.uniform(8, 14))
        mask |= abs(rows - middle * SIZE - bend) < random.uniform(3, 4.5)
    frame = np.where(mask, 70, 170) + random.normal(0, 8, mask.shape)
    return frame.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(autouse=True)
def forked(forked_trainings):
    """Let training processes start with torch imported, where that can be."""


@pytest.fixture
def spawned(forked, monkeypatch):
    """Start training processes as the window does."""
    monkeypatch.setattr(worker, "subprocess", subprocess)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def make_project(tmp_path, phantoms, tiny_model):
    """Make an open project of so many patients, one accepted label each.

    A tiny installed model is in use: new ones are soon compared with it.
    """
    installed = user_models_folder() / tiny_model.name
    shutil.copytree(tiny_model, installed, dirs_exist_ok=True)
    made: list[Project] = []

    def make(patients: int, masks=None, accepted: int | None = None) -> Project:
        images = tmp_path / f"images-{len(made)}"
        for number, (frame, _) in enumerate(phantoms[:patients]):
            folder = images / f"Roe-{number:02d}"
            folder.mkdir(parents=True)
            np.save(folder / "frame.npy", frame)
        project = Project.create(tmp_path / f"project-{len(made)}", user="reader-1")
        made.append(project)
        project.images.add([images], lambda path: path.parts[0])
        project.models.promote(tiny_model.name, installed=True)
        for image in project.images.ids()[: patients if accepted is None else accepted]:
            accept(project, image, phantoms, masks)
        return project

    yield make
    for project in made:
        project.close()


def accept(project: Project, image: str, phantoms, masks=None) -> None:
    """Accept the true mask of an image, or another one."""
    number = project.images.ids().index(image)
    truth = phantoms[number][1]
    project.labels.accept(image, 0, truth if masks is None else masks[number])


@pytest.fixture
def add_model(tiny_model):
    """Put a network to use in a project: one that finds arteries, or nothing at all."""

    def add(project: Project, name: str, *, knows_arteries: bool) -> None:
        with project.models.new_folder() as new:
            if knows_arteries:
                shutil.copytree(tiny_model, new.folder, dirs_exist_ok=True)
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    weights = CMUNet(4).state_dict()
                weights["conv_last.weight"] *= 0
                weights["conv_last.bias"] = torch.tensor([5.0, -5.0])
                card = replace(load_model(tiny_model).card, name=name)
                save_model(new.folder, weights, card)
            new.note_training({"version": 1, "labels": [], "learned_patients": []})
            new.finish(name)
        project.models.promote(name)

    return add


@pytest.fixture
def make_training(qtbot, tiny_model):
    """Make a training of a tiny network that starts where one knows arteries already.

    It is ended after the test whatever it does.
    """
    made: list[TrainingSession] = []

    def make(project: Project, device="auto", **options) -> TrainingSession:
        training = TrainingSession(
            project,
            device=lambda: device,
            options={"start": str(tiny_model), "batch": 4, **options},
        )
        made.append(training)
        settled(training)
        return training

    yield make
    for training in made:
        training.close()
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


def settled(training: TrainingSession, seconds: float = 120):
    """Wait until nothing is at work; returns how the last training ended.

    A busy machine may take long, but something happens all the time: it must not be
    quiet for so many seconds.
    """
    heard = Event()

    def at_rest() -> bool:
        return not training.running and not training.state().busy

    training.changed.connect(heard.set)
    while not at_rest():
        heard.clear()
        assert wait_until(lambda: heard.is_set() or at_rest(), seconds)
    training.changed.disconnect(heard.set, missing_ok=True)
    return training.state().result


@pytest.fixture
def clock():
    """A promise kept: what is done inside takes so many seconds at most.

    Machines differ, and one may be busy with other work: they are given three times as
    long, which a process that hangs or finishes its training first still exceeds.
    """

    @contextmanager
    def within(seconds: float):
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        assert took < 3 * seconds, f"{took:.1f} s"

    return within
