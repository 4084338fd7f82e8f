"""The window's canvas: keyboard focus, OpenGL context, clicks, the user's activity."""

from __future__ import annotations

import math
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.qt import QtViewer
from psygnal import Signal
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

from napari_cmunet.gui.images.layers import pixel_at

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState

    Place = tuple[ImageState, int, tuple[float, float]]

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


class Picker:
    """Takes clicks on the active mask until it is stopped.

    Esc and any tool of napari's stop it, too.

    Parameters
    ----------
    controller : Controller
    on_click : callable
        Called with the position in the world, and whether Shift was held.
    on_stop : callable
        Called once it has stopped.
    """

    #: Clicks are about to be taken.
    starting = Signal()

    def __init__(
        self,
        controller: Controller,
        on_click: Callable[[tuple[float, ...], bool], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._controller, self._viewer = controller, controller.viewer
        self._on_click, self._on_stop = on_click, on_stop
        self._mask: Labels | None = None

    @property
    def active(self) -> bool:
        """Whether clicks are taken."""
        return self._mask is not None

    def start(self) -> bool:
        """Take clicks from now on; False if there is no mask to click on."""
        self.stop()
        mask = self._controller.editor.select_mask()
        if mask is None:
            return False
        self.starting.emit()
        mask.mode = "pan_zoom"
        mask.cursor = "crosshair"
        mask.events.mode.connect(self._on_mode)
        mask.bind_key("Escape", lambda _layer: self.stop(), overwrite=True)
        self._mask = mask
        self._viewer.mouse_drag_callbacks.append(self._on_press)
        return True

    def stop(self) -> None:
        """Take no more clicks. Idempotent."""
        mask, self._mask = self._mask, None
        if mask is None:
            return
        mask.events.mode.disconnect(self._on_mode)
        mask.bind_key("Escape", None)
        if str(mask.mode) == "pan_zoom":
            mask.cursor = "standard"
        self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._on_stop()

    def place(self, position: tuple[float, ...]) -> Place | None:
        """Image, frame, and row and column of a position that is inside."""
        here = self._controller.images.editable
        if here is None:
            return None
        assert here[0].mask is not None
        point = pixel_at(here[0].mask, position)
        return None if point is None else (*here, point)

    def _on_mode(self, event: Any) -> None:
        if str(event.source.mode) != "pan_zoom":
            self.stop()

    def _on_press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        position, shift = tuple(event.position), "Shift" in event.modifiers
        if (yield from is_click(event)):
            self._on_click(position, shift)


class ActivityTracker:
    """Calls back while the viewer is used.

    Parameters
    ----------
    on_activity : callable
        Called whenever the mouse moves or is pressed: it must be quick.
    on_gesture : callable
        Called while a hand paints, drags, zooms or changes the frame.
    """

    def __init__(
        self, on_activity: Callable[[], None], on_gesture: Callable[[], None]
    ) -> None:
        self._on_activity, self._on_gesture = on_activity, on_gesture
        self._viewer: ViewerModel | None = None

    def start(self, viewer: ViewerModel) -> None:
        """Start following a viewer."""
        self.stop()
        self._viewer = viewer
        for callbacks, own in self._lists(viewer):
            callbacks.append(own)
        viewer.dims.events.current_step.connect(self._on_frame)

    def stop(self) -> None:
        """Stop following the viewer. Idempotent."""
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            for callbacks, own in self._lists(viewer):
                if own in callbacks:
                    callbacks.remove(own)
            viewer.dims.events.current_step.disconnect(self._on_frame)

    def _lists(self, viewer: ViewerModel) -> tuple[tuple[list, Callable], ...]:
        return (
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_wheel_callbacks, self._on_wheel),
            (viewer.mouse_drag_callbacks, self._on_press),
        )

    def _on_move(self, viewer: ViewerModel, event: Any) -> None:
        self._on_activity()

    def note_gesture(self) -> None:
        """Note a gesture outside the viewer, such as a drag of a slider."""
        self._on_activity()
        self._on_gesture()

    def _on_wheel(self, viewer: ViewerModel, event: Any) -> None:
        self.note_gesture()

    def _on_press(self, viewer: ViewerModel, event: Any) -> Generator[None]:
        self._on_activity()
        yield
        while event.type == "mouse_move":
            self.note_gesture()
            yield

    def _on_frame(self, event: Any) -> None:
        self._on_gesture()
