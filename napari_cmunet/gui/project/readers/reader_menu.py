"""The menu that says who reads: the first reader, a further one, or the reviewer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QActionGroup, QFontDatabase
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QInputDialog,
    QMenu,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.gui.project.workspace import Overview, read_overview
from napari_cmunet.gui.widgets import add_action, button, column, row
from napari_cmunet.project.readers.agreement import (
    agreement_table,
    compare_readers,
    reader_pairs,
)
from napari_cmunet.project.readers.readers import FIRST_READER, REVIEWER, note_reader

if TYPE_CHECKING:
    from napari_cmunet.gui.jobs import JobResult, Report, ShouldStop
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
_NAME = "Your name or code. It is kept on this computer alone."


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
                tip = "Begin a second reading, blind to the other labels"
                add_action(self, "Another reader…", tip, self.ask)
                self.addSeparator()
            name = known.name(reader).replace("&", "&&")
            action = add_action(
                self,
                name[:1].upper() + name[1:],
                _TIPS.get(reader, "Labels of this reader alone"),
                partial(self.change, reader),
            )
            action.setCheckable(True)
            action.setChecked(reader == project.reader)
            group.addAction(action)
        if project.reader == FIRST_READER:
            text, tip = "Name of the first reader…", "Kept on this computer alone"
            add_action(self, text, tip, self.ask_own_name)
        if project.reader == REVIEWER:
            tip = "Dice, clDice, distance and wrong places by frame"
            add_action(self, "Agreement of readers…", tip, self.show_agreement)

    def ask_own_name(self) -> None:
        """Ask what the first reader is called."""
        session, project = self._session, self._session.project
        name, given = QInputDialog.getText(self.parentWidget(), "First reader", _NAME)
        if project is not None and given and name.strip():

            def act() -> Overview:
                note_reader(project.id, FIRST_READER, name)
                return read_overview(project)

            session.workspace.writer.submit(
                act, session.workspace.set_overview, session.messages.show_error
            )

    def show_agreement(self) -> None:
        """Compare all readers, and show the table."""
        session, project = self._session, self._session.project
        if project is None:
            return
        overview = session.overview

        def act(_: Report, should_stop: ShouldStop) -> str:
            lines: list[str] = []
            for pair in reader_pairs(project):
                found = compare_readers(
                    project, *pair, problem=lines.append, should_stop=should_stop
                )
                lines.append(" and ".join(map(overview.readers.name, pair)))
                lines += [*agreement_table(list(found), overview.names), ""]
            return "\n".join(lines)

        session.run("Comparing readers", act, self._on_compared)

    def _on_compared(self, outcome: JobResult) -> None:
        if outcome.error is not None:
            self._session.messages.show_error(outcome.error)
        elif outcome.result == "":
            self._session.messages.show("No two readers have labelled the same frame.")
        elif outcome.result is not None:
            AgreementDialog(outcome.result, self.parentWidget()).show()

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


class AgreementDialog(QDialog):
    """The table of agreement, to read and to copy."""

    def __init__(self, table: str, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Agreement of readers")
        self.table = QPlainTextEdit(table)
        self.table.setReadOnly(True)
        self.table.setTabChangesFocus(True)
        self.table.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.table.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.table.setToolTip("By frame, where both readers have reviewed it")
        self.copy = button("&Copy", "Copy the table")
        self.close_button = button("C&lose", "Close this window")
        buttons = row(self.copy, self.close_button, stretch=0)
        QVBoxLayout(self).addLayout(column(self.table, buttons))
        self.resize(820, 420)
        self.copy.clicked.connect(self._on_copy)
        self.close_button.clicked.connect(self.close)

    def _on_copy(self) -> None:
        clipboard = QApplication.clipboard()
        assert clipboard is not None
        clipboard.setText(self.table.toPlainText())
