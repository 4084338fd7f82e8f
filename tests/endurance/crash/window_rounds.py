"""Rounds of crash_driver.py with the real window: each opens what the last one left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.project.training.worker import COMMAND
from tests.endurance.crash.ledger import Ledger, must
from tests.endurance.crash.phantom_project import make_project

if TYPE_CHECKING:
    import argparse

_TRAINER_SECONDS = 120  # it first imports torch, and hears nothing meanwhile


def run(args: argparse.Namespace, ledger: Ledger) -> dict[str, object]:
    """Kill the window so many times."""
    from tests.endurance.crash.pipe import Told
    from tests.endurance.crash.reader_in_window import import_all, read_until_killed

    folder = make_project(args.folder, versions=2)
    import_all()
    kills = {"at work": 0, "while starting": 0, "while training": 0}
    failing = 0
    seen = 0  # reopened with the very strokes or label on the screen
    for number in range(args.rounds):
        choose = random.Random(f"{args.seed} {number}")
        faults = args.faults if number % 3 == 2 else 0.0
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _log_to(args.folder / "window.log")
            read_until_killed(
                folder,
                args.folder / "exports",
                writing,
                f"{args.seed} {number}",
                faults,
            )
        os.close(writing)
        told = Told(reading, ledger)
        early = choose.random() < 0.12
        try:
            if early:
                told.hear_for(choose.uniform(0, 6))
            else:
                opened = told.hear_until("opened", 600)
                must(opened or bool(told.fault), "the window did not open the project")
                told.hear_notes(choose.randrange(25), 60)
                told.hear_for(choose.uniform(0, 0.4))
            trainers = _trainers(child)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        told.close()
        kills["while starting" if early else "at work"] += 1
        kills["while training"] += bool(trainers)
        failing += faults > 0
        if "opened" in told.notes:
            seen += _shown_again(told.notes["opened"], ledger.shown)
        end = time.monotonic() + _TRAINER_SECONDS
        while left := [pid for pid in trainers if _is_trainer(pid)]:
            must(time.monotonic() < end, f"a trainer outlived its window: {left}")
            time.sleep(0.1)
        ledger.check(folder, args.spare / "copy")
        print(f"round {number + 1}: {dict(ledger.done)}", file=sys.stderr, flush=True)
    return {
        "kills": sum(kills[k] for k in ("at work", "while starting")),
        **{f"killed {k}": v for k, v in kills.items()},
        "of them with a failing disk": failing,
        "masks seen again in the window": seen,
    }


def _shown_again(opened: dict, expected: dict[tuple[str, int], str]) -> bool:
    """Whether the window showed the strokes or label of before; raises Lost if not."""
    must(not opened["asked"], f"the window asked on opening: {opened['asked']}")
    key = (opened["image"], opened["frame"])
    if key not in expected:
        return False
    must(opened["pixels"] == expected[key], f"the window shows another mask of {key}")
    return True


def _log_to(path: Path) -> None:
    with path.open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)


def _trainers(window: int) -> list[int]:
    """The training processes of a window (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = path.read_text().rpartition(")")[2].split()[1]
            if int(parent) == window and _is_trainer(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


def _is_trainer(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(COMMAND[-1]) in words
