"""Actions of the project section's buttons and menu that ask for folders and forms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_cmunet.gui.export import short, source_file
from napari_cmunet.gui.export_section import ExportLabelsDialog
from napari_cmunet.gui.open_files import ask_what
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.import_masks import ImportMasksDialog, import_masks
from napari_cmunet.gui.project.new_project_dialog import (
    NewProjectDialog,
    free_folder,
    suggested_folder,
)
from napari_cmunet.gui.project.opened_masks import OpenedMasks
from napari_cmunet.gui.project.readers.label_versions import LabelVersionsDialog
from napari_cmunet.gui.widgets import add_action
from napari_cmunet.project.export.formats import (
    ExportConflictError,
    ExportOptions,
    ExportResult,
    export_masks,
)
from napari_cmunet.project.files import is_project
from napari_cmunet.project.settings import recent_projects
from napari_cmunet.util.text import counted, some_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import JobResult, Report, ShouldStop
    from napari_cmunet.gui.project.session import ProjectSession

    ShowResult = Callable[[str, str], None]
    Then = Callable[[], None] | None


class ProjectActions:
    """Asks for folders and forms.

    Parameters
    ----------
    parent : QWidget
        Of the dialogs.
    chosen : callable
        Ids of the images that are chosen in the list.
    """

    #: What an export has written: a text and its tooltip.
    exported = Signal(str, str)

    def __init__(
        self, session: ProjectSession, parent: QWidget, chosen: Callable[[], list[str]]
    ) -> None:
        self._session, self._parent, self._chosen = session, parent, chosen
        self._last = ""
        self.masks = OpenedMasks(session, self._import, self._make_for)

    def connect(self) -> None:
        """Ask for folders when the session needs one."""
        self._session.images_wanted.connect(self.show_images_folder)
        self._session.more_wanted.connect(self.add_images)
        self.masks.connect()

    def disconnect(self) -> None:
        """Stop asking: the panel is closed."""
        self._session.images_wanted.disconnect(self.show_images_folder)
        self._session.more_wanted.disconnect(self.add_images)
        self.masks.disconnect()

    # -- a project --------------------------------------------------------------

    def choose_folder(self, *, then: Then = None) -> None:
        """Ask for a folder of angiograms; open its project, or make one of it."""
        folder = self._ask("Folder of angiograms, or of a project")
        if folder is not None:
            self.begin(folder, then=then)

    def begin(self, folder: Path, *, then: Then = None) -> None:
        """Open the project in a folder or beside it, or make one of its images."""
        suggested = suggested_folder([folder], self._working_folder())
        if is_project(folder):
            self._session.open(folder, then)
        elif is_project(suggested):
            alerts.project_beside(
                self._session.messages,
                suggested.name,
                open_it=lambda: self._session.open(suggested, then),
                make=lambda: self._make([folder], free_folder(suggested), then),
            )
        else:
            self._make([folder], suggested, then)

    def use_open_images(self) -> None:
        """Make a project of the images that are open now."""
        self._make_of(self._session.controller.image_states)

    def _make_for(self, masks: list[Path], image_states: Sequence[ImageState]) -> None:
        """Make a project of open images, and import masks into it."""
        self._make_of(image_states, partial(self._import, masks))

    def _make_of(self, image_states: Sequence[ImageState], then: Then = None) -> None:
        """Make a project of open images; ask for a folder if there are none."""
        if not image_states:
            self.choose_folder(then=then)
            return
        files = [source_file(state) for state in image_states]
        inputs = [path for path in files if path is not None and path.exists()]
        if not inputs:
            alerts.no_files(self._session.messages)
            return
        inputs = list(dict.fromkeys(inputs))
        self._make(inputs, suggested_folder(inputs, self._working_folder()), then)

    def _make(self, inputs: list[Path], folder: Path, then: Then = None) -> None:
        choice = self._session.controller.choice.model
        # A model folder elsewhere cannot be named in a project.
        model = choice if Path(choice).name == choice else "cmunet-artery"
        dialog = NewProjectDialog(inputs, free_folder(folder), model, self._parent)
        if dialog.exec():
            self._session.create(dialog.new_project(), then)

    def open_other(self) -> None:
        """Ask for the folder of a project and open it."""
        folder = self._ask("Folder of a project")
        if folder is not None:
            self._session.open(folder)

    def fill_recent(self, menu: QMenu) -> None:
        """List the projects that were opened last; looked for in a worker."""

        def show(folders: list[Path]) -> None:
            menu.clear()
            for folder in folders:
                act = partial(self._open_recent, folder)
                add_action(menu, folder.name, str(folder), act)
            if folders:
                menu.addSeparator()
            add_action(menu, "Another one…", act=self.open_other)

        show([])
        worker = create_worker(recent_projects)
        worker.returned.connect(show)
        worker.start()

    def _open_recent(self, folder: Path) -> None:
        self._session.open(folder)

    # -- in a project -----------------------------------------------------------

    def show_images_folder(self) -> None:
        """Ask where the project's images are now, and look for them there."""
        folder = self._ask("Folder of the project's images")
        if folder is not None:
            self._session.messages.dismiss()
            self._session.relink(folder)

    def add_images(self) -> None:
        """Ask for a further folder of angiograms and add it."""
        folder = self._ask("Folder of further angiograms")
        if folder is not None:
            self._session.messages.dismiss("missing")
            self._session.add_images([folder])

    def add_selected(self) -> None:
        """Add the selected image to the project, and go on with it there."""
        state = self._session.controller.active
        file = None if state is None else source_file(state)
        if file is None:
            alerts.no_files(self._session.messages)
        else:
            self._session.add_images([file], shown=file)

    def export(self) -> None:
        """Ask which accepted masks go where, and export them."""
        session = self._session
        project = session.project
        if project is None or session.busy:
            return
        if not session.overview.progress.labelled:
            session.messages.show("There is no accepted mask to export yet.")
            return
        wanted = self._chosen()
        chosen = frozenset(
            (image, frame)
            for image in wanted
            for frame in session.overview.status(image).frames
        )
        folder = self._working_folder() or str(project.folder.parent)
        dialog = ExportLabelsDialog(
            session.overview.progress.frames,
            chosen if len(wanted) > 1 else frozenset(),
            free_folder(Path(folder) / "masks"),
            self._parent,
        )
        if dialog.exec():
            self.exported.emit("", "")
            show = self.exported.emit
            export_labels(session, dialog.options(), self.export, show)

    def import_masks(self) -> None:
        """Ask for masks of other programs; import them, or load them without a project.

        Without one they become the masks of open images.
        """
        session = self._session
        if session.busy or (session.project is not None and not self._can_import()):
            return
        title = "Masks of other programs: files or a folder"
        chosen = ask_what(self._parent, self._last or self._working_folder(), title)
        if not chosen:
            return
        self._last = str(chosen[0].parent)
        if session.project is not None:
            self._import(chosen)
            return
        active = session.controller.active
        self.masks.load(chosen, None if active is None else source_file(active))

    def _can_import(self) -> bool:
        if self._session.workspace.writable is None:
            self._session.messages.show("The project is open for reading only.")
            return False
        return True

    def _import(self, masks: list[Path]) -> None:
        if not self._can_import():
            return
        dialog = ImportMasksDialog(self._session, masks, self._parent)
        if dialog.exec() and dialog.plan is not None:
            import_masks(self._session, dialog.plan, dialog.options())

    def show_versions(self) -> None:
        """Show the versions of the label of the shown frame."""
        session = self._session
        if session.navigator.shown is None:
            session.messages.show("No image of the project is open yet.")
            return
        LabelVersionsDialog(session, self._parent).show()

    def close(self) -> None:
        """Close the project."""
        self._session.close()

    # -- folders --------------------------------------------------------------

    def _working_folder(self) -> str:
        return self._session.controller.working_folder

    def _ask(self, title: str) -> Path | None:
        begin = self._last or self._working_folder() or str(Path.home())
        chosen = QFileDialog.getExistingDirectory(self._parent, title, begin)
        if not chosen:
            return None
        self._last = str(Path(chosen).parent)
        return Path(chosen)


def export_labels(
    session: ProjectSession,
    options: ExportOptions,
    ask_again: Callable[[], None],
    show: ShowResult,
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
            _show_conflict(session, options, outcome.error, ask_again, show)
        elif outcome.error is not None:
            session.messages.show_error(f"Not exported: {outcome.error}")
        elif outcome.result is not None:
            done = outcome.result
            show(_summary(done, short(done.folder)), _summary(done, done.folder))

    session.messages.dismiss("export")
    session.run("Exporting", act, ended)


def _show_conflict(
    session: ProjectSession,
    options: ExportOptions,
    error: ExportConflictError,
    ask_again: Callable[[], None],
    show: ShowResult,
) -> None:
    overwrite: list[tuple[str, str, Callable[[], None]]] = []
    # Over an image of the project nothing is ever written.
    if error.may_overwrite:
        count = len(error.replaced)
        text = f"Overwrite {counted(count, 'file')}" if count else "Export there"
        names = ", ".join(error.replaced[:4])
        tip = f"Replaces {names}" if names else "No file has the name of a mask"
        again = replace(options, overwrite=True)
        act = partial(export_labels, session, again, ask_again, show)
        overwrite = [(text, tip, act)]
    session.messages.ask(
        str(error),
        *overwrite,
        ("Choose another folder…", "Leave this one as it is", ask_again),
        ("Do not export", "Leave everything as it is", None),
        about="export",
    )


def _summary(exported: ExportResult, folder: Path | str) -> str:
    masks = counted(exported.labels, "mask")
    if exported.formats == ("tiff",):
        masks += " and index.csv"
    elif len(exported.formats) > 1:
        masks += f" in {len(exported.formats)} formats"
    text = f"Exported {masks} to {folder}."
    if not exported.complete:
        text = f"Cancelled; {masks} in {folder}."
    elif not exported.labels:
        text = "Nothing was exported."
    if exported.problems:
        told = some_of(exported.problems, 2)
        text += f" {told}" if told.startswith("Nothing ") else f" Left out: {told}"
    return text
