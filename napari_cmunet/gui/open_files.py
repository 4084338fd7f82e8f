"""Open and close images from the panel, always with this plugin's own reader."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QOpenGLWidget, QWidget

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.canvas import canvas_of
from napari_cmunet.gui.dialogs import confirm
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.widgets import button, row
from napari_cmunet.io.sniffing import KIND_OF_SUFFIX
from napari_cmunet.project.files import is_project
from napari_cmunet.reader import check_count, get_reader, read_layers
from napari_cmunet.util.text import some_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.reader import LayerData

    _Opened = tuple[list[tuple[Path, LayerData]], list[str]]

_NAPARIS_OWN = Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.AltModifier

_TITLE = "Open angiograms: files or a folder"


class OpenDialog(QFileDialog):
    """A file dialog in which files and folders can be chosen."""

    def __init__(self, parent: QWidget, folder: str, title: str = _TITLE) -> None:
        super().__init__(parent, title, folder)
        self.setOption(QFileDialog.Option.DontUseNativeDialog)
        self.setFileMode(QFileDialog.FileMode.ExistingFiles)
        self.setAcceptMode(QFileDialog.AcceptMode.AcceptOpen)
        self.setNameFilters(name_filters())

    def accept(self) -> None:
        """Take a chosen folder instead of entering it. A double click enters it."""
        chosen = self.chosen()
        if chosen and all(path.exists() for path in chosen):
            self.done(int(QFileDialog.DialogCode.Accepted))
        else:
            super().accept()

    def chosen(self) -> list[Path]:
        """What was chosen, without the folders above it.

        While a path is typed, Qt selects every folder on the way.
        """
        paths = [Path(path) for path in self.selectedFiles()]
        return [p for p in paths if not any(p in other.parents for other in paths)]


def name_filters() -> list[str]:
    """Filters of a file dialog; all files first: DICOM files may have no suffix."""
    patterns: dict[str, list[str]] = {}
    for suffix, kind in KIND_OF_SUFFIX.items():
        patterns.setdefault(kind, []).append(f"*{suffix}")
    by_kind = [f"{kind} ({' '.join(found)})" for kind, found in patterns.items()]
    return ["All files (*)", *sorted(by_kind)]


def ask_what(parent: QWidget, folder: str, title: str = _TITLE) -> list[Path]:
    """Ask for files or folders; empty if the user cancels."""
    dialog = OpenDialog(parent, folder, title)
    return dialog.chosen() if dialog.exec() else []


class OpenRow(QWidget):
    """The buttons Open… and Close image."""

    #: A folder was chosen, to make or open a project.
    folder_chosen = Signal(object)

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._folder = ""
        self._job = JobRunner("Opening files", failure="The files cannot be opened")
        self._job.changed.connect(controller.changed.emit)
        self.destroyed.connect(self._job.cancel)
        self.open = button(
            "Open…",
            "Open angiograms: DICOM, PNG, TIFF, JPEG, NPY, or a folder of them",
        )
        self.close_image = button("Close image", "Close this image and its mask")
        self.setLayout(row(self.open, self.close_image))
        self.open.clicked.connect(self.ask)
        self.close_image.clicked.connect(self.ask_to_close)

    def refresh(self) -> None:
        """Enable what can be done."""
        self.open.setEnabled(not self._job.running)
        self.close_image.setEnabled(self._controller.active is not None)

    # -- open -----------------------------------------------------------------

    def ask(self) -> None:
        """Ask for files or a folder and open them."""
        chosen = ask_what(self, self._folder or self._controller.working_folder)
        if chosen:
            self._folder = str(chosen[0].parent)
            self.open_chosen(chosen)

    def open_chosen(self, chosen: Sequence[Path]) -> None:
        """Open files; ask what to do with a folder."""
        if len(chosen) == 1 and chosen[0].is_dir():
            self._open_folder(chosen[0])
        else:
            self.open_paths(chosen)

    def _open_folder(self, folder: Path) -> None:
        if is_project(folder):
            self.folder_chosen.emit(folder)
            return
        box = QMessageBox(
            QMessageBox.Icon.Question,
            "Open a folder",
            f"{folder.name} is a folder. A project keeps your labels and lets you "
            "fine-tune the model. Without one, its images are only opened.",
            QMessageBox.StandardButton.Cancel,
            self,
        )
        make = box.addButton("Make a project…", QMessageBox.ButtonRole.AcceptRole)
        only = box.addButton("Only open", QMessageBox.ButtonRole.AcceptRole)
        box.setDefaultButton(make)
        box.exec()
        if box.clickedButton() is make:
            self.folder_chosen.emit(folder)
        elif box.clickedButton() is only:
            self.open_paths([folder])

    def open_paths(self, paths: Sequence[Path]) -> None:
        """Read files in a worker and show them."""
        what = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        self._controller.show_message(f"Opening {what}…")
        self._job.start(
            partial(_read, tuple(paths)),
            on_result=self._on_read,
            on_error=lambda problem: self._controller.show_message(
                problem, failed=True
            ),
        )

    def _on_read(self, result: _Opened) -> None:
        found, problems = result
        images = [(path, Layer.create(*layer_data)) for path, layer_data in found]
        self._controller.images.add(images)
        if problems:
            text, tip = some_of(problems, 2), "\n".join(problems)
            self._controller.show_message(text, failed=True, tip=tip)

    # -- close ----------------------------------------------------------------

    def ask_to_close(self) -> None:
        """Close the active image; ask first if corrections would be lost."""
        image_state = self._controller.active
        if image_state is None:
            return
        lost = self._controller.unsaved(image_state)
        if lost and not may_lose(lost, "image", self):
            return
        self._controller.close_active()


def may_lose(lost: str, what: str, parent: QWidget) -> bool:
    """Ask whether ``what`` may be closed although ``lost`` would be gone."""
    text = f"{lost} They would be lost."
    return confirm(parent, f"Close the {what}?", text, "Close without them")


class DropTarget(QObject):
    """Opens angiograms and folders that are dropped on the window, as *Open…* does.

    napari would hand folders and most DICOM files to its own reader, which cannot read
    them, or ask which reader to take. Other files are left to napari, and so are drops
    with Shift or Alt, for which it stacks files or asks for a reader.

    Parameters
    ----------
    row : OpenRow
        Of a panel that is shown.
    """

    def __init__(self, row: OpenRow) -> None:
        super().__init__(row)
        self._row = row
        window = row.window()
        assert window is not None
        for canvas in window.findChildren(QOpenGLWidget):  # one, perhaps not yet shown
            target: QWidget | None = canvas
            while target is not None and not target.acceptDrops():
                target = target.parentWidget()
            if target is not None:
                target.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Take a drop whose files this plugin's reader reads."""
        if event.type() != QEvent.Type.Drop or event.modifiers() & _NAPARIS_OWN:
            return False
        urls = event.mimeData().urls()
        paths = [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]
        ours = len(paths) == len(urls) and get_reader([str(path) for path in paths])
        if not ours or not self._row.isVisible():
            return False
        event.acceptProposedAction()
        # The program that the files come from waits until this returns.
        QTimer.singleShot(0, partial(self._row.open_chosen, paths))
        return True


class CloseQuestion(QObject):
    """Asks before the window is closed where corrections or a training would be lost.

    napari asks as well, but names a training only if the window system closes the
    window. Closing by a script asks nothing.
    """

    def __init__(
        self, window: QWidget, controller: Controller, project: ProjectSession
    ) -> None:
        super().__init__(window)
        self._controller = weakref.ref(controller)
        self._project = weakref.ref(project)
        window.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Let the window close, or not."""
        if event.type() != QEvent.Type.Close or canvas_of(watched) is None:
            return False  # a script closes the canvas before the window
        controller, project = self._controller(), self._project()
        if controller is None or project is None or not controller.connected:
            return False
        lost = [
            f"{state.image.name}: {text}"
            for state in controller.image_states
            if (text := controller.unsaved(state))
        ]
        if not lost or may_lose("\n".join(lost), "window", watched):
            if event.spontaneous() or project.may_close():
                return False
        event.ignore()
        return True


def _read(paths: Sequence[Path], report: Report, should_stop: ShouldStop) -> _Opened:
    """Read files and folders as image layers, and say what could not be read."""
    from napari_cmunet.io.discovery import find_images

    files = [file.path for file in find_images(list(paths))]
    check_count(len(files))
    found: list[tuple[Path, Any]] = []
    problems: list[str] = []
    for index, path in enumerate(files):
        if should_stop():
            break
        try:
            found += [(path, layer_data) for layer_data in read_layers(str(path))]
        except CMUNetError as error:
            problems.append(str(error))
        report(index + 1, len(files))
    return found, problems
