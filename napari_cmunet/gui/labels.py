"""Labels of the panel: what was found, what the colours mean, the keys."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_cmunet.gui.widgets import LinesHigh, text_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Legend(QLabel):
    """What the colours over the image mean."""

    def __init__(self, entries: Iterable[tuple[str, Sequence[float]]]) -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.setToolTip("Colours of the layers over the image")
        self.setText(
            "&nbsp; ".join(
                "<span style='background-color:#202328'>&nbsp;"
                f"<span style='color:{_hex(colour)}'>&#9632;</span>&nbsp;</span>&nbsp;"
                f"{escape(text).replace(' ', '&nbsp;')}"
                for text, colour in entries
            )
        )


def _hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in colour[:3])


class StatusLabel(LinesHigh):
    """Text of three lines, with a coloured edge that shows what was found.

    A longer text is cut, so that nothing below moves, and shown in ``whole``, too.
    """

    def __init__(self) -> None:
        super().__init__("", lines=3)
        self.whole = text_label()
        self.whole.hide()
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._colour = ""
        self.show_colour("transparent")

    def setText(self, text: str | None) -> None:
        super().setText(text)
        self._show_whole()

    def resizeEvent(self, event) -> None:
        super().resizeEvent(event)
        self._show_whole()

    def _keep_height(self) -> None:
        super()._keep_height()
        self.setMaximumHeight(self.minimumHeight())

    def _show_whole(self) -> None:
        cut = self.heightForWidth(self.width()) > self.maximumHeight()
        self.whole.setText(self.text())
        self.whole.setVisible(cut and self.whole.parent() is not None)

    def show_colour(self, colour: str) -> None:
        """Set the colour of the edge."""
        if colour != self._colour:
            self._colour = colour
            self.setStyleSheet(
                f"StatusLabel {{border-left: 4px solid {colour}; padding-left: 6px;}}"
            )


class KeyList(QLabel):
    """Table of keys and what they do."""

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        spelled = ((key.replace(",  .", "comma, dot"), text) for key, text in keys)
        rows = "".join(
            f"<tr><td style='padding-right:8px'><b>{escape(key)}</b></td>"
            f"<td>{escape(text)}</td></tr>"
            for key, text in spelled
        )
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setText(f"<table cellspacing='0'>{rows}</table>")
