"""The building blocks of the panel: text from a file is text and nothing else."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument

from napari_cmunet.gui.sections import plain_tip, text_label


@pytest.mark.parametrize(
    "text", ["<img src='//host/share/x.png'>", "<b>a & b</b>", "plain", "“<qt>”"]
)
def test_a_tooltip_says_just_what_it_is_given(qapp, text):
    shown = QTextDocument()
    shown.setHtml(plain_tip(text))
    assert shown.toPlainText() == text


def test_labels_show_no_html(qapp):
    assert text_label("<b>x</b>").textFormat() == Qt.TextFormat.PlainText
