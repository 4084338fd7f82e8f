r"""The whole loop in a real window, driven by its buttons, with the truth as reader.

A folder of frames becomes a project; the truth masks stand in for a reader's
corrections; some are accepted, the model is fine-tuned; what it would change is looked
at; it is put to use, rolled back, brought forward; the labels are exported, the project
is closed, opened again and gone on with. A picture of the window is saved at each
stage, and the Dice on frames of patients that are not in the project is printed before
and after. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" \\
        python -m benchmarks.whole_loop OUT DATA --accept 10

``DATA`` holds ``images``, ``masks`` and ``index.csv`` (stem, split, patient). Without
it: synthetic angiograms. So the pictures of the documentation are made::

    ... benchmarks/whole_loop.py OUT --images 6 --accept 4 --minutes 5 --pictures docs
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 1800
LARGEST_PICTURE = 300_000
DOCUMENTED = ("accepted", "training", "before-it-is-decided")


class Loop:
    """A window, its panel, and what a hand does with them."""

    def __init__(self, out: Path, theme: str) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.out, self.app = out, QApplication
        self.viewer = napari.Viewer(title="napari-cmunet")
        self.viewer.theme = theme
        self.viewer.window.resize(1440, 900)
        _, self.panel = self.viewer.window.add_plugin_dock_widget(
            "napari-cmunet", "CM-UNet"
        )
        self.reader = self.panel.project
        self.shots = 0

    def until(self, done: Callable[[], bool], what: str) -> float:
        """Let the window live until something is so; returns the seconds."""
        began = time.monotonic()
        while not done():
            self.app.processEvents()
            time.sleep(0.005)
            if time.monotonic() - began > PATIENCE_SECONDS:
                self.picture("nothing-came")
                sys.exit(f"nothing came of: {what}")
        return time.monotonic() - began

    def rest(self, seconds: float = 1.5) -> None:
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
        """The project's open image."""
        return self.reader.navigator.current

    def ready(self) -> bool:
        """Whether the open image can be corrected and accepted."""
        return self.opened is not None and not self.reader.annotation.why_not()

    @property
    def model(self) -> str:
        """The model that the project has in use."""
        return self.reader.project.models.current.name

    def predicted_by(self, model: str) -> bool:
        """Whether the open image is predicted by this model."""
        image_state = self.opened.image_state if self.ready() else None
        return (
            image_state is not None
            and bool(image_state.predicted[0])
            and image_state.sources[0].model == model
        )


class Truth:
    """Copies some frames into a folder, and knows the mask of each."""

    def __init__(self, data: Path, home: Path, args: argparse.Namespace) -> None:
        index = (data / "index.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(index.splitlines()))
        self._index, self.folder = data / "index.csv", home / "angiograms"
        self.patients = home / "patients.csv"
        self._masks: dict[str, Path] = {}
        self.folder.mkdir(parents=True)
        with self.patients.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["stem", "patient"])
            for number, row in enumerate(_choose(rows, args)):
                # Numbered, so that the list has the patients in turn.
                stem = f"{number + 1:02d}_{row['stem']}"
                source = f"{row['stem']}.png"
                shutil.copyfile(data / "images" / source, self.folder / f"{stem}.png")
                table.writerow([stem, row["patient"]])
                self._masks[stem] = data / "masks" / source
        self._val = home / "val"
        for row in [r for r in rows if r["split"] == "val"][:: args.every]:
            for kind in ("images", "masks"):
                (self._val / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(data / kind / f"{row['stem']}.png", self._val / kind)

    def of(self, loop: Loop) -> np.ndarray:
        """The true mask of the open image."""
        from napari_cmunet.io.masks.files import read_mask

        path = loop.reader.project.images.path(loop.opened.id)
        return read_mask(self._masks[path.stem]) != 0

    def dice_of_prediction(self, loop: Loop) -> float:
        """Of what the model in use finds in the open image."""
        from napari_cmunet.training.evaluation.metrics import score

        found = loop.opened.image_state.found(0)
        return round(float(score(found, self.of(loop)).dice), 4)

    def measure(self, model: str | Path) -> dict:
        """What ``napari-cmunet evaluate`` says of a model on the val frames."""
        told = self.folder.with_name("evaluation.json")
        command = ["evaluate", "--model", str(model), "--json", str(told)]
        command += ["--images", str(self._val / "images")]
        command += ["--masks", str(self._val / "masks")]
        command += ["--patients", str(self._index)]
        subprocess.run([sys.executable, "-m", "napari_cmunet", *command], check=True)
        return json.loads(told.read_text())["mean"]


def main() -> int:
    """Go round the loop; 0 if every stage was reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="?", help="else phantoms")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--accept", type=int, default=10)
    parser.add_argument("--minutes", type=float, help="else as the panel has it")
    parser.add_argument("--start", help="else as the panel has it")
    parser.add_argument("--every", type=int, default=1, help="n-th val frame measured")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--pictures", type=Path, help="put three of them there, small")
    args = parser.parse_args()
    home = (
        args.out / "home"
    )  # of the project and its models, to be looked at afterwards
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    os.environ["NAPARI_CMUNET_HOME"] = str(home)
    data = args.data or _phantoms(home / "phantoms", args.patients)
    truth = Truth(data, home, args)
    loop = Loop(args.out, args.theme)
    report: dict = {}
    try:
        read(loop, truth, args, report)
        fine_tune(loop, truth, report)
        change_models(loop, truth, report)
        finish(loop, truth, report)
    finally:
        print(json.dumps(report, indent=1))
        (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    if args.pictures:
        _document(args.out, args.pictures)
    return 0


def read(loop: Loop, truth: Truth, args: argparse.Namespace, report: dict) -> None:
    """Make a project, correct and accept."""
    from napari_cmunet.gui.project.workspace import NewProject
    from napari_cmunet.project.patients import by_csv

    reader = loop.reader
    loop.picture("first-start")
    project = truth.folder.with_name("project")
    reader.create(NewProject(project, (truth.folder,), by_csv(truth.patients)))
    report["seconds_to_first_image"] = round(loop.until(loop.ready, "first image"), 2)
    chosen = {"minutes": args.minutes, "start": args.start}
    reader.project.change_settings(**{k: v for k, v in chosen.items() if v})
    loop.picture("opened-pre-segmented")
    report["pixels_corrected"] = []
    for number in range(args.accept):
        report["pixels_corrected"].append(_accept(loop, truth, number == 1))
        before = loop.opened
        loop.click(loop.panel.project_section.page.next)
        loop.until(lambda b=before: loop.opened is not b, "next")
    loop.until(loop.ready, "the next image")
    training = reader.training.session
    loop.until(lambda: not training.state().adapting, "the adaptation")
    report["model_before"] = loop.model


def _accept(loop: Loop, truth: Truth, pictures: bool = False) -> int:
    """Set the pixels that are wrong, in one undoable step; returns how many."""
    loop.until(loop.ready, "an image to correct")
    mask, right = loop.opened.image_state.mask, truth.of(loop)
    wrong = np.nonzero((mask.data != 0) != right)
    if len(wrong[0]):
        mask.data_setitem(wrong, right[wrong].astype(mask.data.dtype))
    loop.rest(0.1)
    if pictures:
        loop.picture("corrected")
    loop.click(loop.panel.project_section.page.accept)
    loop.until(lambda: loop.reader.workspace.writer.idle, "accept")
    if pictures:
        loop.picture("accepted")
    return len(wrong[0])


def fine_tune(loop: Loop, truth: Truth, report: dict) -> None:
    """Train, look at what would change, and put the new model to use."""
    from napari_cmunet.gui.training.state import LEARNING, LEAVING_OUT

    section, reader = loop.panel.finetune, loop.reader
    training = reader.training.session
    report["start"] = reader.project.settings.start
    report["minutes"] = reader.project.settings.minutes
    before = reader.project.models.folder()
    loop.picture("before-training", section.options.form)
    loop.click(section.start)
    began = time.monotonic()

    def at(step: int, *phases: str) -> bool:
        progress = training.state().progress
        return progress is None or (progress.step >= step and progress.phase in phases)

    loop.until(lambda: at(1, LEAVING_OUT, LEARNING), "the first steps")
    report["seconds_to_first_loss"] = round(time.monotonic() - began, 1)
    loop.until(lambda: at(10, LEARNING), "the middle of the training")
    loop.picture("training", section.status)
    loop.until(lambda: not training.running, "the end of the training")
    report["seconds_of_training"] = round(time.monotonic() - began, 1)
    result = training.state().result
    report["decision"] = result.decision
    report["verdict"] = result.text
    loop.rest(1)
    loop.picture("verdict", section.status)
    model = report["model"] = result.model
    if not model:
        sys.exit(f"no model came of the training: {result.text}")
    if result.decision != "promoted":
        loop.click(section.compare)
        loop.until(lambda: reader.preview.difference() is not None, "the comparison")
        loop.picture("before-it-is-decided", section.use)
        if result.decision == "undecided":
            loop.click(section.use)
        else:
            versions = training.state().versions
            section.version.chosen.emit([v.name for v in versions].index(model))
    loop.until(lambda: loop.model == model, "the new model in use")
    report["seconds_to_new_model"] = round(time.monotonic() - began, 1)
    loop.until(lambda: loop.predicted_by(model), "predicting anew")
    loop.picture("found-now-gone-now", loop.panel.project_section.page.changes)
    for name, version in (
        ("before", before),
        ("after", reader.project.models.folder()),
    ):
        report[f"val_{name}"] = truth.measure(version)


def change_models(loop: Loop, truth: Truth, report: dict) -> None:
    """The next unseen image by the new model, by the old one, by the new one again."""
    model, former, before = report["model"], report["model_before"], loop.opened
    loop.click(loop.panel.project_section.page.next)
    loop.until(lambda: loop.opened is not before and loop.ready(), "the reveal")
    loop.until(lambda: loop.predicted_by(model), "the reveal")
    loop.picture("next-image-by-new-model", loop.panel.project_section.page.accept)
    dice = report["dice_on_next_image"] = {model: truth.dice_of_prediction(loop)}
    loop.click(loop.panel.finetune.back)
    loop.until(lambda: loop.model == former and loop.predicted_by(former), "back")
    dice[former] = truth.dice_of_prediction(loop)
    loop.picture("rolled-back", loop.panel.finetune.version)
    loop.click(loop.panel.finetune.forward)
    loop.until(lambda: loop.model == model and loop.predicted_by(model), "forward")
    assert truth.dice_of_prediction(loop) == dice[model]


def finish(loop: Loop, truth: Truth, report: dict) -> None:
    """Export, close, open again, go on."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    reader, folder = loop.reader, truth.folder.with_name("masks")

    def answer() -> None:
        dialog = QApplication.activeModalWidget()
        dialog.folder.setText(str(folder))
        dialog.ok.click()

    QTimer.singleShot(500, answer)
    loop.panel.exporting.labels.trigger()
    loop.until(lambda: not reader.busy, "the export")
    loop.picture("exported", loop.panel.project_section.message)
    report["exported"] = len(list(folder.glob("*.tif")))
    assert report["exported"] == len(reader.project.labels.keys())
    labels, project = reader.project.labels.keys(), reader.project.folder
    reader.close()
    loop.until(
        lambda: reader.project is None and reader.workspace.writer.idle, "closed"
    )
    loop.picture("closed")
    reader.open(project)
    loop.until(lambda: reader.project is not None and loop.ready(), "opened again")
    loop.picture("opened-again")
    assert reader.project.labels.keys() == labels
    assert loop.model == report["model"]
    _accept(loop, truth)
    report["labels_in_the_end"] = len(reader.project.labels.keys())
    assert report["labels_in_the_end"] == len(labels) + 1
    reader.close()
    loop.until(
        lambda: reader.project is None and reader.workspace.writer.idle, "closed"
    )
    loop.viewer.close()


def _choose(rows: list[dict[str, str]], args: argparse.Namespace) -> list[dict]:
    """Frames of the first patients of the training split, in turn."""
    of: dict[str, list[dict]] = {}
    for row in rows:
        if row["split"] == "train":
            of.setdefault(row["patient"], []).append(row)
    groups = list(of.values())[: args.patients]
    longest = max(map(len, groups))
    in_turn = [g[i] for i in range(longest) for g in groups if i < len(g)]
    return in_turn[: args.images]


def _phantoms(folder: Path, patients: int) -> Path:
    """Synthetic angiograms, one of each patient, and a few more to measure on."""
    import imageio.v3 as iio

    from napari_cmunet.synthetic import PhantomConfig, make_frame

    rows = ["stem,split,patient"]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(patients + 4):
        frame, mask = make_frame(PhantomConfig(seed=number + 1))
        stem = f"angiogram_{number + 1:02d}"
        iio.imwrite(folder / "images" / f"{stem}.png", frame)
        iio.imwrite(folder / "masks" / f"{stem}.png", mask.astype(np.uint8) * 255)
        rows.append(f"{stem},{'train' if number < patients else 'val'},p{number:02d}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


def _document(out: Path, folder: Path) -> None:
    """Put the pictures of the documentation into a folder, in few colours."""
    from PIL import Image

    for path in sorted(out.glob("*.png")):
        name, colours = path.stem.partition("-")[2], 256
        target = folder / f"loop-{name}.png"
        while name in DOCUMENTED:
            # Rare colours count: those of the legend.
            method = Image.Quantize.MAXCOVERAGE
            picture = (
                Image.open(path).convert("RGB").quantize(colours, method, dither=0)
            )
            picture.save(target, optimize=True)
            if target.stat().st_size < LARGEST_PICTURE:
                break
            colours //= 2


if __name__ == "__main__":
    sys.exit(main())
