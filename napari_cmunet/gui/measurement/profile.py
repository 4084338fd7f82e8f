"""The diameter along a stretch as a plot, with markers that can be moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_cmunet.gui.plot import LEFT, Scale, begin, draw_axes, draw_diamond
from napari_cmunet.gui.widgets import TAB_ONLY

if TYPE_CHECKING:
    from napari_cmunet.vessels.qca import Analysis, Calibration, Markers

MARKERS = ("start", "at", "end", "reference")
_NAMES = {
    "start": "start of the lesion",
    "at": "MLD",
    "end": "end of the lesion",
    "reference": "reference",
}
_REACH = 9.0  # of the mouse, pixels of the screen
_LEAP = 5  # points for an arrow key with Shift


class ProfilePlot(QWidget):
    """Shows the diameters of a stretch, and moves its markers by mouse or arrow keys.

    Blue: the diameter. Orange, dashed: the reference, fitted; dotted: a straight line.
    """

    #: A marker of :data:`MARKERS` is moved to a point of the centreline.
    moved = Signal(str, int)

    def __init__(self) -> None:
        super().__init__()
        self._analysis: Analysis | None = None
        self._model: Analysis | None = None
        self._reference_at: int | None = None
        self._factor, self._unit = 1.0, "px"
        self._held: str | None = None
        self.chosen = "at"
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(TAB_ONLY)
        self.setMouseTracking(True)
        self.setToolTip(
            "Diameter from the first point to the last. Blue: diameter; dashed: "
            "reference; grey: kept out, near a bifurcation. Drag the start and end of "
            "the lesion, the MLD (diamond) or the reference (circle). With the "
            "keyboard: Tab to the plot, Up and Down choose a marker, Left and Right "
            "move it."
        )

    def sizeHint(self) -> QSize:
        return QSize(240, 10 * self.fontMetrics().lineSpacing())

    def show_analysis(
        self,
        analysis: Analysis,
        model: Analysis | None,
        markers: Markers,
        calibration: Calibration,
    ) -> None:
        """Draw an analysis, and the model's where a reader has changed the mask."""
        self._analysis = analysis
        self._model = None if model is analysis else model
        self._reference_at = markers.reference
        known = calibration.mm is not None
        self._factor, self._unit = calibration.mm or 1.0, "mm" if known else "px"
        self.update()

    # -- geometry ----------------------------------------------------------------

    def _scale(self) -> Scale:
        assert self._analysis is not None
        line = self.fontMetrics().lineSpacing()
        top = 0.8 * line
        box = QRectF(LEFT, top, self.width() - LEFT - 6.0, self.height() - top - line)
        highest = max(
            self._analysis.borders.diameter.max(), self._analysis.reference.max()
        )
        return Scale(box, self._analysis.length, 0.0, 1.1 * self._factor * highest)

    def place(self, name: str) -> QPointF:
        """Where the handle of a marker is."""
        found, scale = self._analysis, self._scale()
        assert found is not None
        lesion = found.narrowest
        if name == "reference":
            at = lesion.at if self._reference_at is None else self._reference_at
            return scale.at(at, self._factor * float(found.reference[at]))
        if name == "at":
            return scale.at(lesion.at, self._factor * lesion.mld)
        return scale.at(lesion.start if name == "start" else lesion.end, scale.high)

    def _marker_at(self, position: QPointF) -> str | None:
        for name in ("at", "reference"):
            off = position - self.place(name)
            if np.hypot(off.x(), off.y()) <= _REACH:
                return name
        away = {n: abs(position.x() - self.place(n).x()) for n in ("start", "end")}
        nearest = min(away, key=lambda name: away[name])
        return nearest if away[nearest] <= _REACH else None

    # -- mouse and keys ----------------------------------------------------------

    def mousePressEvent(self, event) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._analysis is not None:
            self._held = self._marker_at(event.position())
            self.chosen = self._held or self.chosen
            self.update()

    def mouseMoveEvent(self, event) -> None:
        if self._analysis is None:
            return
        if self._held is not None:
            box = self._scale().box
            share = (event.position().x() - box.left()) / max(1.0, box.width())
            self.moved.emit(self._held, round(share * self._analysis.length))
            return
        over = self._marker_at(event.position()) is not None
        shape = Qt.CursorShape.SizeHorCursor if over else Qt.CursorShape.ArrowCursor
        self.setCursor(shape)

    def mouseReleaseEvent(self, event) -> None:
        self._held = None

    def keyPressEvent(self, event) -> None:
        key, found = event.key(), self._analysis
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
        if found is not None and key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            step = 1 if key == Qt.Key.Key_Down else -1
            at = (MARKERS.index(self.chosen) + step) % len(MARKERS)
            self.chosen = MARKERS[at]
            self.update()
        elif found is not None and key in steps:
            leap = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            at = self._point(self.chosen) + steps[key] * (_LEAP if leap else 1)
            self.moved.emit(self.chosen, at)
        else:
            super().keyPressEvent(event)

    def _point(self, name: str) -> int:
        assert self._analysis is not None
        lesion = self._analysis.narrowest
        if name == "reference":
            return lesion.at if self._reference_at is None else self._reference_at
        return {"start": lesion.start, "at": lesion.at, "end": lesion.end}[name]

    # -- drawing -----------------------------------------------------------------

    def paintEvent(self, event) -> None:
        found = self._analysis
        if found is None:
            return
        painter, ink, blue, orange = begin(self)
        scale, lesion = self._scale(), found.narrowest
        self._shade(painter, scale, ~found.usable, ink, 45)
        inside = np.zeros(len(found.usable), bool)
        inside[lesion.start : lesion.end + 1] = True
        self._shade(painter, scale, inside, orange, 50)
        draw_axes(painter, scale, self._unit, blue, ink)
        pale = QColor(blue)
        pale.setAlpha(120)
        if self._model is not None and self._model.length == found.length:
            self._curve(painter, scale, self._model.borders.diameter, QPen(pale, 1))
        dotted = QPen(orange, 1, Qt.PenStyle.DotLine)
        self._curve(painter, scale, found.straight, dotted)
        dashed = QPen(orange, 1.5, Qt.PenStyle.DashLine)
        self._curve(painter, scale, found.reference, dashed)
        self._curve(painter, scale, found.borders.diameter, QPen(blue, 1.8))
        for name in MARKERS:
            self._draw_marker(painter, scale, name, orange, ink)
        painter.setPen(ink)
        line = painter.fontMetrics().lineSpacing()
        bottom = QRectF(LEFT, self.height() - line, scale.box.width(), line)
        painter.drawText(bottom, Qt.AlignmentFlag.AlignLeft, "0")
        end = f"{self._factor * found.length:.3g} {self._unit}"
        painter.drawText(bottom, Qt.AlignmentFlag.AlignRight, end)
        if self.hasFocus():
            middle = Qt.AlignmentFlag.AlignHCenter
            painter.drawText(bottom, middle, _NAMES[self.chosen])

    def _curve(self, painter, scale: Scale, values: np.ndarray, pen: QPen) -> None:
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        points = [scale.at(at, self._factor * float(v)) for at, v in enumerate(values)]
        painter.drawPolyline(QPolygonF(points))

    @staticmethod
    def _shade(painter, scale: Scale, where: np.ndarray, colour, alpha: int) -> None:
        shade = QColor(colour)
        shade.setAlpha(alpha)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(shade)
        edges = np.flatnonzero(np.diff(np.pad(where.astype(np.int8), 1)))
        for first, last in edges.reshape(-1, 2):
            top_left = scale.at(int(first), scale.high)
            bottom_right = scale.at(int(last) - 1, scale.low)
            painter.drawRect(QRectF(top_left, bottom_right))

    def _draw_marker(self, painter, scale: Scale, name: str, orange, ink) -> None:
        place = self.place(name)
        chosen = name == self.chosen and self.hasFocus()
        painter.setPen(QPen(ink, 2.5 if chosen else 1.3))
        painter.setBrush(orange if chosen else Qt.BrushStyle.NoBrush)
        x, y = place.x(), place.y()
        if name == "reference":
            painter.drawEllipse(place, 5.0, 5.0)
        elif name == "at":
            draw_diamond(painter, place)
        else:
            bottom, lean = scale.box.bottom(), 4.0 if name == "start" else -4.0
            painter.drawLine(place, QPointF(x, bottom))
            for end in (y, bottom):
                painter.drawLine(QPointF(x, end), QPointF(x + lean, end))
