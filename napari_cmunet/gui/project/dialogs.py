"""The forms of a project: what a new one is made from, and which masks are exported."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.errors import ReadError
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.gui.widgets import button, combo, labelled, row, text_label
from napari_cmunet.io.discovery import find_images
from napari_cmunet.project.export import FORMATS, ExportFormat, ExportOptions
from napari_cmunet.project.files import is_project
from napari_cmunet.project.patients import by_csv, by_folder, by_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.patients import PatientRule


_SEPARATORS = ("_", "-", " ")
_MOST_IMAGES = 8
"""More images of each patient, in the mean, are not believed at first."""


@dataclass(frozen=True)
class PatientChoice:
    """A way to tell which images are of one patient."""

    text: str  # as offered to the session
    rule: PatientRule | None  # None: each image is another patient
    result: str  # what it comes to with these images
    patients: int = 0


def patient_choices(files: Iterable[InputFile]) -> list[PatientChoice]:
    """Return the ways that make sense for these files, the likeliest first.

    A rule makes sense if it puts some images together and not all of them. Of several,
    the one that puts most together comes first, since two patients taken for one do no
    harm; but hardly any patient has more than some images. A rule by which most images
    are of one patient comes last, after that by which each is another patient.
    """
    paths = [PurePosixPath(file.relative.as_posix()) for file in files]
    offered: list[PatientChoice] = []
    unlikely: list[PatientChoice] = []
    actions = [("One folder for each patient", by_folder(1))]
    actions += [
        (f"File names up to the {_ORDINAL[n]} “{sep}”", by_prefix(sep, n))
        for n in (1, 2, 3)
        for sep in _SEPARATORS
    ]
    seen: set[tuple[str | None, ...]] = set()
    for text, rule in actions:
        patients = tuple(rule(path) for path in paths)
        groups = Counter(p for p in patients if p is not None)
        together = len(groups) + patients.count(None)
        if patients in seen or not 1 < together < len(paths):
            continue
        seen.add(patients)
        largest = max(groups.values())
        most = largest > _MOST_IMAGES and 2 * largest >= len(paths)
        choice = PatientChoice(text, rule, result_of(rule, paths), together)
        (unlikely if most else offered).append(choice)
    few = len(paths) / _MOST_IMAGES
    offered.sort(key=lambda choice: (choice.patients < few, choice.patients))
    alone = PatientChoice(
        "Each image is another patient", None, result_of(None, paths), len(paths)
    )
    return [*offered, alone, *unlikely]


_ORDINAL = {1: "first", 2: "second", 3: "third"}


def result_of(rule: PatientRule | None, paths: list[PurePosixPath]) -> str:
    """What a rule comes to, in words."""
    patients = [rule(path) if rule is not None else None for path in paths]
    groups = Counter(p for p in patients if p is not None)
    alone = patients.count(None)
    text = f"{len(groups) + alone} patients in {len(paths)} files"
    if groups:
        name, count = groups.most_common(1)[0]
        text += f"; for instance “{name}” has {count}"
    if groups and alone:
        text += f"; {alone} files are patients of their own"
    return f"{text}."


_WHY = (
    "Images of one patient are never used both to learn and to check what was learned."
)
_LIST = "A list (CSV with the columns stem, patient)…"


class NewProjectDialog(QDialog):
    """A form for a new project.

    Parameters
    ----------
    inputs : list of Path
        Folders or files of angiograms.
    folder : Path
        Where the project would be kept.
    model : str
        Name of the installed model that pre-segments at first.
    """

    def __init__(
        self, inputs: list[Path], folder: Path, model: str, parent: QWidget | None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("New project")
        self._inputs, self._model = inputs, model
        self._files: list[InputFile] = []
        self._choices: list[PatientChoice] = []
        self.images = text_label("Looking for angiograms…")
        self.patients = combo("How the images of one patient are recognised")
        self.summary = text_label()
        self.why = text_label(_WHY)
        self.folder = QLineEdit(str(folder))
        self.folder.setToolTip(
            "A folder for the project; it is made if it is not there"
        )
        self.browse = button("Change…", "Choose another place for the project")
        self.problem = text_label()
        self.buttons = QDialogButtonBox()
        ok = self.buttons.addButton(
            "Make the project", QDialogButtonBox.ButtonRole.AcceptRole
        )
        assert ok is not None
        self.ok = ok
        self.ok.setToolTip("Make the project and open its first image")
        cancel = self.buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        assert cancel is not None
        cancel.setToolTip("Make nothing")
        self.ok.setEnabled(False)
        layout = QGridLayout(self)
        layout.setColumnStretch(1, 1)
        layout.addWidget(labelled("Images", self.images), 0, 0)
        layout.addWidget(self.images, 0, 1, 1, 2)
        layout.addWidget(labelled("Patients", self.patients), 1, 0)
        layout.addWidget(self.patients, 1, 1, 1, 2)
        layout.addWidget(self.summary, 2, 1, 1, 2)
        layout.addWidget(self.why, 3, 1, 1, 2)
        layout.addWidget(labelled("Keep it in", self.folder), 4, 0)
        layout.addWidget(self.folder, 4, 1)
        layout.addWidget(self.browse, 4, 2)
        layout.addWidget(self.problem, 5, 1, 1, 2)
        layout.addWidget(self.buttons, 6, 0, 1, 3)
        self.resize(560, self.sizeHint().height())
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.patients.activated.connect(self._on_patients)
        self.browse.clicked.connect(self._on_browse)
        self.folder.textChanged.connect(self._check)
        self._job = Job("Looking for angiograms", self._find, self._on_found)
        self.finished.connect(self._job.cancel)
        self._job.start()

    def new_project(self) -> NewProject:
        """What was asked for."""
        choice = self._choices[self.patients.currentIndex()]
        return NewProject(
            Path(self.folder.text().strip()),
            tuple(self._inputs),
            choice.rule,
            self._model,
        )

    # -- the images -----------------------------------------------------------

    def _find(self, _: Report, __: ShouldStop) -> list[InputFile]:
        return find_images(self._inputs)

    def _on_found(self, outcome: JobResult) -> None:
        self._files = [f for f in outcome.result or [] if f.path not in self._inputs]
        if not any(path.is_dir() for path in self._inputs):
            self._files = outcome.result or []
        count = len(self._files)
        where = self._inputs[0].name if len(self._inputs) == 1 else "what is open"
        if outcome.error is not None:
            self.images.setText(str(outcome.error))
        elif not count:
            self.images.setText(f"No angiogram was found in {where}.")
        else:
            self.images.setText(f"{count} in {where}")
            self._choices = patient_choices(self._files)
            self.patients.clear()
            self.patients.addItems([choice.text for choice in self._choices])
            self.patients.addItem(_LIST)
            self._on_patients()
        self._check()

    # -- the patients ---------------------------------------------------------

    def _on_patients(self) -> None:
        index = self.patients.currentIndex()
        if index == len(self._choices):
            self._ask_for_list()
            return
        self.summary.setText(self._choices[index].result)

    def _ask_for_list(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "List of patients", str(self._inputs[0]), "CSV (*.csv)"
        )
        try:
            rule = by_csv(Path(chosen)) if chosen else None
        except ReadError as error:
            self.summary.setText(str(error))
            rule = None
        if rule is None:
            self.patients.setCurrentIndex(0)
            return
        paths = [PurePosixPath(f.relative.as_posix()) for f in self._files]
        made = PatientChoice(f"As in {Path(chosen).name}", rule, result_of(rule, paths))
        self._choices.insert(0, made)
        self.patients.insertItem(0, made.text)
        self.patients.setCurrentIndex(0)
        self.summary.setText(made.result)

    # -- the place ------------------------------------------------------------

    def _on_browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, "Folder for the project", str(Path(self.folder.text()).parent)
        )
        if chosen:
            folder = Path(chosen)
            name = Path(self.folder.text()).name
            empty = not any(folder.iterdir())
            self.folder.setText(str(folder if empty else folder / name))

    def _check(self) -> None:
        text = self.folder.text().strip()
        problem = ""
        if not text or not Path(text).is_absolute():
            problem = "Choose a folder for the project."
        elif is_project(Path(text)):
            problem = "There is a project in this folder already. Choose another one."
        elif not _can_be_made(Path(text)):
            problem = "Nothing can be written there. Choose another folder."
        self.problem.setText(problem)
        self.ok.setEnabled(not problem and bool(self._files))


def suggested_folder(inputs: list[Path], working_folder: str) -> Path:
    """Where a project of these images would be kept: beside them, if that can be."""
    first = inputs[0]
    beside = first.parent if first.is_dir() else first.parent.parent
    name = first.name if first.is_dir() else first.parent.name
    base = Path(working_folder) if working_folder else beside
    if not _can_be_made(base / "x"):
        base = Path.home()
    return base / f"{name or 'angiograms'} project"


def free_folder(folder: Path) -> Path:
    """The folder, or one like it that is not there yet."""
    found, number = folder, 2
    while found.exists():
        found, number = folder.with_name(f"{folder.name} {number}"), number + 1
    return found


def _can_be_made(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


class ExportLabelsDialog(QDialog):
    """Asks which accepted masks go where.

    Parameters
    ----------
    labels : int
        How many labels there are.
    chosen : set of (image, frame)
        Labels of the images that are chosen in the list.
    folder : Path
        Where the dialog begins.
    """

    def __init__(
        self,
        labels: int,
        chosen: frozenset[FrameKey],
        folder: Path,
        parent: QWidget | None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export accepted masks")
        self._chosen = chosen
        self.all = QRadioButton(f"All accepted masks ({labels})")
        self.all.setToolTip("Every label of the project")
        self.some = QRadioButton(f"Those of the chosen images ({len(chosen)})")
        self.some.setToolTip("Choose several images in the list with Ctrl or Shift")
        self.all.setChecked(True)
        self.some.setEnabled(bool(chosen))
        self.formats = {f.name: self._format_box(f) for f in FORMATS}
        self.formats["tiff"].setChecked(True)
        self.names = QCheckBox("Name the files as the images are named")
        self.names.setToolTip("Otherwise files have random names that tell nothing")
        self.caution = text_label(
            "File names of images may name patients. Without this, index.csv tells the "
            "images by the hash of their files."
        )
        self.stacks = QCheckBox("One file for each cine, a page for each frame")
        self.stacks.setToolTip("Otherwise each frame has a file of its own")
        self.records = QCheckBox("A JSON record beside each mask")
        self.records.setToolTip(
            "Where the mask comes from, which part was reviewed, how much was changed"
        )
        self.folder = QLineEdit(str(folder))
        self.folder.setToolTip("The folder of the masks; made if it is not there")
        self.browse = button("Choose…", "Choose the folder of the masks")
        self.buttons = QDialogButtonBox()
        ok = self.buttons.addButton("Export", QDialogButtonBox.ButtonRole.AcceptRole)
        assert ok is not None
        ok.setToolTip("Write the masks in the chosen formats")
        self.ok = ok
        cancel = self.buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        assert cancel is not None
        cancel.setToolTip("Export nothing")
        layout = QVBoxLayout(self)
        boxes = (self.stacks, self.records)
        for widget in (self.all, self.some, *self.formats.values()):
            layout.addWidget(widget)
        for option in (*boxes, self.names, self.caution):
            layout.addWidget(option)
        layout.addLayout(row(self.folder, self.browse, stretch=0))
        layout.addWidget(self.buttons)
        self.resize(520, self.sizeHint().height())
        self.browse.clicked.connect(self._on_browse)
        for box in self.formats.values():
            box.toggled.connect(self._on_format)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)

    @staticmethod
    def _format_box(export_format: ExportFormat) -> QCheckBox:
        box = QCheckBox(export_format.title)
        box.setToolTip(f"As {export_format.name} on the command line")
        return box

    def _on_format(self) -> None:
        tiff = self.formats["tiff"].isChecked()
        for box in (self.stacks, self.records, self.names):
            box.setEnabled(tiff)
        self.ok.setEnabled(any(box.isChecked() for box in self.formats.values()))

    def _on_browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, "Folder of the masks", self.folder.text()
        )
        if chosen:
            self.folder.setText(chosen)

    def options(self) -> ExportOptions:
        """What was asked for."""
        return ExportOptions(
            Path(self.folder.text().strip()).absolute(),
            self._chosen if self.some.isChecked() else None,
            tuple(name for name, box in self.formats.items() if box.isChecked()),
            self.names.isChecked(),
            stacks=self.stacks.isChecked(),
            records=self.records.isChecked(),
        )
