"""The panel's export: the mask of an image, all masks, or the labels of the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QMenu, QWidget

from napari_cmunet.gui import export
from napari_cmunet.gui.export_dialog import ask_where
from napari_cmunet.gui.sections import button, check, column, embolden, text_label

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.panel_state import PanelState
    from napari_cmunet.gui.reading import Reading


class ExportSection(QWidget):
    """Asks where masks go, and writes them in a worker.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._worker = None
        self.button = button(
            "&Export mask…",
            "Write the mask as TIFF: 0 background, 255 artery, where it comes from "
            "inside",
        )
        self.record = check(
            "JSON record beside it",
            "Also write where the mask comes from and how many pixels you changed",
        )
        self.menu = QMenu(self)
        self.labels = self.menu.addAction("Accepted masks of the study…")
        self.one = self.menu.addAction("The mask of this image…")
        self.all = self.menu.addAction("All masks to a folder…")
        self.saved = text_label()
        layout = column(self.button, self.record, self.saved)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)
        self.button.clicked.connect(self.export_mask)
        self.one.triggered.connect(self.export_mask)
        self.all.triggered.connect(self.export_masks)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._worker is None

    def refresh(self, state: PanelState, *, is_study: bool) -> None:
        """Show what can be exported, and what is not exported yet."""
        self.saved.setText(state.saved)
        self.saved.setVisible(bool(state.saved))
        embolden(self.saved, state.unsaved)
        self.button.setText("&Export masks…" if state.masks > 1 else "&Export mask…")
        self.button.setEnabled((state.can_export or is_study) and self.idle)
        self.button.setMenu(self.menu if state.masks > 1 or is_study else None)
        self.record.setVisible(state.can_export)
        self.labels.setVisible(is_study)
        self.all.setVisible(state.masks > 1)
        self.one.setEnabled(state.can_correct)
        self.all.setText(f"All {state.masks} masks to a folder…")
        if self._controller.active is not None:
            export.note_origin(self._controller.active)

    def export_mask(self) -> None:
        """Ask where the mask of the active image goes and write it."""
        masks = [r for r in self._controller.readings if r.usable_mask]
        active = self._controller.active
        # A single mask may be that of an image which is not the active one.
        self._export([active] if active in masks else masks[:1])

    def export_masks(self) -> None:
        """Ask for a folder and write the masks of all images."""
        self._export([r for r in self._controller.readings if r.usable_mask])

    def _export(self, readings: list[Reading]) -> None:
        if not readings or not self.idle:
            return
        controller = self._controller
        folder = export.start_folder(controller.active, controller.working_folder)
        where = ask_where(readings, folder, self, controller.readings)
        record = self.record.isChecked()
        jobs = [export.prepare(reading, path, record=record) for reading, path in where]
        if not jobs:
            return
        self._worker = create_worker(export.write_masks, jobs)
        self._worker.returned.connect(self._on_exported)
        self._worker.finished.connect(self._on_finished)
        controller.say(f"Exporting to {export.short(jobs[0].path.parent)}…")
        self._worker.start()

    def _on_exported(self, results: list[export.Written]) -> None:
        text, good = export.summary(results)
        export.note(results)
        shown, _ = export.summary(results, export.short)
        self._controller.say(shown, failed=not good, tip=text)
        (show_info if good else show_error)(text)

    def _on_finished(self) -> None:
        self._worker = None
        self._controller.changed.emit()
