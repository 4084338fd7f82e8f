"""The menu that says who reads: the first reader, a further one, or the reviewer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtGui import QActionGroup
from qtpy.QtWidgets import QInputDialog, QMenu, QWidget

from napari_cmunet.project.readers import FIRST_READER, REVIEWER, note_reader

if TYPE_CHECKING:
    from napari_cmunet.gui.project.session import ProjectSession

_TIPS = {
    FIRST_READER: "The labels in the project's own folder",
    REVIEWER: "See all readers' labels; decide, merge or reject them. Where readers "
    "differ most comes first",
}
_ASK = (
    "Name or code of the reader, who labels the images without seeing other labels.\n"
    "The name is kept on this computer alone; the project holds a code made of it."
)


class ReaderMenu(QMenu):
    """Lists the readers of the project; another one opens it anew for that reader."""

    def __init__(self, session: ProjectSession, parent: QWidget) -> None:
        super().__init__("Reader", parent)
        self._session = session
        self.setToolTipsVisible(True)
        self.aboutToShow.connect(self.fill)

    def fill(self) -> None:
        """List the readers of the open project."""
        self.clear()
        project, known = self._session.project, self._session.overview.readers
        if project is None:
            return
        group = QActionGroup(self)
        readers = [FIRST_READER, *project.readers, *known.names, REVIEWER]
        for reader in sorted(dict.fromkeys(readers), key=lambda r: r == REVIEWER):
            if reader == REVIEWER:
                another = self.addAction("Another reader…", self.ask)
                assert another is not None
                another.setToolTip("Begin a second reading, blind to the other labels")
                self.addSeparator()
            name = known.name(reader).replace("&", "&&")
            action = self.addAction(name[:1].upper() + name[1:])
            assert action is not None
            action.setCheckable(True)
            action.setChecked(reader == project.reader)
            action.setToolTip(_TIPS.get(reader, "Labels of this reader alone"))
            action.triggered.connect(partial(self.change, reader))
            group.addAction(action)

    def ask(self) -> None:
        """Ask for the name of a further reader and go on as that one."""
        project = self._session.project
        if project is None:
            return
        name, given = QInputDialog.getText(self.parentWidget(), "Another reader", _ASK)
        if given and name.strip():
            self.change(project.reader_code(name), name=name)

    def change(self, reader: str, _: bool = False, *, name: str = "") -> None:
        """Open the project for a reader, once all strokes are saved."""
        session, project = self._session, self._session.project
        if project is None or reader == project.reader or session.busy:
            return
        session.navigator.forget_after_closing()
        session.workspace.writer.submit(
            lambda: note_reader(project.id, reader, name),
            lambda _: session.open(
                project.folder, read_only=project.read_only, reader=reader
            ),
            session.messages.show_error,
        )
