"""The window's canvas: keyboard focus, OpenGL context, clicks too late or in a cine."""

from __future__ import annotations

import math
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.qt import QtViewer
from qtpy.QtCore import QEvent, QObject, QRect, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QListView,
    QOpenGLWidget,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel

_LOOK_AGAIN_MS = 50
_MAX_CLICK_MOVE = 4.0  # pixels of the screen; more is a drag
_SPINNER_PERCENT = 10
_TOO_LATE_S = 1.0  # as long as a hand needs to see that a message is gone
_guarded: weakref.WeakSet[ViewerModel] = weakref.WeakSet()


def canvas_of(window: QWidget | None) -> QOpenGLWidget | None:
    """The visible canvas of a window."""
    found = window.findChildren(QOpenGLWidget) if window is not None else []
    return next((widget for widget in found if widget.isVisible()), None)


def slow_spinner(window: QWidget | None) -> None:
    """Slow down napari's spinner, which is shown as long as a training runs.

    Each frame of it makes Qt redraw the whole window, canvas included. Without a GPU,
    that takes most of a core from the training and the user.
    """
    for label in window.findChildren(QLabel) if window is not None else ():
        movie = label.movie()
        if movie is not None:
            movie.setSpeed(_SPINNER_PERCENT)


def guard_canvas(viewer: ViewerModel, window: QWidget | None) -> None:
    """Guard the canvas against clicks and removals that go wrong; once a viewer."""
    canvas = canvas_of(window)
    if canvas is None or viewer in _guarded:
        return
    _guarded.add(viewer)
    guard = CanvasGuard(canvas, viewer)
    viewer.layers.events.removing.connect(guard.make_current)


def is_click(event: Any) -> Generator[None, None, bool]:
    """Wait for a pressed mouse button to be let go; whether it was a click, no drag.

    For the callbacks that napari calls with a press, to be used with ``yield from``.
    """
    if event.button != 1 or set(event.modifiers) - {"Shift"}:
        return False
    column, row = event.pos
    yield
    while event.type == "mouse_move":
        if math.hypot(event.pos[0] - column, event.pos[1] - row) > _MAX_CLICK_MOVE:
            return False
        yield
    return True


class CanvasGuard(QObject):
    """Keeps OpenGL's context, and clicks meant for a message, off what is behind.

    napari 0.9.2 frees a removed layer's shaders in whichever OpenGL context is current.
    If that is Qt's, Mesa's software OpenGL loses shaders of the canvas, and the next
    draw ends in a segmentation fault.

    napari's messages vanish by themselves. A click that comes a moment late would
    paint. It does nothing instead.

    A cine that plays stops as soon as a tool is put on it.
    """

    def __init__(self, canvas: QOpenGLWidget, viewer: ViewerModel) -> None:
        super().__init__(canvas)
        self._canvas = canvas
        self._viewer = weakref.ref(viewer)
        self._vanished: list[tuple[float, QRect]] = []
        canvas.installEventFilter(self)

    def make_current(self, event: Any = None) -> None:
        """Make the canvas's context current, before a layer is removed."""
        with suppress(RuntimeError):  # Qt has deleted it with its window
            if self._canvas.isValid():
                self._canvas.makeCurrent()

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Follow the messages over the canvas, and drop clicks that come too late."""
        kind = event.type()
        if watched is not self._canvas:
            if kind == QEvent.Type.Hide:
                self._vanished.append((time.monotonic(), watched.geometry()))
        elif kind == QEvent.Type.ChildAdded:
            if event.child().isWidgetType():
                event.child().installEventFilter(self)
        elif kind in (QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonDblClick):
            late = time.monotonic() - _TOO_LATE_S
            self._vanished = [v for v in self._vanished if v[0] > late]
            place = event.position().toPoint()
            if any(rect.contains(place) for _, rect in self._vanished):
                return True
            self._stop_playing()
        return False

    def _stop_playing(self) -> None:
        viewer = self._viewer()
        layer = viewer.layers.selection.active if viewer is not None else None
        if getattr(layer, "mode", "pan_zoom") == "pan_zoom":
            return
        widget: QWidget | None = self._canvas
        while widget is not None and not isinstance(widget, QtViewer):
            widget = widget.parentWidget()
        if widget is not None and widget.dims.is_playing:
            widget.dims.stop()


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

    def _canvas(self) -> QWidget | None:
        panel = self._panel()
        return canvas_of(panel.window() if panel is not None else None)

    def _on_focus(self, old: QWidget | None, new: QWidget | None) -> None:
        if isinstance(old, (QAbstractSpinBox, QListView)):
            old.removeEventFilter(self)
        with suppress(RuntimeError):  # Qt has deleted the panel
            self._follow(new)

    def _follow(self, new: QWidget | None) -> None:
        panel = self._panel()
        if new is None or panel is None or new.window() is not panel.window():
            return
        if isinstance(new, QAbstractSpinBox) or (
            isinstance(new, QListView) and panel.isAncestorOf(new)
        ):
            new.installEventFilter(self)
        elif _gives_back(new) and QApplication.mouseButtons():
            self._timer.start(0)

    def _return_focus(self) -> None:
        if QApplication.mouseButtons() or QApplication.activePopupWidget() is not None:
            self._timer.start(_LOOK_AGAIN_MS)
            return
        focused, canvas = QApplication.focusWidget(), self._canvas()
        if canvas is not None and focused is not None and _gives_back(focused):
            canvas.setFocus(Qt.FocusReason.OtherFocusReason)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Send letters in a number box to the canvas, and leave it on Return."""
        canvas = self._canvas()
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
