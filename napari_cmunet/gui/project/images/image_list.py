"""The images of a project as a list: state as an icon, name, comment."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import (
    QAbstractListModel,
    QEvent,
    QModelIndex,
    QPointF,
    QRectF,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from qtpy.QtGui import (
    QAction,
    QActionGroup,
    QColor,
    QIcon,
    QPainter,
    QPen,
    QPixmap,
    QPolygonF,
)
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QLineEdit,
    QListView,
    QMenu,
    QWidget,
)

from napari_cmunet.gui.project.workspace import Overview
from napari_cmunet.gui.widgets import add_action
from napari_cmunet.project.next_image import LISTED, RANDOM, UNSURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QKeyEvent, QShowEvent

    from napari_cmunet.gui.project.images.next_image import ImageOrder
    from napari_cmunet.project.flags import ImageStatus


class CommentLine(QLineEdit):
    """Written with Return, left as it was with Escape."""

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText("Comment on this image")
        self.setToolTip(
            "A note on this image, which stays in the project. Return keeps it"
        )
        self._before: weakref.ref[QWidget] | None = None
        self._saved = ""
        self.returnPressed.connect(self._keep)
        app = QApplication.instance()
        if isinstance(app, QApplication):
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


_TEXTS = {
    LISTED: ("As listed", "The next one in the list that has no label"),
    RANDOM: ("At random", "Any without a label, each as likely"),
    UNSURE: (
        "Where the model is least sure",
        "Images with most in doubt first, patients in turn, and one in four at random. "
        "They are scored in the background, while nothing else is predicted.",
    ),
}


class OrderMenu(QMenu):
    """Chooses one of three orders."""

    def __init__(self, image_order: ImageOrder, parent: QWidget) -> None:
        super().__init__("Next image", parent)
        self._image_order = image_order
        self.setToolTipsVisible(True)
        group = QActionGroup(self)
        self.orders: dict[str, QAction] = {}
        for order, (text, tip) in _TEXTS.items():
            choose = partial(self._on_chosen, order)
            action = self.orders[order] = add_action(self, text, tip, choose)
            action.setCheckable(True)
            group.addAction(action)
        self.addSeparator()
        self.how_far = add_action(self, "")
        self.how_far.setEnabled(False)
        self.aboutToShow.connect(self.refresh)

    def _on_chosen(self, order: str) -> None:
        self._image_order.choose(order)

    def refresh(self) -> None:
        """Show the order, and how far the scoring is."""
        image_order = self._image_order
        if image_order.order in self.orders:
            self.orders[image_order.order].setChecked(True)
        done, total = image_order.scored
        text = image_order.problem or f"{done} of {total} images scored"
        self.how_far.setText(text)
        self.how_far.setVisible(image_order.order == UNSURE)


_SIDE = 16
_WALK_MS = 200
_ROWS = 12
_WORDS = {
    "labelled": "Has a label",
    "skipped": "Skipped",
    "unseen": "No label yet",
    "rejected": "Rejected by the reviewer",
}


class ImageModel(QAbstractListModel):
    """The images in their order.

    Parameters
    ----------
    colour : QColor
        Of the icons: that of text.
    """

    def __init__(self, colour: QColor, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overview = Overview()
        self._colour = colour
        self._icons: dict[tuple[str, bool], QIcon] = {}

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._overview.ids)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        image = self._overview.ids[index.row()]
        status = self._overview.status(image)
        if role == Qt.ItemDataRole.DisplayRole:
            comment = f"  ({status.comment})" if status.comment else ""
            return f"{index.row() + 1}  {self._overview.name(image)}{comment}"
        if role == Qt.ItemDataRole.DecorationRole:
            return self._icon(status.state, status.flagged)
        if role in (
            Qt.ItemDataRole.ToolTipRole,
            Qt.ItemDataRole.AccessibleDescriptionRole,
        ):
            words = [_WORDS[status.state]]
            if len(status.frames) > 1:
                words = [f"{len(status.frames)} frames have a label"]
            words += ["flagged"] if status.flagged else []
            return ", ".join(words) + (f": {status.comment}" if status.comment else "")
        return None

    def show(self, overview: Overview) -> None:
        """Show a project as it is now."""
        before, self._overview = self._overview, overview
        if before is overview:
            return
        if before.ids != overview.ids or before.names != overview.names:
            self.beginResetModel()
            self.endResetModel()
            return
        for row, image in enumerate(overview.ids):
            if before.status(image) != overview.status(image):
                index = self.index(row)
                self.dataChanged.emit(index, index)

    def status(self, row: int) -> ImageStatus:
        """How far the image of a row is."""
        return self._overview.status(self._overview.ids[row])

    def recolour(self, colour: QColor) -> None:
        """Draw the icons in another colour: the theme has changed."""
        if colour != self._colour:
            self._colour = colour
            self._icons.clear()
            if self._overview.ids:
                self.dataChanged.emit(
                    self.index(0),
                    self.index(self.rowCount() - 1),
                    [Qt.ItemDataRole.DecorationRole],
                )

    def _icon(self, state: str, flagged: bool) -> QIcon:
        if (state, flagged) not in self._icons:
            self._icons[state, flagged] = draw_icon(state, flagged, self._colour)
        return self._icons[state, flagged]


ALL, UNLABELLED, FLAGGED, SKIPPED = "all images", "no label", "flagged", "skipped"


def is_listed(status: ImageStatus, which: str) -> bool:
    """Whether an image belongs to those that a filter leaves."""
    return {
        ALL: True,
        UNLABELLED: status.state in ("unseen", "rejected"),
        FLAGGED: status.flagged,
        SKIPPED: status.state == "skipped",
    }[which]


class ImageList(QListView):
    """Goes to any image with a click, the arrow keys or Return."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._ids: Sequence[str] = ()
        self._which = ALL
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WALK_MS)
        self._soon.timeout.connect(lambda: self._on_chosen(self.currentIndex()))
        self.setToolTip("Images of the project; a click opens one, arrow keys go on")
        # After a click the arrow keys are the list's; letters go to the canvas.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setUniformItemSizes(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self._images = ImageModel(self.palette().text().color(), self)
        self.setModel(self._images)
        self.setIconSize(QSize(2 * _SIDE, _SIDE))
        self.clicked.connect(self._on_chosen)
        self.activated.connect(self._on_chosen)

    def _keep_height(self) -> None:
        """Show so many rows, of the theme's font."""
        row = max(_SIDE, self.sizeHintForRow(0))
        self.setFixedHeight(_ROWS * row + 2 * self.frameWidth())

    def show_only(self, which: str) -> None:
        """Show the images of one kind: ALL, UNLABELLED, FLAGGED or SKIPPED."""
        self._which = which
        self._filter()

    def _filter(self) -> None:
        for row in range(self._images.rowCount()):
            hidden = not is_listed(self._images.status(row), self._which)
            if hidden != self.isRowHidden(row):
                self.setRowHidden(row, hidden)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Open the image that an arrow key goes to, once the keys rest."""
        before = self.currentIndex().row()
        super().keyPressEvent(event)
        if self.currentIndex().row() != before and len(self.selectedIndexes()) == 1:
            self._soon.start()

    def show_images(self, overview: Overview, current: str) -> None:
        """Show a project, one image of it chosen."""
        self._ids = overview.ids
        self._images.show(overview)
        self._keep_height()
        self._filter()
        if self._soon.isActive():
            return  # the arrow keys are ahead
        row = overview.number(current) - 1
        if row >= 0 and self.currentIndex().row() != row:
            self.setCurrentIndex(self._images.index(row))
            self.scrollTo(self._images.index(row))

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in {
            QEvent.Type.StyleChange,
            QEvent.Type.PaletteChange,
        }:
            self._images.recolour(self.palette().text().color())

    def showEvent(self, event: QShowEvent | None) -> None:
        """Take the theme's colour; before, there may have been none."""
        super().showEvent(event)
        self._images.recolour(self.palette().text().color())

    def chosen_images(self) -> list[str]:
        """Ids of the selected images."""
        rows = sorted({index.row() for index in self.selectedIndexes()})
        return [self._ids[row] for row in rows if row < len(self._ids)]

    def _on_chosen(self, index: QModelIndex) -> None:
        if len(self.selectedIndexes()) > 1:
            return  # several are being chosen, for an export
        if index.isValid() and index.row() < len(self._ids):
            self.chosen.emit(self._ids[index.row()])


def draw_icon(state: str, flagged: bool, colour: QColor) -> QIcon:
    """Draw a state: told by its shape, whatever colours one sees.

    Labelled: a disc with a tick; rejected: a ring with a cross; skipped: a ring with a
    bar; unseen: a ring. A flag at the right if flagged.
    """
    width = _SIDE * 2
    pixmap = QPixmap(width * 2, _SIDE * 2)
    pixmap.setDevicePixelRatio(2)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(colour, 1.4))
    disc = QRectF(2, 2, _SIDE - 4, _SIDE - 4)
    if state == "labelled":
        painter.setBrush(colour)
        painter.drawEllipse(disc)
        # The tick is cut out of the disc, so that it shows in every theme.
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Clear)
        painter.setPen(QPen(Qt.GlobalColor.black, 1.8))
        painter.drawPolyline(
            QPolygonF([QPointF(5, 8.2), QPointF(7.2, 10.4), QPointF(11, 5.8)])
        )
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceOver)
    else:
        painter.drawEllipse(disc)
        if state == "skipped":
            painter.drawLine(QPointF(5, 8), QPointF(11, 8))
        if state == "rejected":
            painter.drawLine(QPointF(5.5, 5.5), QPointF(10.5, 10.5))
            painter.drawLine(QPointF(5.5, 10.5), QPointF(10.5, 5.5))
    if flagged:
        painter.setPen(QPen(colour, 1.4))
        painter.drawLine(QPointF(20, 2), QPointF(20, 14))
        painter.setBrush(colour)
        painter.drawPolygon(QPolygonF([QPointF(20, 2), QPointF(29, 5), QPointF(20, 8)]))
    painter.end()
    icon = QIcon(pixmap)
    # Qt would make that of a selected row fainter.
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
