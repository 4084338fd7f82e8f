"""Widgets of the panel. They show; the panel connects them."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDockWidget,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMenu,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qtpy.QtGui import QAction
    from qtpy.QtWidgets import QLayout

# Controls get the focus by Tab only. A click leaves it with the canvas, so that P, E or
# Ctrl+Z work right after a button or a slider was used.
TAB_ONLY = Qt.FocusPolicy.TabFocus


def text_label(text: str = "", *, lines: int = 0) -> QLabel:
    """Make a label that wraps instead of widening the dock.

    ``lines`` is the minimum height. It keeps the layout still where the text changes.
    """
    label = LinesHigh(text, lines) if lines else QLabel(text)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label


class LinesHigh(QLabel):
    """A label with a minimum height in lines of the theme's font and padding."""

    def __init__(self, text: str, lines: int) -> None:
        super().__init__(text)
        # Measures the padding, which an empty label does not have; never shown.
        self._sample = QLabel("\n".join("x" * lines), self)
        self._sample.hide()

    def changeEvent(self, event) -> None:
        super().changeEvent(event)
        if event.type() in {QEvent.Type.StyleChange, QEvent.Type.FontChange}:
            self._keep_height()

    def showEvent(self, event) -> None:
        super().showEvent(event)
        self._keep_height()

    def _keep_height(self) -> None:
        self.setMinimumHeight(self._sample.sizeHint().height())


def lay_out_again(widget: QWidget) -> None:
    """Update the height of a widget and its parents after a text has changed.

    Nested layouts keep the height of the former text for too long.
    """
    changed: QWidget | None = widget
    while changed is not None and not isinstance(changed, QScrollArea):
        if (layout := changed.layout()) is not None:
            layout.invalidate()
        changed.updateGeometry()
        changed = changed.parentWidget()


def narrow_dock(content: QWidget) -> None:
    """Let the dock of a widget be no wider than it needs: the image gets the rest.

    Before napari styles it, the widget has asked for more.
    """
    styled = QTimer(content)
    styled.setSingleShot(True)
    styled.timeout.connect(partial(_narrow_dock, content))
    styled.start(50)


def _narrow_dock(content: QWidget) -> None:
    dock, window = content.parentWidget(), content.window()
    if isinstance(dock, QDockWidget) and isinstance(window, QMainWindow):
        lay_out_again(content)
        width = content.minimumSizeHint().width()
        dock.setMinimumWidth(width)  # Qt itself only ever raises it
        window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)


def plain_tip(text: str) -> str:
    """Escape a tooltip: Qt would render text that looks like HTML."""
    return f"<qt>{escape(text)}</qt>"


def heading(text: str) -> QLabel:
    """Make the title of a section."""
    label = QLabel(f"<b>{escape(text)}</b>")
    label.setContentsMargins(0, 6, 0, 0)
    return label


def embolden(widget: QWidget, bold: bool = True) -> None:
    """Make the text of a widget bold or plain."""
    # By font, not by style sheet: setting one of those restyles every time.
    font = widget.font()
    if font.bold() != bold:
        font.setBold(bold)
        widget.setFont(font)


def button(text: str, tip: str, *, checkable: bool = False) -> QPushButton:
    """Make a push button."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setFocusPolicy(TAB_ONLY)
    made.setCheckable(checkable)
    return made


def add_action(
    menu: QMenu, text: str, tip: str = "", act: Callable[..., object] | None = None
) -> QAction:
    """Add an entry to a menu."""
    action = menu.addAction(text)
    assert action is not None
    if tip:
        action.setToolTip(tip)
    if act is not None:
        action.triggered.connect(act)
    return action


def check(text: str, tip: str) -> QCheckBox:
    """Make a check box."""
    made = QCheckBox(text)
    made.setToolTip(tip)
    made.setFocusPolicy(TAB_ONLY)
    return made


def combo(tip: str) -> QComboBox:
    """Make a combo box that does not widen the dock for a long name."""
    made = QComboBox()
    keep_narrow(made, tip)
    return made


def keep_narrow(box: QComboBox, tip: str) -> None:
    """Let a combo box be narrower than its longest name; ignore the wheel."""
    box.setToolTip(tip)
    box.setFocusPolicy(TAB_ONLY)
    ignore_wheel(box)
    box.setMinimumContentsLength(8)
    box.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )


def ignore_wheel(widget: QWidget) -> None:
    """Pass wheel events on to the panel: scrolling past a widget changes nothing."""
    widget.installEventFilter(_WheelFilter(widget))


class _WheelFilter(QObject):
    def eventFilter(self, watched, event) -> bool:
        if event.type() == QEvent.Type.Wheel:
            event.ignore()
            return True
        return super().eventFilter(watched, event)


def labelled(text: str, widget: QWidget) -> QLabel:
    """Make a label whose mnemonic focuses the widget."""
    label = QLabel(text)
    label.setBuddy(widget)
    return label


class Column(QScrollArea):
    """Scrolls vertically; never narrower than its content."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidget(content)
        content.installEventFilter(self)

    def minimumSizeHint(self) -> QSize:
        bar, content = self.verticalScrollBar(), self.widget()
        assert bar is not None and content is not None
        width = content.minimumSizeHint().width() + bar.sizeHint().width()
        return QSize(width, super().minimumSizeHint().height())

    def eventFilter(self, watched, event) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


class NameCombo(QComboBox):
    """Chooses one of several names, by position: names may be equal."""

    chosen = Signal(int)

    def __init__(self, tip: str) -> None:
        super().__init__()
        keep_narrow(self, tip)
        self._shown: tuple[str, ...] | None = None
        self.activated.connect(self.chosen)

    def show_names(self, names: Sequence[str], active: int, empty: str) -> None:
        """Show names, one of them chosen; ``empty`` if there is none."""
        names = tuple(names)
        with signals_blocked(self):
            if names != self._shown:
                self._shown = names
                self.clear()
                self.addItems(names or (empty,))
                self.setEnabled(bool(names))
            self.setCurrentIndex(max(0, active))


class ToolRow(QWidget):
    """A button for each tool; shows the active one.

    Parameters
    ----------
    tools : iterable of (name, text, tooltip)
    """

    picked = Signal(str)

    def __init__(self, tools: Iterable[tuple[str, str, str]]) -> None:
        super().__init__()
        self.buttons: dict[str, QPushButton] = {}
        for name, text, tip in tools:
            made = self.buttons[name] = button(text, tip, checkable=True)
            # Equal shares of the row, however narrow the dock.
            made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            made.clicked.connect(partial(self._on_clicked, name))
        layout = row(*self.buttons.values())
        layout.setSpacing(2)
        self.setLayout(layout)

    def _on_clicked(self, name: str) -> None:
        self.picked.emit(name)

    def show_active(self, name: str) -> None:
        """Show the active tool; the row may not have it."""
        for known, made in self.buttons.items():
            made.setChecked(known == name)


class WorkBar(QWidget):
    """Progress and Cancel, in place of the button that started the work."""

    def __init__(self, tip: str, text: str = "Cancel") -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.cancel = button(text, tip)
        self.setLayout(row(self.bar, self.cancel, stretch=0))

    def show_work(self, busy: bool, done: int, total: int) -> None:
        """Show the progress; a total of 0 means that it is unknown."""
        self.setVisible(busy)
        if busy:
            self.bar.setRange(0, total)
            self.bar.setValue(done)


class Fold(QWidget):
    """A part of the panel that a click on its title shows or hides."""

    toggled = Signal(bool)

    def __init__(
        self, title: str, content: QWidget | QLayout, *, is_open: bool = True
    ) -> None:
        super().__init__()
        self.title = QToolButton()
        self.title.setText(title)
        self.title.setToolTip(f"Show or hide: {title.replace('&', '')}")
        self.title.setCheckable(True)
        self.title.setChecked(is_open)
        self.title.setAutoRaise(True)
        self.title.setFocusPolicy(TAB_ONLY)
        self.title.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        embolden(self.title)
        self.content = content if isinstance(content, QWidget) else group(content)
        self.setLayout(column(self.title, self.content))
        self.title.toggled.connect(self._on_toggled)
        self._on_toggled(is_open)

    def _on_toggled(self, is_open: bool) -> None:
        self.content.setVisible(is_open)
        arrow = Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow
        self.title.setArrowType(arrow)
        self.toggled.emit(is_open)


def column(*items: QWidget | QLayout, spacing: int = 4) -> QVBoxLayout:
    """Stack widgets and layouts, without margins."""
    layout = QVBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for item in items:
        if isinstance(item, QWidget):
            layout.addWidget(item)
        else:
            layout.addLayout(item)
    return layout


def group(layout: QLayout) -> QWidget:
    """Make a widget of what is shown, hidden or enabled together."""
    made = QWidget()
    made.setLayout(layout)
    return made


def one_place(*items: QWidget) -> QGridLayout:
    """Put widgets in the same place; at most one of them is shown.

    The place is as high as the highest, so that nothing below it moves.
    """
    layout = QGridLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for item in items:
        policy = item.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        item.setSizePolicy(policy)
        layout.addWidget(item, 0, 0)
    return layout


def row(*items: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Put widgets side by side; ``stretch`` is the index of the one that grows."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for index, item in enumerate(items):
        layout.addWidget(item, 1 if index == stretch else 0)
    return layout
