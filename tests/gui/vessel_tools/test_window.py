"""The vessel tools in a real window: a large cine, any zoom, the mouse and the keys."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_cmunet.vessels.tools import REMOVE
from tests.gui.conftest import CTRL, LEFT, NONE, Reader
from tests.gui.vessel_tools.bench import Bench, angiogram

pytestmark = pytest.mark.slow

TIMES = 8  # 1024 x 1024


def test_the_mouse_takes_the_same_branch_at_any_zoom(window, qtbot, settled):
    viewer, panel, _ = window
    viewer.add_image(np.stack([angiogram(times=TIMES)] * 2), name="cine")
    settled(panel.controller, 60_000)
    model = panel.controller.viewer
    model.dims.set_point(0, 1)
    hand, bench = Reader(viewer, panel), Bench(qtbot, model, panel)
    before = bench.mask.data.copy()
    row, column = 95 * TIMES, 70 * TIMES  # the side branch
    hand.key(Qt.Key.Key_S)
    bench.settle()
    fit = model.scene.camera.zoom
    for zoom in (0.6 * fit, 3 * fit, 20 * fit):
        model.scene.camera.center = (0, row, column)
        model.scene.camera.zoom = zoom
        qtbot.wait(50)
        place = hand.at(row, column)
        QTest.mouseMove(hand.canvas, place)
        qtbot.waitUntil(lambda: "remove this branch" in bench.tools.hint)
        QTest.mouseClick(hand.canvas, LEFT, NONE, place)
        qtbot.waitUntil(lambda: not bench.mask.data[1, row, column])
        change = before[1].astype(int) - bench.mask.data[1]
        # The branch and nothing else, of this frame alone; one step back.
        assert change.min() == 0
        assert not change[: 62 * TIMES].any()
        assert (bench.mask.data[0] == before[0]).all()
        hand.key(Qt.Key.Key_Z, CTRL)
        assert (bench.mask.data == before).all()
        bench.settle()
    hand.key(Qt.Key.Key_Escape)
    assert bench.tools.tool is None


def test_the_keys_work_while_a_tool_is_in_hand(window, settled):
    viewer, panel, _ = window
    viewer.add_image(angiogram(times=4), name="frame")
    settled(panel.controller, 60_000)
    hand, tools = Reader(viewer, panel), panel.vessels.tools
    for letter in (Qt.Key.Key_A, Qt.Key.Key_S):
        hand.key(letter)
        taken, contour = tools.tool, panel.controller.active.mask.contour
        assert taken is not None
        hand.key(Qt.Key.Key_T)
        assert bool(panel.controller.active.mask.contour) is not bool(contour)
        assert tools.tool is taken
    hand.key(Qt.Key.Key_Escape)
    assert tools.tool is None


def test_the_keys_work_while_a_line_is_in_hand(window, settled):
    viewer, panel, _ = window
    viewer.add_image(angiogram(times=4), name="frame")
    settled(panel.controller, 60_000)
    hand, calibration = Reader(viewer, panel), panel.cine.pixel_size.calibration
    panel.cine.pixel_size.start.click()
    line = calibration.layer
    # napari's own on a layer of shapes: select, and all of them.
    assert {"S", "A"} <= {str(key) for key in Shapes.class_keymap}
    hand.key(Qt.Key.Key_G)
    hand.key(Qt.Key.Key_T)
    assert line.mode == "add_line"
    assert panel.controller.active.mask.contour
    hand.key(Qt.Key.Key_S)
    assert line.mode == "add_line"
    assert panel.vessels.tools.tool is REMOVE
