"""Exports the accepted masks of a project: what is asked, and the job."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.gui.export import short
from napari_cmunet.gui.project.alerts import Action, Alert
from napari_cmunet.gui.widgets import button, row, text_label
from napari_cmunet.project.export import (
    FORMATS,
    ExportConflictError,
    ExportFormat,
    ExportOptions,
    ExportResult,
    export_masks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.jobs import JobResult, Report, ShouldStop
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.files import FrameKey


def export_labels(
    session: ProjectSession, options: ExportOptions, ask_again: Callable[[], None]
) -> None:
    """Export in a worker; ask before anything of others is overwritten."""
    project = session.project
    if project is None:
        return

    def act(report: Report, should_stop: ShouldStop) -> ExportResult:
        return export_masks(
            project, **vars(options), progress=report, should_stop=should_stop
        )

    def ended(outcome: JobResult) -> None:
        if isinstance(outcome.error, ExportConflictError):
            session.messages.show_alert(
                _conflict(session, options, outcome.error, ask_again)
            )
        elif outcome.error is not None:
            session.messages.show_alert(
                Alert(f"Not exported: {outcome.error}", serious=True)
            )
        elif outcome.result is not None:
            done = outcome.result
            session.messages.show(
                _summary(done, options, short(done.folder)),
                _summary(done, options, done.folder),
            )

    session.messages.dismiss("export")
    session.run("Exporting", act, ended)


def _conflict(
    session: ProjectSession,
    options: ExportOptions,
    error: ExportConflictError,
    ask_again: Callable[[], None],
) -> Alert:
    def overwrite() -> None:
        export_labels(session, replace(options, overwrite=True), ask_again)

    actions: tuple[Action, ...] = (
        Action("Choose another folder…", "Leave this one as it is", ask_again),
        Action("Do not export", "Leave everything as it is", session.messages.dismiss),
    )
    # Over an image of the project nothing is ever written.
    if error.may_overwrite:
        count = len(error.replaced)
        text = f"Overwrite {count} file(s)" if count else "Export there all the same"
        names = ", ".join(error.replaced[:4])
        tip = f"Replaces {names}" if names else "No file has the name of a mask"
        actions = (Action(text, tip, overwrite), *actions)
    return Alert(str(error), actions, about="export", serious=True)


def _summary(exported: ExportResult, options: ExportOptions, folder: Path | str) -> str:
    count = exported.labels
    masks = "1 mask" if count == 1 else f"{count} masks"
    if options.formats == ("tiff",):
        masks = f"{masks} and index.csv"
    elif len(options.formats) > 1:
        masks = f"{count} files in {len(options.formats)} formats"
    text = f"Exported {masks} to {folder}."
    if not exported.complete:
        text = f"Cancelled. {masks} are in {folder}."
    if exported.problems:
        text += f" Not exported: {' '.join(exported.problems[:2])}"
    return text


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
        package = export_format.package
        if package and find_spec(package) is None:
            box.setEnabled(False)
            box.setToolTip(f"Needs {package}: pip install {package}")
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
