"""Measuring in a real window, with mouse and keys."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QStyle, QStyleOptionComboBox

from napari_cmunet.gui.images.layers import METADATA
from tests.gui.conftest import LEFT, NONE, Reader
from tests.gui.measurement.test_measurement import ROW, Measuring, angiogram, stenosed

pytestmark = pytest.mark.slow


def test_two_clicks_a_stroke_and_a_marker(window, qtbot, settled, monkeypatch):
    viewer, panel, _ = window
    viewer.add_image(np.stack([angiogram(stenosed())] * 2), name="cine")
    settled(panel.controller)
    model = panel.controller.viewer
    model.dims.set_point(0, 1)
    hand, measuring = Reader(viewer, panel), Measuring(qtbot, model, panel)
    panel.measuring.points.click()
    for column in (20, 140):
        place = hand.at(ROW, column)
        QTest.mouseMove(hand.canvas, place)
        QTest.mouseClick(hand.canvas, LEFT, NONE, place)
    measuring.settle()
    found = measuring.measurement
    assert found.frame == 1
    assert found.analysis.narrowest.percent_diameter == pytest.approx(50, abs=6)
    before = found.analysis.narrowest
    # Erase a little of one border in the narrowest place, without letting go.
    hand.key(Qt.Key.Key_E)
    mask = panel.controller.active.mask
    mask.brush_size = 2
    top = int(mask.data[1][:, 80].argmax())
    hand.stroke((top + 0.5, 74), (top + 0.5, 80), (top + 0.5, 86))
    measuring.settle()
    after = found.analysis.narrowest
    assert after.percent_diameter > before.percent_diameter + 5
    assert "→" in measuring.number("%DS")
    # Over the image again, with the keyboard alone; the screen ends at 800 pixels.
    for column in (15, 105):
        QTest.mouseMove(hand.canvas, hand.at(ROW, column))
        qtbot.waitUntil(lambda c=column: abs(model.cursor.position[-1] - c) < 2)
        hand.key(Qt.Key.Key_Y)
    measuring.settle()
    assert found.analysis.length == pytest.approx(90, abs=3)
    plot, start = panel.measuring.plot, found.analysis.narrowest.start
    qtbot.waitUntil(plot.isVisible)
    handle, gestures = plot.place("start").toPoint(), []
    note = partial(gestures.append, "a training pauses for it")
    monkeypatch.setattr(panel.project.activity, "_on_gesture", note)
    hand.drag(plot, handle, handle + QPoint(-12, 0), handle + QPoint(-25, 0))
    assert found.analysis.narrowest.start < start - 3
    assert gestures
    assert panel.measuring.reset.isEnabled()


def test_a_search_neither_widens_the_panel_nor_cuts_a_text(window, qtbot, settled):
    viewer, panel, _ = window
    record = {"pixel_size_mm": (0.2, 0.2), "pixel_size_error": 0.03}
    image, metadata = angiogram(stenosed()), {METADATA: record}
    viewer.add_image(image, scale=(0.2, 0.2), metadata=metadata)
    settled(panel.controller)
    qtbot.waitUntil(lambda: panel.width() == panel.minimumSizeHint().width())
    width, section = panel.width(), panel.measuring
    measuring = Measuring(qtbot, panel.controller.viewer, panel)
    section.search.click()
    qtbot.waitUntil(section.places.isVisible)
    qtbot.wait(100)
    assert panel.width() == panel.minimumSizeHint().width() == width
    section.places.activated.emit(1)
    measuring.settle()
    # A reader's change makes the table wider than the panel.
    rows, columns = np.mgrid[ROW - 20 : ROW - 1, 74:87]
    panel.controller.active.write(0, (rows.ravel(), columns.ravel()), 0)
    measuring.settle()
    assert "→" in measuring.number("MLD")
    numbers, page = section.numbers, QTextDocument()
    page.setDocumentMargin(0)
    page.setDefaultFont(numbers.font())
    page.setHtml(numbers.text())
    page.setTextWidth(numbers.width())
    qtbot.waitUntil(lambda: numbers.height() >= page.size().height())
    assert page.size().width() <= numbers.width()
    assert panel.width() == panel.minimumSizeHint().width() == width
    option = QStyleOptionComboBox()
    section.places.initStyleOption(option)
    field = section.places.style().subControlRect(
        QStyle.ComplexControl.CC_ComboBox,
        option,
        QStyle.SubControl.SC_ComboBoxEditField,
        section.places,
    )
    for text in ("20 found: go to…", "20: 30 % of 10.12 ± 0.12 mm"):
        assert section.places.fontMetrics().horizontalAdvance(text) < field.width()


@pytest.mark.parametrize("opened_first", [True, False])
def test_the_keys_work_with_an_image_layer_selected(
    window, qtbot, settled, opened_first
):
    """Napari's own Image layers bind Y to a plane of the 3D view."""
    viewer, panel, _ = window
    if opened_first:
        viewer.window.remove_dock_widget("all")
    viewer.add_image(angiogram(stenosed()), name="frame")
    if opened_first:
        _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    settled(panel.controller)
    model = panel.controller.viewer
    hand, measuring = Reader(viewer, panel), Measuring(qtbot, model, panel)
    for column in (20, 105):  # the screen ends at 800 pixels
        viewer.layers.selection.active = viewer.layers["frame"]
        QTest.mouseMove(hand.canvas, hand.at(ROW, column))
        qtbot.waitUntil(lambda c=column: abs(model.cursor.position[-1] - c) < 2)
        hand.key(Qt.Key.Key_Y)
    measuring.settle()
    found = measuring.measurement
    assert found.analysis.narrowest.percent_diameter == pytest.approx(50, abs=6)
    panel.stop()
    viewer.layers.selection.active = viewer.layers["frame"]
    hand.key(Qt.Key.Key_Y)  # nothing of ours is left
