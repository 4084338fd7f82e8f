r"""The whole loop in a real window, driven by its buttons, with the truth as reader.

A folder of frames becomes a study; the truth masks stand in for a reader's
corrections; some are accepted, the model is fine-tuned, put to use or refused, rolled
back, brought forward; the labels are exported, the study is closed and opened again. A
picture of the window is saved at each stage, and the Dice on frames of patients that
are not in the study is printed before and after. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" \\
        python scripts/whole_loop.py DATA OUT --accept 10 --minutes 3

``DATA`` holds ``images``, ``masks`` and ``index.csv`` (stem, split, patient).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 1200


class Loop:
    """A window, its panel, and what a hand does with them."""

    def __init__(self, out: Path) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.out, self.app = out, QApplication
        self.viewer = napari.Viewer(title="napari-cmunet")
        self.viewer.window.resize(1440, 900)
        _, self.panel = self.viewer.window.add_plugin_dock_widget(
            "napari-cmunet", "CM-UNet"
        )
        self.reader = self.panel.study
        self.shots = 0

    def until(self, done: Callable[[], bool], what: str) -> float:
        """Let the window live until something is so; returns the seconds."""
        began = time.monotonic()
        while not done():
            self.app.processEvents()
            time.sleep(0.005)
            if time.monotonic() - began > PATIENCE_SECONDS:
                self.picture(f"no-{what}")
                sys.exit(f"nothing came of: {what}")
        return time.monotonic() - began

    def rest(self, seconds: float = 0.6) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "rest")

    def click(self, button) -> None:
        """As a mouse would, where a mouse could."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        self.rest(0.2)
        if not button.isEnabled() or not button.isVisible():
            self.picture("dead-button")
            sys.exit(f"{button.text()!r} cannot be clicked: {button.toolTip()!r}")
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.app.processEvents()

    def picture(self, name: str, section=None) -> None:
        """Save the window as PNG."""
        if section is not None:
            self._scroll_to(section)
        self.rest()
        self.shots += 1
        path = self.out / f"{self.shots:02d}-{name}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)

    def _scroll_to(self, widget) -> None:
        parent = widget.parent()
        while parent is not None and not hasattr(parent, "ensureWidgetVisible"):
            parent = parent.parent()
        if parent is not None:
            parent.ensureWidgetVisible(widget)

    @property
    def opened(self):
        """The study's open image."""
        return self.reader.browsing.current

    def ready(self) -> bool:
        """Whether the open image can be corrected and accepted."""
        return self.opened is not None and not self.reader.accepting.why_not()

    def correct(self, truth: np.ndarray) -> int:
        """Set the pixels that are wrong, in one undoable step; returns how many."""
        mask = self.opened.reading.mask
        wrong = np.nonzero((mask.data != 0) != truth)
        if len(wrong[0]):
            mask.data_setitem(wrong, truth[wrong].astype(mask.data.dtype))
        self.rest(0.1)
        return len(wrong[0])


def main() -> int:
    """Go round the loop; 0 if every stage was reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--accept", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--start", default="cmunet-ssl")
    parser.add_argument("--every", type=int, default=1, help="n-th val frame measured")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ["NAPARI_CMUNET_HOME"] = home
        report = run(args, Path(home))
    print(json.dumps(report, indent=1))
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return 0


def run(args: argparse.Namespace, home: Path) -> dict:
    """The stages, one after the other."""
    from napari_cmunet.gui.study.opening_job import NewStudy
    from napari_cmunet.io.masks import read_mask
    from napari_cmunet.study.patients import by_csv

    rows = read_index(args.data / "index.csv")
    chosen = choose(rows, args.images, args.patients)
    folder = home / "angiograms"
    folder.mkdir()
    truth_of: dict[str, Path] = {}
    index = home / "patients.csv"
    with index.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["stem", "patient"])
        for number, row in enumerate(chosen):
            # Numbered, so that the list has the patients in turn.
            stem = f"{number + 1:02d}_{row['stem']}"
            source = f"{row['stem']}.png"
            shutil.copyfile(args.data / "images" / source, folder / f"{stem}.png")
            table.writerow([stem, row["patient"]])
            truth_of[stem] = args.data / "masks" / source
    report: dict = {"images": len(chosen), "accepted": args.accept}
    loop = Loop(args.out)
    reader, panel = loop.reader, loop.panel
    loop.picture("first-start")
    reader.create(NewStudy(home / "study", (folder,), by_csv(index)))
    report["seconds_to_first_image"] = round(loop.until(loop.ready, "first image"), 2)
    reader.study.change_settings(minutes=args.minutes, start=args.start)
    loop.picture("opened-pre-segmented")
    report["val_before"] = measure("cmunet-artery", args, rows)
    report["pixels_corrected"] = []
    for number in range(args.accept):
        loop.until(loop.ready, "an image to correct")
        path = reader.study.images.path(loop.opened.id)
        truth = read_mask(truth_of[path.stem]) != 0
        report["pixels_corrected"].append(loop.correct(truth))
        if number == 1:
            loop.picture("corrected")
        loop.click(panel.study_section.page.accept)
        loop.until(lambda: reader.writer.idle, "accept")
        if number == 1:
            loop.picture("accepted")
        before = loop.opened
        loop.click(panel.study_section.page.next)
        loop.until(lambda b=before: loop.opened is not b, "next")
    loop.until(loop.ready, "the next image")
    training = reader.learning.training
    loop.picture("before-training", panel.finetune)
    loop.click(panel.finetune.start)
    began = time.monotonic()
    loop.until(
        lambda: (
            not training.running
            or (training.state().progress and training.state().progress.losses)
        ),
        "the first steps",
    )
    report["seconds_to_first_loss"] = round(time.monotonic() - began, 1)
    loop.rest(args.minutes * 30)
    loop.picture("training", panel.finetune)
    loop.until(lambda: not training.running, "the end of the training")
    report["seconds_of_training"] = round(time.monotonic() - began, 1)
    settled = training.state().settled
    report["decision"] = settled.decision
    report["verdict"] = settled.outcome.text
    loop.rest(1)
    loop.picture("verdict", panel.finetune)
    if not settled.outcome.model:
        return report
    if settled.decision == "undecided":
        loop.click(panel.finetune.use)
    elif settled.decision == "refused":
        training.choose(
            next(
                v for v in training.state().versions if v.name == settled.outcome.model
            )
        )
    in_use = lambda name: reader.study.models.current.name == name  # noqa: E731
    loop.until(lambda: in_use(settled.outcome.model), "the new model in use")
    report["seconds_to_new_model"] = round(time.monotonic() - began, 1)
    loop.rest(1)
    loop.until(lambda: not panel.controller.runner.running, "predicting anew")
    loop.picture("found-now-gone-now", panel.study_section)
    report["val_after"] = measure(reader.study.models.folder(), args, rows)
    before = loop.opened
    loop.click(panel.study_section.page.next)
    loop.until(lambda: loop.opened is not before and loop.ready(), "the reveal")
    loop.picture("next-image-by-new-model")
    loop.click(panel.finetune.back)
    loop.until(lambda: in_use("cmunet-artery"), "rolled back")
    loop.rest(1)
    loop.picture("rolled-back", panel.finetune)
    loop.click(panel.finetune.forward)
    loop.until(lambda: in_use(settled.outcome.model), "forward")
    loop.rest(1)
    labels = reader.study.labels.keys()
    reader.close()
    loop.until(lambda: reader.study is None and reader.writer.idle, "closed")
    loop.picture("closed")
    reader.open(home / "study")
    loop.until(lambda: reader.study is not None and loop.ready(), "opened again")
    loop.picture("opened-again")
    assert reader.study.labels.keys() == labels
    assert in_use(settled.outcome.model)
    report["labels_after_reopening"] = len(labels)
    reader.close()
    loop.until(lambda: reader.study is None and reader.writer.idle, "closed")
    loop.viewer.close()
    return report


def read_index(path: Path) -> list[dict[str, str]]:
    """Rows of index.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def choose(rows: list[dict[str, str]], images: int, patients: int) -> list[dict]:
    """Frames of the first patients of the training split, in turn."""
    of: dict[str, list[dict]] = {}
    for row in rows:
        if row["split"] == "train":
            of.setdefault(row["patient"], []).append(row)
    groups = list(of.values())[:patients]
    longest = max(map(len, groups))
    in_turn = [g[i] for i in range(longest) for g in groups if i < len(g)]
    return in_turn[:images]


def measure(model, args: argparse.Namespace, rows: list[dict[str, str]]) -> dict:
    """Dice and clDice on the val frames, on their own grid."""
    from napari_cmunet.commands.label_folders import read_label_folders
    from napari_cmunet.core.device import choose_device
    from napari_cmunet.core.metrics import score
    from napari_cmunet.core.models import load_model
    from napari_cmunet.core.predict import Predictor
    from napari_cmunet.core.threshold import mask_at

    loaded = load_model(model)
    predictor = Predictor(loaded, choose_device("auto"))
    stems = [r["stem"] for r in rows if r["split"] == "val"][:: args.every]
    images, masks = (
        [args.data / kind / f"{stem}.png" for stem in stems]
        for kind in ("images", "masks")
    )
    scores = [
        score(mask_at(predictor.predict(x.frame), loaded.card.threshold), x.mask)
        for x in read_label_folders(images, masks, None).labels
    ]
    return {
        "frames": len(scores),
        "dice": round(float(np.mean([s.dice for s in scores])), 4),
        "cldice": round(float(np.mean([s.cldice for s in scores])), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
