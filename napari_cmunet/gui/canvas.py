"""The window's canvas: the keyboard stays with it, and its OpenGL context is kept."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from napari.components import ViewerModel

_LOOK_AGAIN_MS = 50
_guarded: weakref.WeakSet[ViewerModel] = weakref.WeakSet()


def canvas_of(window: QWidget | None) -> QOpenGLWidget | None:
    """The visible canvas of a window."""
    found = window.findChildren(QOpenGLWidget) if window is not None else []
    return next((widget for widget in found if widget.isVisible()), None)


def guard_removal(viewer: ViewerModel, window: QWidget | None) -> None:
    """Make the canvas's OpenGL context current whenever a layer is removed.

    napari 0.9.2 frees the layer's shaders in whichever context is current. In that of
    Qt, Mesa's software OpenGL loses the shaders of the canvas, and the next draw ends
    in a segmentation fault. Kept for the life of the viewer.
    """
    canvas = canvas_of(window)
    if canvas is None or viewer in _guarded:
        return
    _guarded.add(viewer)
    ref = weakref.ref(canvas)

    def on_removing(event: Any = None) -> None:
        canvas = ref()
        with suppress(RuntimeError):  # Qt has deleted it with its window
            if canvas is not None and canvas.isValid():
                canvas.makeCurrent()

    viewer.layers.events.removing.connect(on_removing)


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
        self._panel = weakref.ref(panel)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._return_focus)

    def start(self) -> None:
        """Start to follow the focus."""
        app = QApplication.instance()
        if isinstance(app, QApplication):
            app.focusChanged.connect(self._on_focus)

    def stop(self) -> None:
        """Stop. Qt may have deleted this with its panel."""
        with suppress(RuntimeError, TypeError):
            self._timer.stop()
            app = QApplication.instance()
            if isinstance(app, QApplication):
                app.focusChanged.disconnect(self._on_focus)

    def _window(self) -> QWidget | None:
        panel = self._panel()
        return panel.window() if panel is not None else None

    def canvas(self) -> QWidget | None:
        """The visible canvas of the window."""
        return canvas_of(self._window())

    def _on_focus(self, old: QWidget | None, new: QWidget | None) -> None:
        if isinstance(old, QAbstractSpinBox):
            old.removeEventFilter(self)
        with suppress(RuntimeError):  # Qt has deleted the panel
            self._follow(new)

    def _follow(self, new: QWidget | None) -> None:
        if new is None or new.window() is not self._window():
            return
        if isinstance(new, QAbstractSpinBox):
            new.installEventFilter(self)
        elif _gives_back(new) and QApplication.mouseButtons():
            self._timer.start(0)

    def _return_focus(self) -> None:
        if QApplication.mouseButtons() or QApplication.activePopupWidget() is not None:
            self._timer.start(_LOOK_AGAIN_MS)
            return
        focused, canvas = QApplication.focusWidget(), self.canvas()
        if canvas is not None and focused is not None and _gives_back(focused):
            canvas.setFocus(Qt.FocusReason.OtherFocusReason)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Send letters in a number box to the canvas, and leave it on Return."""
        canvas = self.canvas()
        if event.type() != QEvent.Type.KeyPress or canvas is None:
            return False
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            QTimer.singleShot(0, canvas.setFocus)
            return False
        plain = event.modifiers() in (
            Qt.KeyboardModifier.NoModifier,
            Qt.KeyboardModifier.ShiftModifier,
        )
        text = event.text()
        if plain and len(text) == 1 and text.isalpha():
            canvas.setFocus(Qt.FocusReason.OtherFocusReason)
            for kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
                key = QKeyEvent(kind, event.key(), event.modifiers(), text)
                QApplication.sendEvent(canvas, key)
            return True
        return False


def _gives_back(widget: QWidget) -> bool:
    if isinstance(widget, QComboBox):
        return not widget.isEditable()
    return isinstance(widget, (QAbstractSlider, QAbstractButton))
