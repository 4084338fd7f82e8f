"""The building blocks of the panel: text from a file is text and nothing else."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QTextDocument, QWheelEvent
from qtpy.QtWidgets import QApplication, QVBoxLayout, QWidget

from napari_cmunet.gui.labels import StatusLabel
from napari_cmunet.gui.prediction.section import ThresholdSlider
from napari_cmunet.gui.widgets import combo, plain_tip, text_label


@pytest.mark.parametrize(
    "text", ["<img src='//host/share/x.png'>", "<b>a & b</b>", "plain", "“<qt>”"]
)
def test_a_tooltip_says_just_what_it_is_given(qapp, text):
    shown = QTextDocument()
    shown.setHtml(plain_tip(text))
    assert shown.toPlainText() == text


def test_labels_show_no_html(qapp):
    assert text_label("<b>x</b>").textFormat() == Qt.TextFormat.PlainText


def notch_over(widget: QWidget) -> QWheelEvent:
    notch = QWheelEvent(
        QPointF(5, 5),
        QPointF(widget.mapToGlobal(QPoint(5, 5))),
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    notch.accept()
    QApplication.sendEvent(widget, notch)
    return notch


@pytest.mark.parametrize("focus", [False, True])
def test_the_wheel_over_a_box_is_left_to_the_panel(qtbot, focus):
    box = combo("Which")
    box.addItems(["one", "two", "three"])
    qtbot.addWidget(box)
    box.show()
    box.activateWindow()
    qtbot.waitExposed(box)
    if focus:
        box.setFocus()
        qtbot.waitUntil(box.hasFocus)
    notch = notch_over(box)
    assert box.currentText() == "one"
    assert not notch.isAccepted()  # so it goes on to what lies below
    qtbot.keyClick(box, Qt.Key.Key_Down)  # the keys still choose
    assert box.currentText() == "two"


@pytest.mark.parametrize("part", ["slider", "number"])
@pytest.mark.parametrize("focus", [False, True])
def test_the_wheel_over_the_threshold_moves_nothing(qtbot, part, focus):
    threshold = ThresholdSlider()
    qtbot.addWidget(threshold)
    threshold.show_value(0.5)
    threshold.show()
    threshold.activateWindow()
    qtbot.waitExposed(threshold)
    moved = []
    threshold.moved.connect(lambda *told: moved.append(told))
    widget = getattr(threshold, part)
    if focus:
        widget.setFocus()
        qtbot.waitUntil(widget.hasFocus)
    assert not notch_over(widget).isAccepted()
    assert threshold.value() == 0.5
    assert not moved
    qtbot.keyClick(widget, Qt.Key.Key_Up)
    assert threshold.value() == 0.51
    assert len(moved) == 1


def test_a_label_of_two_lines_is_as_high_when_it_says_nothing(qtbot):
    panel = QWidget()
    qtbot.addWidget(panel)
    panel.setStyleSheet("QLabel { padding: 3px; font-size: 19px; }")
    layout = QVBoxLayout(panel)
    said, below = text_label(lines=2), text_label("below")
    layout.addWidget(said)
    layout.addWidget(below)
    layout.addStretch()
    panel.resize(300, 300)
    panel.show()
    qtbot.waitExposed(panel)
    where = below.y()
    said.setText("Two short lines\nas a hint has")
    qtbot.wait(50)
    assert below.y() == where
    assert said.height() == said.heightForWidth(said.width())


def test_a_usual_message_moves_nothing(qtbot):
    window, status, below = QWidget(), StatusLabel(), text_label("below")
    layout = QVBoxLayout(window)
    for widget in (status, below):
        layout.addWidget(widget)
    layout.addStretch(1)
    window.resize(280, 300)
    qtbot.addWidget(window)
    window.show()
    qtbot.waitExposed(window)
    places = set()
    for text in (
        "Segmenting…",
        "No artery found in this image. Lower the threshold, or draw with Paint.",
    ):
        status.setText(text)
        QApplication.processEvents()
        places.add(below.y())
    assert len(places) == 1


def test_a_long_message_moves_nothing_and_is_whole_elsewhere(qtbot):
    window, status, below = QWidget(), StatusLabel(), text_label("below")
    layout = QVBoxLayout(window)
    for widget in (status, below):
        layout.addWidget(widget)
    layout.addStretch(1)
    layout.addWidget(status.whole)
    window.resize(280, 300)
    qtbot.addWidget(window)
    window.show()
    qtbot.waitExposed(window)
    where = below.y()
    assert status.whole.isHidden()
    text = "This file cannot be read: it ends in the middle of a frame. " * 4
    status.setText(text)
    qtbot.wait(20)
    assert below.y() == where
    assert status.whole.isVisible() and status.whole.text() == text
    status.setText("Short again.")
    qtbot.wait(20)
    assert below.y() == where
    assert status.whole.isHidden()
