r"""Seconds from Start to a model in use, in a real window, at several hospitals.

For each hospital a project is made of the first frames of a draw and one more. Their
true masks stand in for a reader's corrections; all but the last are accepted, and
*Fine-tune* is pressed. Printed for each: how many pixels each frame had wrong, the
plan, the verdict, the seconds until a model was promoted and until the training had
ended, and Dice, clDice and wrong places on frames of patients that are not in the
project: of the bundled model, of the one in use before (perhaps adapted to the labels)
and of the last one. A picture of the window is saved at each stage. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" \
        python -m benchmarks.time_to_promotion OUT DATA --accept 10

DATA is that of :mod:`benchmarks.quick_finetune`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.quick_finetune import draw, means, measured
from benchmarks.whole_loop import Loop, read
from napari_cmunet.model.registry import DEFAULT_MODEL, find_model, load_model

if TYPE_CHECKING:
    import numpy as np

    from napari_cmunet.training.dataset import Label


class Frames:
    """Some frames of a hospital in a folder, and the mask of each."""

    def __init__(self, hospital: Path, labels: list[Label], home: Path) -> None:
        self.folder, self.patients = home / "angiograms", home / "patients.csv"
        self._masks: dict[str, np.ndarray] = {}
        self.folder.mkdir(parents=True)
        with self.patients.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["stem", "patient"])
            for number, label in enumerate(labels):
                source = next((hospital / "images").glob(f"{label.name}.*"))
                # Numbered, so that the list is in the order of the draw.
                copy = self.folder / f"{number + 1:02d}_{source.name}"
                shutil.copyfile(source, copy)
                table.writerow([copy.stem, label.patient])
                self._masks[copy.stem] = label.mask

    def of(self, loop: Loop) -> np.ndarray:
        """The true mask of the open image."""
        return self._masks[loop.reader.project.images.path(loop.opened.id).stem]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--hospitals", nargs="+", default=["ica_nj", "hospital_b", "hospital_c"]
    )
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--accept", type=int, default=10)
    parser.add_argument("--minutes", type=float, help="else as the panel has it")
    parser.add_argument("--start", help="else as the panel has it")
    parser.add_argument("--frames", type=int, default=12, help="to measure on")
    args = parser.parse_args()
    for hospital in args.hospitals:
        out = args.out / hospital
        shutil.rmtree(out, ignore_errors=True)
        os.environ["NAPARI_CMUNET_HOME"] = str(out / "home")
        labels, rest = draw(args.data / hospital, args.draw)
        labels, rest = [*labels, rest[0]], rest[1:]
        labels = [*labels[: args.accept], labels[-1]]  # one stays open
        rest = [x for x in rest if x.patient != labels[-1].patient]
        frames = Frames(args.data / hospital, labels, out / "home")
        report = {"hospital": hospital} | fine_tune(Loop(out, "dark"), frames, args)
        rest = rest[:: max(1, len(rest) // args.frames)][: args.frames]
        models = (find_model(DEFAULT_MODEL), report["before"], report["after"])
        for when, model in zip(("bundled", "before", "after"), models, strict=True):
            report[when] = means(measured(load_model(Path(model)), rest))
        print(json.dumps(report, indent=1), flush=True)


def fine_tune(loop: Loop, frames: Frames, args: argparse.Namespace) -> dict:
    """Correct and accept, press the button, wait until the training has ended."""
    from qtpy.QtTest import QTest

    from napari_cmunet.gui.training.state import LEARNING

    report: dict = {}
    read(loop, frames, args, report)
    section, reader = loop.panel.finetune, loop.reader
    report["before"] = str(reader.project.models.folder())
    training = reader.training.session
    loop.picture("before-start", section.status)
    loop.until(lambda: training.state().plan is not None, "the plan")
    report["plan"] = training.state().plan.text
    print(report["plan"], flush=True)
    loop.click(section.start)
    began = time.monotonic()
    promoted: list[float] = []
    pictured: set[str] = set()

    while training.running:
        QTest.qWait(200)  # not Loop.until, whose polling would take time from training
        if not promoted and loop.model != report["model_before"]:
            promoted.append(round(time.monotonic() - began, 1))
            print("promoted after", promoted[0], "s", flush=True)
        progress = training.state().progress
        for name, now in (
            ("learning", progress is not None and progress.phase == LEARNING),
            ("promoted", bool(promoted)),
        ):
            if now and name not in pictured:
                pictured.add(name)
                loop.picture(name, section.status)
    report["seconds_to_promotion"] = promoted[0] if promoted else None
    report["seconds_of_training"] = round(time.monotonic() - began, 1)
    result = training.state().result
    report["decision"], report["verdict"] = result.decision, result.text
    loop.rest(1)
    loop.picture("verdict", section.status)
    report["after"] = str(reader.project.models.folder())
    reader.close()
    loop.until(
        lambda: reader.project is None and reader.workspace.writer.idle, "closed"
    )
    loop.viewer.close()
    return report


if __name__ == "__main__":
    main()
