"""What the plots of the panel share: axes, scale and colours.

Drawn by hand: a plotting library would weigh more than the rest of the program's
window together, and a few lines need none.
"""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPen

LEFT = 34
"""Width of the numbers on the left, in pixels."""

# Apart for every kind of colour vision.
_ON_DARK = QColor(86, 180, 233), QColor(230, 159, 0)
_ON_LIGHT = QColor(0, 114, 178), QColor(170, 90, 0)


def colours_on(ink: QColor) -> tuple[QColor, QColor]:
    """Blue and orange for a theme whose text has the colour ``ink``."""
    return _ON_DARK if ink.lightness() > 127 else _ON_LIGHT


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
