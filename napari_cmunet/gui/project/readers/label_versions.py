"""The versions of a label in a window of their own: look, compare, restore."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QListWidget,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.project.difference_layer import DifferenceLayer
from napari_cmunet.gui.widgets import button, column, labelled, row, text_label
from napari_cmunet.project.labels.history import image_history, label_versions
from napari_cmunet.project.readers.readers import REVIEWER

if TYPE_CHECKING:
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.labels.history import LabelVersion
    from napari_cmunet.project.project import Project


class LabelVersionsDialog(QDialog):
    """Shows the versions and the history of the label of the shown frame.

    The selected version is compared with the mask in the viewer. The dialog does not
    block the viewer, and closes when another image is opened.
    """

    def __init__(self, session: ProjectSession, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._session = session
        opened, _, _ = session.navigator.parts()
        self._opened, self._frame = opened, session.navigator.frame
        self._versions: list[LabelVersion] = []
        self._shown: Label | None = None
        self._closed = False  # what the writer still answers is then passed over
        self._layer = DifferenceLayer(
            session.controller, opened.image_state, "this version, the mask"
        )
        name = session.overview.name(opened.id)
        frame = f", frame {self._frame}" if opened.image_state.is_cine else ""
        self.setWindowTitle(f"Versions of the label of {name}{frame}")
        self.list = QListWidget()
        self.list.setToolTip("Versions of this label, the newest first")
        self.comparison = text_label(lines=2)
        self.restore = button(
            "&Restore this version",
            "Make it the label again, as it was; the mask follows and can be undone",
        )
        self.close_button = button("&Close", "Leave the label as it is")
        self.history = QPlainTextEdit()
        self.history.setReadOnly(True)
        self.history.setTabChangesFocus(True)
        self.history.setToolTip("What was done to this image, by the project's journal")
        QVBoxLayout(self).addLayout(
            column(
                labelled("&Versions", self.list),
                self.list,
                self.comparison,
                row(self.restore, self.close_button, stretch=0),
                labelled("&History (UTC)", self.history),
                self.history,
            )
        )
        self.resize(520, 460)
        self.restore.setEnabled(False)
        self.list.currentRowChanged.connect(self._on_row)
        self.list.itemActivated.connect(lambda _: self._on_restore())
        self.restore.clicked.connect(self._on_restore)
        self.close_button.clicked.connect(self.close)
        self.finished.connect(self._on_finished)
        session.navigator.image_left.connect(self._on_left)
        session.annotation.accepted.connect(self._load)
        session.annotation.withdrawn.connect(self._load)
        opened.image_state.mask_changed.connect(self._compare)
        self._load()

    def closeEvent(self, event) -> None:
        """Stop following the session."""
        self._on_finished()
        super().closeEvent(event)

    def _on_finished(self, _: int = 0) -> None:
        self._closed = True
        self._layer.remove()
        session = self._session
        session.navigator.image_left.disconnect(self._on_left, missing_ok=True)
        session.annotation.accepted.disconnect(self._load, missing_ok=True)
        session.annotation.withdrawn.disconnect(self._load, missing_ok=True)
        self._opened.image_state.mask_changed.disconnect(self._compare, missing_ok=True)

    def _on_left(self) -> None:
        self.close()

    # -- what there is --------------------------------------------------------

    def _load(self, _: object = None) -> None:
        project = self._session.project
        if project is not None:
            key = self._opened.key(self._frame)
            self._session.workspace.writer.submit(
                lambda: _read(project, *key),
                self._on_loaded,
                self._session.messages.show_error,
            )

    def _on_loaded(self, found: tuple[list[LabelVersion], list[str], str]) -> None:
        if self._closed:
            return
        versions, texts, history = found
        self._versions = versions
        self.list.clear()
        self.list.addItems(texts)
        self.history.setPlainText(history)
        if versions:
            self.list.setCurrentRow(0)
        else:
            self.comparison.setText("This frame has never had a label.")

    # -- one version ----------------------------------------------------------

    def _on_row(self, number: int) -> None:
        self._shown = None
        self.restore.setEnabled(False)
        if 0 <= number < len(self._versions):
            version = self._versions[number]
            self._session.workspace.writer.submit(
                version.read,
                partial(self._on_read, version),
                partial(self._on_unreadable, version),
            )

    def _on_read(self, version: LabelVersion, label: Label) -> None:
        if not self._closed and self._selected() is version:
            self._shown = label
            writable = self._session.workspace.writable is not None
            self.restore.setEnabled(writable and not version.in_use)
            self._compare()

    def _on_unreadable(self, version: LabelVersion, problem: str) -> None:
        if not self._closed and self._selected() is version:
            self.comparison.setText(problem)

    def _selected(self) -> LabelVersion | None:
        number = self.list.currentRow()
        return self._versions[number] if 0 <= number < len(self._versions) else None

    def _compare(self, _: object = None) -> None:
        label, mask = self._shown, self._opened.mask(self._frame)
        if label is None or mask is None or mask.shape != label.mask.shape:
            return
        more, less = self._layer.show(self._frame, mask, label.mask)
        if more == less == 0:
            self.comparison.setText("The mask in the viewer is this version.")
        else:
            self.comparison.setText(
                f"{more} pixels are in this version alone (yellow), {less} in the mask "
                "in the viewer alone (violet)."
            )

    def _on_restore(self) -> None:
        version = self._selected()
        if version is not None and version.older and self.restore.isEnabled():
            self._session.annotation.restore(version.older)
            # Disables the button, as Enter comes from list and button, until the
            # writer is done; also where nothing could be restored.
            self._on_row(self.list.currentRow())


def _read(
    project: Project, image: str, frame: int
) -> tuple[list[LabelVersion], list[str], str]:
    """Read the versions, the newest first, and the history. Runs in the writer."""
    versions = label_versions(project.labels, image, frame)[::-1]
    # A reader does not see what the others did; the reviewer does.
    readers = None if project.reader == REVIEWER else (project.reader,)
    events = image_history(project, image, frame, readers)
    history = "\n".join(str(event) for event in events)
    return versions, [_title(version) for version in versions], history


def _title(version: LabelVersion) -> str:
    try:
        created = version.read().provenance.created
        at = datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M")
    except CMUNetError:
        at = "cannot be read"
    return f"Version {version.number}, {at}" + (", in use" if version.in_use else "")
