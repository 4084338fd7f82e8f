"""Kill two readers and a reviewer who take turns at one project."""

from __future__ import annotations

import os
import random
import signal
import traceback
from typing import TYPE_CHECKING

from tests.endurance.crash.ledger import Ledger, hash_of
from tests.endurance.crash.pipe import Told, teller
from tests.endurance.crash.reader_without_window import Reader

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

SECOND = "0123abcd"
READER_ACTS = ["accept"] * 5 + ["stroke"] * 3 + ["take back", "restore", "mark"]
REVIEWER_ACTS = ["merge"] * 5 + ["reject"] * 3 + ["admit", "stroke", "restore"]


class Reviewer(Reader):
    """Merges two readers' labels, and rejects them."""

    acts = REVIEWER_ACTS

    def _readings(self, image: str) -> dict[str, object]:
        readings = self.project.reference.readings().get((image, 0), ())
        return {r: self.project.readers[r].get(image, 0) for r in readings}

    def _merge(self, image: str) -> None:
        masks = [label.mask for label in self._readings(image).values()]
        if not masks:
            return
        mask = masks[0] | masks[-1] if self.choose.random() < 0.5 else masks[-1].copy()
        told = {"act": "accept", "image": image, "pixels": hash_of(mask)}
        self.tell({"kind": "begin", **told})
        accepted = self.project.labels.accept(image, 0, mask)
        self._last[image, 0] = accepted
        self.tell({"kind": "done", **told, "file": accepted.sha256})

    def _reject(self, image: str) -> None:
        readers = list(self._readings(image))
        if readers:
            reader = self.choose.choice(readers)
            sha256 = self.project.readers[reader].hash(image, 0)
            reason = f"reason {self.choose.randrange(1000)}"
            self._change(
                f"rejected:{sha256}",
                reason,
                lambda: self.project.reject(reader, image, 0, reason),
            )

    def _admit(self, image: str) -> None:
        for reader, labels in self.project.readers.items():
            sha256 = labels.hash(image, 0)
            if self.project.reviews.rejection(sha256):
                self._change(
                    f"rejected:{sha256}",
                    "",
                    lambda r=reader: self.project.admit(r, image, 0),
                )


class OneOfTwo(Reader):
    """Reads as in a project of one reader, but leaves models and title alone."""

    acts = READER_ACTS


def run(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Kill whoever is at work, then look at what all have done."""
    from napari_cmunet.project.readers.readers import FIRST_READER, REVIEWER
    from tests.endurance.crash.phantom_project import make_project

    folder = make_project(args.folder, 6, model=False)
    ledgers = {r: Ledger(reader=r) for r in (FIRST_READER, SECOND, REVIEWER)}
    kills = dict.fromkeys(("first reader", "second reader", "reviewer"), 0)
    for number in range(args.rounds):
        choose = random.Random(f"{args.seed} {number}")
        turn = number % 3
        reader = list(ledgers)[turn]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _work(args, folder, reader, choose, writing)
        os.close(writing)
        told = Told(reading, ledgers[reader])
        try:
            if choose.random() > 0.15:  # some die while they open the project
                told.hear_until("opened", 30)
                told.hear_notes(5 + choose.randrange(60), 10)
            told.hear_for(choose.uniform(0, 0.02))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        told.close()
        kills[list(kills)[turn]] += 1
        for one in ledgers.values():
            one.check(folder, args.spare / "copy")
    for reader, one in ledgers.items():
        for act, count in one.done.items():
            ledger.done[f"{reader or 'first'} {act}"] += count
        ledger.checked_drafts += one.checked_drafts
    return {"kills": kills}


def _work(
    args: argparse.Namespace,
    folder: Path,
    reader: str,
    choose: random.Random,
    writing: int,
) -> None:
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.readers.readers import REVIEWER

    tell = teller(writing)
    try:
        project = Project.open(folder, user="account", reader=reader)
        tell({"kind": "opened"})
        kind = Reviewer if reader == REVIEWER else OneOfTwo
        at_work = kind(project, choose, tell, args.folder / "exports")
        while True:
            at_work.act()
    except BaseException:  # noqa: BLE001
        tell({"kind": "fault", "text": traceback.format_exc()})
    os._exit(1)
