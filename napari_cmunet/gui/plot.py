"""The live plot of a training, and what all plots of the panel share.

Drawn by hand: a plotting library would weigh more than the rest of the program's
window together, and a few lines need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.gui.training.state import TrainingProgress

LEFT = 34
"""Width of the numbers on the left, in pixels."""

# Apart for every kind of colour vision.
_ON_DARK = QColor(86, 180, 233), QColor(230, 159, 0)
_ON_LIGHT = QColor(0, 114, 178), QColor(170, 90, 0)


def begin(widget: QWidget) -> tuple[QPainter, QColor, QColor, QColor]:
    """Return a painter on a widget, and the colours of text and of two curves."""
    painter = QPainter(widget)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    ink = widget.palette().windowText().color()
    # Blue and orange that show on the theme's background.
    return painter, ink, *(_ON_DARK if ink.lightness() > 127 else _ON_LIGHT)


def draw_diamond(painter: QPainter, centre: QPointF) -> None:
    """Mark a point."""
    x, y = centre.x(), centre.y()
    corners = ((x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y))
    painter.drawPolygon(QPolygonF([QPointF(*corner) for corner in corners]))


class Scale:
    """From steps and values to pixels."""

    def __init__(self, box: QRectF, steps: int, low: float, high: float) -> None:
        if high - low < 1e-3:
            low, high = low - 0.01, high + 0.01
        self.box, self.steps, self.low, self.high = box, steps, low, high

    def at(self, step: float, value: float) -> QPointF:
        """Where a value lies."""
        share = (value - self.low) / (self.high - self.low)
        return QPointF(
            self.box.left() + self.box.width() * step / self.steps,
            self.box.bottom() - self.box.height() * min(1.0, max(0.0, share)),
        )


def draw_axes(painter, scale: Scale, name, colour, ink, numbers=True) -> None:
    """The two axes, the ends of the upright one, and what it shows."""
    box = scale.box
    faint = QColor(ink)
    faint.setAlpha(90)
    painter.setPen(QPen(faint, 1))
    painter.drawLine(box.topLeft(), box.bottomLeft())
    painter.drawLine(box.bottomLeft(), box.bottomRight())
    line = painter.fontMetrics().lineSpacing()
    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    painter.setPen(ink)
    for y, value in ((box.top(), scale.high), (box.bottom(), scale.low)):
        if numbers:
            place = QRectF(0, y - line / 2, LEFT - 4, line)
            painter.drawText(place, right, f"{value:.2f}"[:4].rstrip("."))
    painter.setPen(colour)
    painter.drawText(
        QRectF(0, box.center().y() - line / 2, LEFT - 4, line), right, name
    )


_REDRAW_MS = 250
_POINTS = 300


class TrainingPlot(QWidget):
    """Shows a :class:`napari_cmunet.gui.training.state.TrainingProgress`."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: TrainingProgress | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.update)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Above: Dice on patients that are not learned from, with its 95 % "
            "interval; the best is marked. Below: the loss, which should fall."
        )

    def sizeHint(self) -> QSize:
        return QSize(240, 11 * self.fontMetrics().lineSpacing())

    @property
    def has_content(self) -> bool:
        """Whether there is something to see."""
        return self._progress is not None and bool(
            self._progress.losses or self._progress.validations
        )

    def show_progress(self, progress: TrainingProgress | None) -> None:
        """Draw this, or nothing, a few times a second at most."""
        self._progress = progress
        if not self._soon.isActive():
            self._soon.start(_REDRAW_MS)

    def paintEvent(self, event) -> None:
        progress = self._progress
        if progress is None:
            return
        painter, ink, blue, orange = begin(self)
        line = painter.fontMetrics().lineSpacing()
        top, width = line / 2, self.width() - LEFT - 6.0
        height = (self.height() - 2.2 * line - top) / 2
        steps = max(1, progress.steps, *(v.step for v in progress.validations or ()))
        if not progress.validations and not progress.fold:
            height = self.height() - line - top
        else:
            upper = QRectF(LEFT, top, width, height)
            self._draw_dice(painter, upper, progress, steps, blue, ink)
            top += height + 1.2 * line
        lower = QRectF(LEFT, top, width, height)
        self._draw_loss(painter, lower, progress, steps, orange, ink)
        painter.setPen(ink)
        bottom = QRectF(LEFT, self.height() - line, width, line)
        painter.drawText(bottom, Qt.AlignmentFlag.AlignLeft, "step 0")
        painter.drawText(bottom, Qt.AlignmentFlag.AlignRight, str(steps))

    def _draw_dice(self, painter, box, progress, steps, colour, ink) -> None:
        validations = progress.validations
        low = min((x.dice_low for x in validations), default=0.0)
        high = max((x.dice_high for x in validations), default=1.0)
        scale = Scale(box, steps, low, high)
        draw_axes(painter, scale, "Dice", colour, ink)
        if not validations:
            painter.setPen(ink)
            text = "shown once every patient was left out"
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
            return
        band = [scale.at(x.step, x.dice_high) for x in validations]
        band += [scale.at(x.step, x.dice_low) for x in reversed(validations)]
        pale = QColor(colour)
        pale.setAlpha(60)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(pale)
        painter.drawPolygon(QPolygonF(band))
        painter.setBrush(colour)
        painter.setPen(QPen(colour, 1.5))
        points = [scale.at(x.step, x.dice) for x in validations]
        painter.drawPolyline(QPolygonF(points))
        for x, point in zip(validations, points, strict=True):
            painter.setPen(QPen(colour, 1))
            painter.drawLine(point, scale.at(x.step, x.dice_low))
            painter.drawLine(point, scale.at(x.step, x.dice_high))
            painter.drawEllipse(point, 2.0, 2.0)
        best = progress.best
        _mark_best(painter, scale, scale.at(best.step, best.dice), best.dice, ink)

    def _draw_loss(self, painter, box, progress, steps, colour, ink) -> None:
        losses = _thinned(progress.losses)
        values = [loss for _, loss in losses]
        scale = Scale(box, steps, min(values, default=0.0), max(values, default=1.0))
        draw_axes(painter, scale, "loss", colour, ink, numbers=bool(losses))
        painter.setPen(QPen(colour, 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF([scale.at(*point) for point in losses]))


def _mark_best(painter, scale: Scale, point: QPointF, value: float, ink) -> None:
    """A diamond, and the figure beside it where there is room."""
    painter.setPen(QPen(ink, 1.5))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    draw_diamond(painter, point)
    x, y = point.x(), point.y()
    text = f"best {value:.3f}"
    width = painter.fontMetrics().horizontalAdvance(text)
    line = painter.fontMetrics().lineSpacing()
    left = x + 9 if x + 9 + width < scale.box.right() else x - 9 - width
    # Away from the curve, which comes from below on the left.
    below = y + 8 + line < scale.box.bottom()
    painter.drawText(QPointF(left, y + 4 + line * 0.7 if below else y - 6), text)


def _thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    every = -(-len(points) // _POINTS) or 1
    return points[::every]
