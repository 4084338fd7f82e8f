"""A line for a comment that gives the keys back to where they were."""

from __future__ import annotations

import weakref

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QLineEdit, QWidget


class CommentLine(QLineEdit):
    """Written with Return, left as it was with Escape."""

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText("Comment on this image")
        self.setToolTip(
            "A note on this image, which stays in the study. Return keeps it"
        )
        self._before: weakref.ref[QWidget] | None = None
        self._saved = ""
        self.returnPressed.connect(self._keep)
        app = QApplication.instance()
        if app is not None:
            app.focusChanged.connect(self._on_focus)

    def show_comment(self, text: str) -> None:
        """Show what is noted about an image."""
        self._saved = text
        if self.text() != text:
            self.setText(text)

    def _on_focus(self, old: QWidget | None, now: QWidget | None) -> None:
        # The canvas, most likely, without whose focus no key reaches napari.
        if now is self and old is not None:
            self._before = weakref.ref(old)

    def _keep(self) -> None:
        self._saved = self.text()
        self.setModified(False)
        self.give_back()

    def give_back(self) -> None:
        """Let whoever had the keys before have them again."""
        before = self._before() if self._before is not None else None
        if before is not None and before.isVisible():
            before.setFocus()
        else:
            self.clearFocus()

    def keyPressEvent(self, event) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.setText(self._saved)
            self.give_back()
            return
        super().keyPressEvent(event)
