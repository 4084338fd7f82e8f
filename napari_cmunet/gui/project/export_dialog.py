"""The form of an export: which accepted masks, in which formats, to which folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.gui.dialogs import dialog_buttons
from napari_cmunet.gui.widgets import button, check, row, text_label
from napari_cmunet.project.export.formats import FORMATS, ExportOptions

if TYPE_CHECKING:
    from napari_cmunet.project.files import FrameKey


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
        self.formats = {
            f.name: check(f.title, f"As {f.name} on the command line") for f in FORMATS
        }
        self.formats["tiff"].setChecked(True)
        self.names = check(
            "Name the files as the images are named, with comments",
            "In the report, too. Otherwise images are named by their random id",
        )
        self.caution = text_label(
            "File names and comments may name patients. In any case, index.csv "
            "identifies images by the hash of their files."
        )
        self.stacks = check(
            "One file for each cine, a page for each frame",
            "Otherwise each frame has a file of its own",
        )
        self.records = check(
            "A JSON record beside each mask",
            "Where the mask comes from, which part was reviewed, how much was changed",
        )
        self.segments = check(
            "Vessel names, where they are given",
            "SYNTAX segments: as TIFF a second file of values beside each mask, with a "
            "table; in the other formats categories, classes and coded segments",
        )
        self.folder = QLineEdit(str(folder))
        self.folder.setToolTip("The folder of the masks; made if it is not there")
        self.browse = button("Choose…", "Choose the folder of the masks")
        buttons, self.ok = dialog_buttons(
            self, "Export", "Write the masks in the chosen formats", "Export nothing"
        )
        layout = QVBoxLayout(self)
        boxes = (self.segments, self.stacks, self.records)
        for widget in (self.all, self.some, *self.formats.values()):
            layout.addWidget(widget)
        for option in (*boxes, self.names, self.caution):
            layout.addWidget(option)
        layout.addLayout(row(self.folder, self.browse, stretch=0))
        layout.addWidget(buttons)
        self.resize(520, self.sizeHint().height())
        self.browse.clicked.connect(self._on_browse)
        for box in self.formats.values():
            box.toggled.connect(self._on_format)

    def _on_format(self) -> None:
        tiff, report = (self.formats[f].isChecked() for f in ("tiff", "report"))
        for box in (self.stacks, self.records):
            box.setEnabled(tiff)
        self.names.setEnabled(tiff or report)
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
            segments=self.segments.isChecked(),
        )
