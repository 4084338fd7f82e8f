"""The form of a new project: its images, their patients, its folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QGridLayout,
    QLineEdit,
    QWidget,
)

from napari_cmunet.errors import Cancelled, ReadError
from napari_cmunet.gui.dialogs import dialog_buttons
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.gui.widgets import button, combo, labelled, text_label
from napari_cmunet.project.files import is_project
from napari_cmunet.project.images import find_angiograms
from napari_cmunet.project.patients import by_csv, by_dicom, by_folder, by_prefix
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.project.patients import PatientRule

_SEPARATORS = ("_", "-", " ")
_MOST_IMAGES = 8
"""More images of each patient, in the mean, are not believed at first."""


@dataclass(frozen=True)
class PatientChoice:
    """A rule by which images are assigned to patients."""

    text: str  # as shown in the form
    rule: PatientRule | None  # None: by the DICOM header, else each image by itself
    result: str  # the numbers of patients and files
    patients: int = 0


def patient_choices(
    files: Iterable[InputFile], headers: Mapping[PurePosixPath, str] | None = None
) -> list[PatientChoice]:
    """Return the rules that make sense for these files, the likeliest first.

    A rule makes sense if it puts some images together and not all of them. Of several,
    the one that puts most together comes first, since two patients taken for one do no
    harm; but hardly any patient has more than some images. A rule by which most images
    are of one patient comes last, after that by which each is another patient. DICOM
    headers outweigh names.

    Parameters
    ----------
    headers : mapping, optional
        The patient of each DICOM file, by its path below the folder.
    """
    headers = headers or {}
    paths = [PurePosixPath(file.relative.as_posix()) for file in files]
    offered: list[PatientChoice] = []
    unlikely: list[PatientChoice] = []
    rules = [("One folder for each patient", by_folder(1))]
    rules += [
        (f"File names up to the {_ORDINAL[n]} “{sep}”", by_prefix(sep, n))
        for n in (1, 2, 3)
        for sep in _SEPARATORS
    ]
    seen: set[tuple[str | None, ...]] = set()
    for text, rule in rules:
        patients = tuple(rule(path) for path in paths)
        groups = Counter(p for p in patients if p is not None)
        together = len(groups) + patients.count(None)
        if patients in seen or not 1 < together < len(paths):
            continue
        seen.add(patients)
        choice = PatientChoice(text, rule, result_of(rule, paths), together)
        (unlikely if _is_most(groups, paths) else offered).append(choice)
    few = len(paths) / _MOST_IMAGES
    offered.sort(key=lambda choice: (choice.patients < few, choice.patients))
    groups = Counter(headers.values())
    alone = PatientChoice(
        "By the DICOM header" if headers else "Each image is another patient",
        None,
        result_of(headers.get, paths, named=False),
        len(groups) + len(paths) - len(headers),
    )
    if len(groups) > 1 and not _is_most(groups, paths):
        return [alone, *offered, *unlikely]
    return [*offered, alone, *unlikely]


def _is_most(groups: Counter[str], paths: list[PurePosixPath]) -> bool:
    """Whether the largest group is too large for one patient."""
    largest = max(groups.values())
    return largest > _MOST_IMAGES and 2 * largest >= len(paths)


_ORDINAL = {1: "first", 2: "second", 3: "third"}


def result_of(
    rule: PatientRule, paths: list[PurePosixPath], *, named: bool = True
) -> str:
    """The numbers of patients and files by a rule.

    Parameters
    ----------
    named : bool
        Whether to name a patient as an example.
    """
    patients = [rule(path) for path in paths]
    groups = Counter(p for p in patients if p is not None)
    alone = patients.count(None)
    text = f"{counted(len(groups) + alone, 'patient')} in {counted(len(paths), 'file')}"
    if groups and named:
        name, count = groups.most_common(1)[0]
        text += f"; for instance “{name}” has {count}"
    if groups and alone:
        by = "itself" if alone == 1 else "themselves"
        text += f"; {counted(alone, 'file')} by {by}"
    return f"{text}."


_WHY = "No patient's images are used both for training and for validation."
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
        self.patients = combo("How images are assigned to patients")
        self.summary = text_label()
        self.why = text_label(_WHY)
        self.folder = QLineEdit(str(folder))
        self.folder.setToolTip(
            "A folder for the project; it is made if it is not there"
        )
        self.browse = button("Change…", "Choose another place for the project")
        self.problem = text_label()
        tip = "Make the project and open its first image"
        buttons, self.ok = dialog_buttons(self, "Make the project", tip, "Make nothing")
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
        layout.addWidget(buttons, 6, 0, 1, 3)
        self.resize(560, self.sizeHint().height())
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

    def _find(
        self, _: Report, should_stop: ShouldStop
    ) -> tuple[list[InputFile], dict[PurePosixPath, str]]:
        files, headers = find_angiograms(self._inputs), {}
        for file in files:
            if should_stop():
                raise Cancelled
            if patient := by_dicom(file.path):
                headers[PurePosixPath(file.relative.as_posix())] = patient
        return files, headers

    def _on_found(self, outcome: JobResult) -> None:
        self._files, headers = outcome.result or ([], {})
        if any(path.is_dir() for path in self._inputs):
            self._files = [f for f in self._files if f.path not in self._inputs]
        count = len(self._files)
        where = self._inputs[0].name if len(self._inputs) == 1 else "what is open"
        if outcome.error is not None:
            self.images.setText(str(outcome.error))
        elif not count:
            self.images.setText(f"No angiogram was found in {where}.")
        else:
            self.images.setText(f"{count} in {where}")
            self._choices = patient_choices(self._files, headers)
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
