"""Rounds of crash_driver.py with several programs on one project at the same time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import CMUNetError, LockLostError
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.project.lock import ProjectLockedError
from napari_cmunet.project.project import Project
from tests.endurance.crash.command_rounds import command
from tests.endurance.crash.ledger import Ledger, Lost, hash_of, must
from tests.endurance.crash.phantom_project import make_project

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def run(args: argparse.Namespace, ledger: Ledger) -> dict[str, object]:
    """Let two readers take the project from each other while the commands run on it."""
    from tests.endurance.crash.pipe import Told, teller

    folder = make_project(args.folder, 6)
    first = _Reader(folder, args.seed)
    for image in first.ids():  # so that there is something to learn and to export
        first.accept(image, ledger.note)
    first.project.close()
    figures = {"commands": 0, "refused": 0, "taken over": 0, "kills": 0}
    for number in range(args.rounds):
        choose = random.Random(f"{args.seed} {number}")
        children = []
        for reader in range(2):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reading)
                _read(folder, f"{args.seed} {number} {reader}", teller(writing))
            os.close(writing)
            children.append((child, Told(reading, ledger)))
        names = ["finetune", "export", "segment"]
        log = (args.folder / f"commands-{number}.log").open("wb")
        running = [
            subprocess.Popen(command(n, folder, args.folder), stdout=log, stderr=log)
            for n in names
        ]
        if choose.random() < 0.5:
            time.sleep(choose.uniform(0, 5))
            running[0].send_signal(signal.SIGKILL)
            figures["kills"] += 1
        while any(process.poll() is None for process in running):
            for _, told in children:
                told.hear()
            time.sleep(0.01)
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            figures["kills"] += 1
        log.close()
        for told in (t for _, t in children):
            told.close()
            figures["refused"] += told.kinds["locked"]
            figures["taken over"] += told.kinds["lost the lock"]
        for name, process in zip(names, running, strict=True):
            figures["commands"] += 1
            must(
                process.returncode in (0, -signal.SIGKILL),
                f"{name} failed beside a reader: {log.name}",
            )
        _check(args, folder, ledger)
        print(f"round {number + 1}: {figures}", file=sys.stderr, flush=True)
    return {"rounds": args.rounds, **figures}


class _Reader:
    """Accepts masks, as fast as it can."""

    def __init__(self, folder: Path, seed: object, **how: bool) -> None:
        self.project = Project.open(folder, **how)
        self._choose = random.Random(str(seed))

    def ids(self) -> list[str]:
        return self.project.images.ids()

    def accept(self, image: str, tell) -> None:
        random_mask = np.random.default_rng(self._choose.randrange(2**32))
        mask = random_mask.random((256, 256)) < 0.05
        told = {"act": "accept", "image": image, "pixels": hash_of(mask)}
        tell({"kind": "begin", **told})
        accepted = self.project.labels.accept(image, 0, mask)
        tell({"kind": "done", **told, "file": accepted.sha256})


def _read(folder: Path, seed: str, tell) -> None:
    """Open, or take over, and accept; until killed."""
    import traceback

    choose = random.Random(seed)
    try:
        while True:
            try:
                reader = _Reader(folder, seed, break_lock=choose.random() < 0.02)
            except ProjectLockedError:
                tell({"kind": "locked"})
                time.sleep(0.05)
                continue
            try:
                for _ in range(choose.randrange(1, 20)):
                    reader.accept(choose.choice(reader.ids()), tell)
                reader.project.close()
            except LockLostError:
                tell({"kind": "lost the lock"})
    except (CMUNetError, OSError, ValueError):
        tell({"kind": "fault", "text": traceback.format_exc()})
    os._exit(1)


def _check(args: argparse.Namespace, folder: Path, ledger: Ledger) -> None:
    """Every label that was shown as accepted is there, now or among the older ones.

    Which of two readers came last cannot be told from what they said.
    """
    for key, told in ledger.labels.items():
        ledger.begun[key] += [one for one in told if one not in ledger.begun[key]]
        ledger.begun[key] += ledger.all_labels(key)
    ledger.check(folder, args.spare / "copy")
    for path in [
        *(args.folder / "exports").rglob("[!.]*.tif"),
        *(args.folder / "masks").rglob("[!.]*.tif"),
    ]:
        try:
            read_mask(path)
        except CMUNetError as error:
            raise Lost(f"half a mask: {error}") from error
