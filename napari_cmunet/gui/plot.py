"""What the plots of the panel share: axes, scale and colours.

Drawn by hand: a plotting library would weigh more than the rest of the program's
window together, and a few lines need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

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
