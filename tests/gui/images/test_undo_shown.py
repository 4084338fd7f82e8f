"""Undo and redo show the frame that they change."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gui.conftest import cine


@pytest.fixture
def opened(viewer, controller, settled):
    viewer.add_image(cine(4))
    settled(controller)
    return controller.active


def paint(opened, frame):
    opened.mask.brush_size = 3
    with opened.mask.block_history():
        opened.mask.paint((frame, 4, 4), 1)


def shown(viewer):
    return int(viewer.dims.current_step[0])


def test_undo_and_redo_of_another_frame_show_it(opened, viewer):
    viewer.dims.set_point(0, 1)
    paint(opened, 1)
    viewer.dims.set_point(0, 3)
    before = opened.mask.data[1].copy()
    opened.mask.undo()
    assert shown(viewer) == 1
    assert (opened.mask.data[1] != before).any()
    viewer.dims.set_point(0, 0)
    opened.mask.redo()
    assert shown(viewer) == 1
    np.testing.assert_array_equal(opened.mask.data[1], before)


def test_with_nothing_to_undo_the_frame_stays(opened, viewer):
    paint(opened, 2)
    opened.mask.undo()
    viewer.dims.set_point(0, 0)
    opened.mask.undo()
    assert shown(viewer) == 0


def test_undo_of_a_threshold_shows_where_it_was_moved(opened, viewer, controller):
    viewer.dims.set_point(0, 2)
    controller.editor.move_threshold(0.2)
    viewer.dims.set_point(0, 0)
    opened.mask.undo()
    assert shown(viewer) == 2
    viewer.dims.set_point(0, 2)
    opened.mask.redo()
    assert shown(viewer) == 2
