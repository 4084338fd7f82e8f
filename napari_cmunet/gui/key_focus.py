"""Keep the keyboard with the canvas, so that one-key shortcuts always work."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QOpenGLWidget,
    QWidget,
)

_LOOK_AGAIN_MS = 50
_BY_MOUSE = (
    Qt.FocusReason.MouseFocusReason,
    Qt.FocusReason.PopupFocusReason,
    Qt.FocusReason.ActiveWindowFocusReason,
)


class KeyFocus(QObject):
    """Returns the focus to the canvas after the mouse used a slider, box or button.

    Also of napari's own controls. A number box keeps the focus while digits are typed;
    Return and letters go back to the canvas. Tab moves through the controls as always.

    Parameters
    ----------
    panel : QWidget
        Of the window whose canvas gets the keys.
    """

    def __init__(self, panel: QWidget) -> None:
        super().__init__(panel)
        self._panel = panel
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._return_focus)

    def start(self) -> None:
        """Start to follow the focus."""
        if (app := QApplication.instance()) is not None:
            app.installEventFilter(self)

    def stop(self) -> None:
        """Stop."""
        self._timer.stop()
        if (app := QApplication.instance()) is not None:
            app.removeEventFilter(self)

    def canvas(self) -> QWidget | None:
        """The visible canvas of the window."""
        window = self._panel.window()
        found = window.findChildren(QOpenGLWidget) if window is not None else []
        return next((widget for widget in found if widget.isVisible()), None)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        kind = event.type()
        if kind == QEvent.Type.FocusIn:
            if event.reason() in _BY_MOUSE and self._gives_back(watched):
                self._timer.start(0)
        elif kind == QEvent.Type.KeyPress and isinstance(watched, QAbstractSpinBox):
            return self._on_key(watched, event)
        return False

    def _gives_back(self, widget: Any) -> bool:
        if not isinstance(widget, QWidget) or widget.window() is not self._window():
            return False
        if isinstance(widget, QComboBox):
            return not widget.isEditable()
        return isinstance(widget, (QAbstractSlider, QAbstractButton))

    def _window(self) -> QWidget | None:
        return self._panel.window()

    def _return_focus(self) -> None:
        if (
            QApplication.mouseButtons() != Qt.MouseButton.NoButton
            or QApplication.activePopupWidget() is not None
        ):
            self._timer.start(_LOOK_AGAIN_MS)
            return
        canvas = self.canvas()
        if canvas is not None and self._gives_back(QApplication.focusWidget()):
            canvas.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_key(self, box: QAbstractSpinBox, event: QKeyEvent) -> bool:
        canvas = self.canvas()
        if box.window() is not self._window() or canvas is None:
            return False
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            QTimer.singleShot(0, canvas.setFocus)
            return False
        plain = event.modifiers() in (
            Qt.KeyboardModifier.NoModifier,
            Qt.KeyboardModifier.ShiftModifier,
        )
        if plain and len(event.text()) == 1 and event.text().isalpha():
            canvas.setFocus(Qt.FocusReason.OtherFocusReason)
            QApplication.sendEvent(canvas, _copy(event))
            return True
        return False


def _copy(event: QKeyEvent) -> QKeyEvent:
    return QKeyEvent(event.type(), event.key(), event.modifiers(), event.text())
