"""Kill the import of masks at random instants; the next one goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_cmunet.io.masks.label_file import read_label
from napari_cmunet.project.labels.mask_import import (
    ImportOptions,
    plan_import,
    run_import,
)
from napari_cmunet.project.project import Project
from tests.endurance.crash.ledger import must
from tests.endurance.crash.phantom_project import make_project

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from tests.endurance.crash.ledger import Ledger

IMAGES = 24
_OPTIONS = ImportOptions(any_orientation=True, replace=True)


def run(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Import again and again; every round brings other masks."""
    folder = make_project(args.folder, IMAGES, model=False)
    masks = args.folder / "masks"
    masks.mkdir()
    choose = random.Random(args.seed)
    kills, halves = 0, 0
    truth = _write_masks(folder, masks, 0)
    former = dict.fromkeys(truth)
    round_number = 0
    while kills < args.rounds:
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            _child(folder, masks, begins)
        os.close(begins)
        if choose.random() > 0.15:  # some die while they look at the masks
            os.read(begun, 1)
        time.sleep(choose.uniform(0, 0.5))
        os.close(begun)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        done = _check(folder, truth, former)
        halves += 0 < done < IMAGES
        ledger.done["import"] += done
        if done == IMAGES:
            round_number += 1
            former, truth = truth, _write_masks(folder, masks, round_number)
    return {"kills": kills, "of them in the middle": halves, "imports": round_number}


def _write_masks(folder: Path, masks: Path, number: int) -> dict[str, np.ndarray]:
    truth = {}
    with Project.open(folder, read_only=True) as project:
        for record in project.images:
            shape = np.load(project.images.path(record.id)).shape[-2:]
            random_mask = np.random.default_rng([number, int(record.id, 16)])
            truth[record.id] = random_mask.random(shape) < 0.05
            Image.fromarray(truth[record.id]).save(masks / f"{record.id}.png")
    return truth


def _child(folder: Path, masks: Path, begins: int) -> None:
    with Project.open(folder) as project:
        plan = plan_import(project, [masks], _OPTIONS)
        os.write(begins, b"!")
        result = run_import(project, plan, _OPTIONS)
        os._exit(1 if result.problems or plan.problems else 0)


def _check(folder: Path, truth: dict, former: dict) -> int:
    """Each label is the former or the new one, bit for bit; count the new ones."""
    done = 0
    with Project.open(folder) as project:
        hashes = {
            entry.image: entry.details["sha256"]
            for entry in project.journal()
            if "sha256" in entry.details and entry.image
        }
        for image, mask in truth.items():
            label = project.labels.get(image, 0)
            if label is None:
                must(former[image] is None, "a label is gone")
                continue
            is_new = np.array_equal(label.mask, mask)
            old = former[image]
            must(
                is_new or (old is not None and np.array_equal(label.mask, old)),
                "a label is neither the former nor the new one",
            )
            must(label.provenance.imported_from == "PNG", "the origin is lost")
            found = project.labels.hash(image, 0)
            must(hashes.get(image) == found, "the journal tells of another label")
            for older in project.labels.older(image, 0):
                read_label(older.path)
            done += is_new
    return done
