"""The panel's export: the mask of an image, all masks, or the labels of the project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QLineEdit,
    QMenu,
    QMessageBox,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.gui import export
from napari_cmunet.gui.dialogs import ask_for_file, confirm, dialog_buttons
from napari_cmunet.gui.export import file_name, file_names, same_file, source_file
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.widgets import (
    add_action,
    button,
    check,
    column,
    embolden,
    row,
    text_label,
)
from napari_cmunet.project.export.formats import FORMATS, ExportOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.panel_state import PanelState
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


def ask_where(
    image_states: list[ImageState],
    folder: str,
    parent: QWidget,
    images: Sequence[ImageState] = (),
) -> list[tuple[ImageState, Path]]:
    """Ask for the file of one mask, or the folder of several.

    No mask may replace the file of one of ``images``, nor of ``image_states``.

    Returns
    -------
    list of (ImageState, Path)
        Empty if the user cancels.
    """
    if not _finished_enough(image_states, parent):
        return []
    if len(image_states) == 1:
        suggestion = _suggestion(image_states[0], Path(folder))
        target = ask_for_file(
            parent, "Export mask", suggestion, "Mask", ".tif", ".tiff"
        )
        targets = [target] if target is not None else []
    else:
        chosen = QFileDialog.getExistingDirectory(
            parent, f"Folder for {len(image_states)} masks", folder
        )
        targets = [Path(chosen) / n for n in file_names(image_states)] if chosen else []
    existing = [path.name for path in targets if path.exists()]
    sources = [p for r in (*image_states, *images) if (p := source_file(r)) is not None]
    lost = [t.name for t in targets if any(same_file(t, p) for p in sources)]
    if lost:
        _refuse(lost, parent)
        return []
    if existing and not _may_overwrite(existing, parent):
        return []
    return list(zip(image_states, targets, strict=True)) if targets else []


def _suggestion(image_state: ImageState, folder: Path) -> Path:
    """Suggest a file for one mask, other than the image's own."""
    path = folder / file_name(image_state)
    own = source_file(image_state)
    if own is not None and same_file(path, own):
        path = path.with_name(f"{path.stem}_mask{path.suffix}")
    return path


def _refuse(names: list[str], parent: QWidget) -> None:
    if len(names) == 1:
        text = f"{names[0]} is an open image. The mask would replace it. "
        text += "Choose another name or folder."
    else:
        text = f"{_listed(names)} are open images. The masks would replace them. "
        text += "Choose another folder."
    QMessageBox(
        QMessageBox.Icon.Warning,
        "Not exported",
        text,
        QMessageBox.StandardButton.Ok,
        parent,
    ).exec()


def _finished_enough(image_states: list[ImageState], parent: QWidget) -> bool:
    missing = sum(
        1
        for image_state in image_states
        for frame in image_state.waiting_frames()
        if not image_state.has_prediction(frame) and not image_state.is_corrected(frame)
    )
    if not missing:
        return True
    frames = "1 frame is" if missing == 1 else f"{missing} frames are"
    return confirm(
        parent,
        "Not all frames are segmented",
        f"{frames} not segmented yet and would be exported without arteries.",
        "Export all the same",
    )


def _may_overwrite(names: list[str], parent: QWidget) -> bool:
    if len(names) == 1:
        text = f"{names[0]} exists already."
    else:
        text = f"{len(names)} files exist already: {_listed(names)}."
    return confirm(parent, "Overwrite?", text, "Overwrite")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


class ExportSection(QWidget):
    """Asks where masks go, and writes them in a worker."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._writer = JobRunner("Exporting masks", failure="The export failed")
        self._writer.changed.connect(controller.changed.emit)
        self.button = button(
            "&Export mask…",
            "Write the mask as TIFF: 0 background, 255 artery, with its provenance",
        )
        self.record = check(
            "Write a JSON record, too",
            "Also write the mask's provenance and how many pixels you changed",
        )
        self.menu = QMenu(self)
        self.labels = add_action(self.menu, "Accepted masks of the project…")
        one, all_masks = "The mask of this image…", "All masks to a folder…"
        self.one = add_action(self.menu, one, act=self.export_mask)
        self.all = add_action(self.menu, all_masks, act=self.export_masks)
        self.saved = text_label()
        self.result = text_label()
        self.result.hide()
        self.setLayout(column(self.button, self.record, self.saved, self.result))
        self.button.clicked.connect(self.export_mask)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._writer.running

    def refresh(self, state: PanelState, *, is_project: bool) -> None:
        """Show what can be exported and what is not exported yet."""
        self.saved.setText(state.saved)
        self.saved.setVisible(bool(state.saved))
        embolden(self.saved, state.unsaved)
        self.button.setText("&Export masks…" if state.masks > 1 else "&Export mask…")
        self.button.setEnabled((bool(state.masks) or is_project) and self.idle)
        self.button.setMenu(self.menu if state.masks > 1 or is_project else None)
        self.record.setVisible(bool(state.masks))
        self.labels.setVisible(is_project)
        if not is_project:
            self.result.hide()
        self.all.setVisible(state.masks > 1)
        self.one.setEnabled(state.can_correct)
        self.all.setText(f"All {state.masks} masks to a folder…")
        if self._controller.active is not None:
            export.note_origin(self._controller.active)

    def show_result(self, text: str, tip: str) -> None:
        """Show what was exported of the project's labels."""
        self.result.setText(text)
        self.result.setToolTip(tip)
        self.result.setVisible(bool(text))
        if text:
            show_info(tip)

    def export_mask(self) -> None:
        """Ask where the mask of the active image goes and write it."""
        masks = [r for r in self._controller.image_states if r.usable_mask]
        active = self._controller.active
        # If there is a single mask, export it even if another image is active.
        self._export([active] if active in masks else masks[:1])

    def export_masks(self) -> None:
        """Ask for a folder and write the masks of all images."""
        self._export([r for r in self._controller.image_states if r.usable_mask])

    def _export(self, image_states: list[ImageState]) -> None:
        if not image_states or not self.idle:
            return
        controller = self._controller
        folder = export.start_folder(controller.active, controller.working_folder)
        where = ask_where(image_states, folder, self, controller.image_states)
        record = self.record.isChecked()
        jobs = [
            export.prepare(image_state, path, record=record)
            for image_state, path in where
        ]
        if not jobs:
            return
        controller.show_message(f"Exporting to {export.short(jobs[0].path.parent)}…")
        self._writer.start(
            lambda report, should_stop: export.write_masks(jobs),
            on_result=self._on_exported,
            on_error=lambda problem: controller.show_message(problem, failed=True),
        )

    def _on_exported(self, results: list[export.Written]) -> None:
        text, good = export.summary(results)
        export.note(results)
        shown, _ = export.summary(results, export.short)
        self._controller.show_message(shown, failed=not good, tip=text)
        (show_info if good else show_error)(text)
