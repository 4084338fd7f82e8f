"""Asks what a new study is made from, who is who in it, and where it is kept."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QLineEdit,
    QWidget,
)

from napari_cmunet.errors import ReadError
from napari_cmunet.gui.long_job import LongJob, Outcome
from napari_cmunet.gui.sections import button, combo, labelled, text_label
from napari_cmunet.gui.study.opening_job import NewStudy
from napari_cmunet.gui.study.patient_rules import (
    PatientChoice,
    patient_choices,
    result_of,
)
from napari_cmunet.io.find import InputFile, find_images
from napari_cmunet.study.patients import by_csv
from napari_cmunet.study.session import is_study

if TYPE_CHECKING:
    from napari_cmunet.gui.long_job import Report, ShouldStop

_WHY = (
    "Images of one patient are never used both to learn and to check what was learned."
)
_LIST = "A list (CSV with the columns stem, patient)…"


class NewStudyDialog(QDialog):
    """A form for a new study.

    Parameters
    ----------
    inputs : list of Path
        Folders or files of angiograms.
    folder : Path
        Where the study would be kept.
    model : str
        Name of the installed model that pre-segments at first.
    """

    def __init__(
        self, inputs: list[Path], folder: Path, model: str, parent: QWidget | None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("New study")
        self._inputs, self._model = inputs, model
        self._files: list[InputFile] = []
        self._choices: list[PatientChoice] = []
        self.images = text_label("Looking for angiograms…")
        self.patients = combo("How the images of one patient are recognised")
        self.result = text_label()
        self.why = text_label(_WHY)
        self.folder = QLineEdit(str(folder))
        self.folder.setToolTip("A folder for the study; it is made if it is not there")
        self.browse = button("Change…", "Choose another place for the study")
        self.problem = text_label()
        self.buttons = QDialogButtonBox()
        self.ok = self.buttons.addButton(
            "Make the study", QDialogButtonBox.ButtonRole.AcceptRole
        )
        self.ok.setToolTip("Make the study and open its first image")
        cancel = self.buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        cancel.setToolTip("Make nothing")
        self.ok.setEnabled(False)
        layout = QGridLayout(self)
        layout.setColumnStretch(1, 1)
        layout.addWidget(labelled("Images", self.images), 0, 0)
        layout.addWidget(self.images, 0, 1, 1, 2)
        layout.addWidget(labelled("Patients", self.patients), 1, 0)
        layout.addWidget(self.patients, 1, 1, 1, 2)
        layout.addWidget(self.result, 2, 1, 1, 2)
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
        self._job = LongJob("Looking for angiograms", self._find, self._on_found)
        self.finished.connect(self._job.cancel)
        self._job.start()

    def new_study(self) -> NewStudy:
        """What was asked for."""
        choice = self._choices[self.patients.currentIndex()]
        return NewStudy(
            Path(self.folder.text().strip()),
            tuple(self._inputs),
            choice.rule,
            self._model,
        )

    # -- the images -----------------------------------------------------------

    def _find(self, _: Report, __: ShouldStop) -> list[InputFile]:
        return find_images(self._inputs)

    def _on_found(self, outcome: Outcome) -> None:
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
        self.result.setText(self._choices[index].result)

    def _ask_for_list(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "List of patients", str(self._inputs[0]), "CSV (*.csv)"
        )
        try:
            rule = by_csv(Path(chosen)) if chosen else None
        except ReadError as error:
            self.result.setText(str(error))
            rule = None
        if rule is None:
            self.patients.setCurrentIndex(0)
            return
        paths = [PurePosixPath(f.relative.as_posix()) for f in self._files]
        made = PatientChoice(f"As in {Path(chosen).name}", rule, result_of(rule, paths))
        self._choices.insert(0, made)
        self.patients.insertItem(0, made.text)
        self.patients.setCurrentIndex(0)
        self.result.setText(made.result)

    # -- the place ------------------------------------------------------------

    def _on_browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, "Folder for the study", str(Path(self.folder.text()).parent)
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
            problem = "Choose a folder for the study."
        elif is_study(Path(text)):
            problem = "There is a study in this folder already. Choose another one."
        elif not _can_be_made(Path(text)):
            problem = "Nothing can be written there. Choose another folder."
        self.problem.setText(problem)
        self.ok.setEnabled(not problem and bool(self._files))


def suggested_folder(inputs: list[Path], working_folder: str) -> Path:
    """Where a study of these images would be kept: beside them, if that can be."""
    first = inputs[0]
    beside = first.parent if first.is_dir() else first.parent.parent
    name = first.name if first.is_dir() else first.parent.name
    base = Path(working_folder) if working_folder else beside
    if not _can_be_made(base / "x"):
        base = Path.home()
    return base / f"{name or 'angiograms'} study"


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
