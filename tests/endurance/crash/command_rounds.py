"""Rounds of crash_driver.py with the command line: commands are killed as they run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ModelError
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.project.project import Project
from tests.endurance.crash.ledger import Ledger, hash_of, must
from tests.endurance.crash.phantom_project import MODEL, make_project

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

LABELS = 6


def run(args: argparse.Namespace, ledger: Ledger) -> dict[str, object]:
    """Kill ``finetune``, ``export`` and ``segment`` in turn, so many times in all."""
    folder = make_project(args.folder)
    _accept_some(folder, ledger)
    kills = {"finetune": 0, "export": 0, "segment": 0}
    finished = models = 0
    usual = dict.fromkeys(kills, 15.0)
    for number in range(args.rounds):
        choose = random.Random(f"{args.seed} {number}")
        name = list(kills)[number % 3]
        began = time.monotonic()
        # The first of each runs to its end, which tells how long it takes.
        limit = 600.0 if number < 3 else choose.uniform(0.2, 1.1) * usual[name]
        ended = _start(command(name, folder, args.folder), args.folder, limit)
        if number < 3:
            must(ended == 0, f"{name} does not work: see commands.log")
            usual[name] = time.monotonic() - began
        kills[name] += ended is None
        finished += ended is not None
        ledger.check(folder, args.spare / "copy")
        models = max(models, _check_models(folder))
        for path in (args.folder / "masks").rglob("[!.]*.tif"):
            read_mask(path)
        text = f"round {number + 1}: {name} {'killed' if ended is None else 'ended'}"
        print(text, file=sys.stderr, flush=True)
    # What was stopped anywhere goes on where it was.
    must(
        _start(command("segment", folder, args.folder), args.folder, 600) == 0,
        "segment does not go on after a kill",
    )
    masks = list((args.folder / "masks").rglob("[!.]*.tif"))
    images = list((args.folder / "pictures").rglob("*.npy"))
    must(len(masks) == len(images), "segment left images out after a kill")
    return {
        "kills": sum(kills.values()),
        "killed": kills,
        "ended first": finished,
        "models whole": models,
    }


def command(name: str, project: Path, folder: Path) -> list[str]:
    """The words of a command."""
    python = [sys.executable, "-m", "napari_cmunet", name]
    if name == "finetune":
        return [*python, str(project), "--steps", "6", "--batch", "2"]
    if name == "export":
        return [*python, str(project), "-o", str(folder / "exports"), "--overwrite"]
    pictures, masks = str(folder / "pictures"), str(folder / "masks")
    return [*python, pictures, "-o", masks, "--model", MODEL]


def _start(words: list[str], folder: Path, seconds: float) -> int | None:
    """Run a command; its exit code, or None if it was killed after some seconds."""
    with (folder / "commands.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


def _accept_some(folder: Path, ledger: Ledger) -> None:
    random_masks = np.random.default_rng(0)
    with Project.open(folder) as project:
        for image in project.images.ids()[:LABELS]:
            shape = np.load(project.images.path(image)).shape
            mask = random_masks.random(shape) < 0.05
            accepted = project.labels.accept(image, 0, mask)
            told = {"act": "accept", "image": image, "pixels": hash_of(mask)}
            ledger.note({"kind": "done", **told, "file": accepted.sha256})
    ledger.exports.add(os.fspath(folder.parent / "exports"))


def _check_models(folder: Path) -> int:
    """How many models there are; each loads."""
    from napari_cmunet.model.registry import load_model

    with Project.open(folder, read_only=True) as project:
        names = project.models.names()
        for name in names:
            try:
                load_model(project.models.folder(project.models.version(name)))
            except ModelError as error:
                must(False, f"half a model: {error}")
        return len(names)
