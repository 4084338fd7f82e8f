"""What dialogs share: a question with two answers, a file to write, their buttons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QMessageBox

if TYPE_CHECKING:
    from qtpy.QtWidgets import QDialog, QPushButton, QWidget


def confirm(
    parent: QWidget | None,
    title: str,
    text: str,
    yes: str,
    *,
    no: str = "Cancel",
    details: str = "",
) -> bool:
    """Ask whether to go ahead; Escape and Return answer no."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle(title)
    box.setText(text)
    box.setInformativeText(details)
    accept = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(box.addButton(no, QMessageBox.ButtonRole.RejectRole))
    box.exec()
    return box.clickedButton() is accept


def ask_for_file(
    parent: QWidget | None, title: str, suggestion: Path, kind: str, *suffixes: str
) -> Path | None:
    """Ask for a file to write, existing or not; None if the user cancels.

    Parameters
    ----------
    kind : str
        What such a file is, for people.
    suffixes : str
        Of such a file; the first is added where none of them is given.
    """
    patterns = " ".join(f"*{suffix}" for suffix in suffixes)
    # The suffix may still be added, so the caller asks about overwriting.
    chosen, _ = QFileDialog.getSaveFileName(
        parent,
        title,
        str(suggestion),
        f"{kind} ({patterns})",
        options=QFileDialog.Option.DontConfirmOverwrite,
    )
    return with_suffix(Path(chosen), *suffixes) if chosen else None


def with_suffix(path: Path, *suffixes: str) -> Path:
    """Add the first suffix to a path that has none of them."""
    if path.suffix.lower() in suffixes:
        return path
    return path.with_name(f"{path.name}{suffixes[0]}")


def dialog_buttons(
    dialog: QDialog, text: str, tip: str, cancel_tip: str
) -> tuple[QDialogButtonBox, QPushButton]:
    """Make the buttons that accept and cancel a dialog; return all, and the first."""
    box = QDialogButtonBox()
    accept = box.addButton(text, QDialogButtonBox.ButtonRole.AcceptRole)
    cancel = box.addButton(QDialogButtonBox.StandardButton.Cancel)
    assert accept is not None
    assert cancel is not None
    accept.setToolTip(tip)
    cancel.setToolTip(cancel_tip)
    box.accepted.connect(dialog.accept)
    box.rejected.connect(dialog.reject)
    return box, accept
