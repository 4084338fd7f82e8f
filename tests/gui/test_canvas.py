"""What counts as the mouse's use of a viewer, and what as a gesture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
    mouse_wheel_callbacks,
)

from napari_cmunet.gui.canvas import ActivityTracker


def event(kind: str, **more) -> ReadOnlyWrapper:
    """As napari's canvas hands it over: it is updated while a button is held."""
    made = {"type": kind, "pos": np.zeros(2), "position": (0, 0), "modifiers": ()}
    made |= {"button": 1, "buttons": [1], "is_dragging": False, "handled": False}
    made |= {"delta": (0, 1), "native": None}
    return ReadOnlyWrapper(SimpleNamespace(**made | more), exceptions=("handled",))


@pytest.fixture
def counts():
    return {"activity": 0, "gesture": 0}


@pytest.fixture
def viewer(counts):
    made = ViewerModel()
    made.add_image(np.zeros((4, 32, 32), np.uint8))

    def count(name):
        return lambda: counts.update({name: counts[name] + 1})

    tracker = ActivityTracker(count("activity"), count("gesture"))
    tracker.start(made)
    yield made
    tracker.stop()
    before = dict(counts)
    mouse_move_callbacks(made, event("mouse_move"))
    made.dims.set_current_step(0, 0)
    assert counts == before  # nothing is followed any more


def test_moving_over_the_image_is_no_gesture(viewer, counts):
    mouse_move_callbacks(viewer, event("mouse_move"))
    assert counts == {"activity": 1, "gesture": 0}


def test_a_click_is_no_gesture_and_a_drag_is_one(viewer, counts):
    mouse_press_callbacks(viewer, event("mouse_press"))
    mouse_release_callbacks(viewer, event("mouse_release"))
    assert counts == {"activity": 1, "gesture": 0}
    mouse_press_callbacks(viewer, event("mouse_press"))
    for _ in range(3):
        mouse_move_callbacks(viewer, event("mouse_move", is_dragging=True))
    mouse_release_callbacks(viewer, event("mouse_release"))
    assert counts["gesture"] == 3


def test_the_wheel_and_another_frame_are_gestures(viewer, counts):
    mouse_wheel_callbacks(viewer, event("wheel"))
    assert counts["gesture"] == 1
    viewer.dims.set_current_step(0, 3)
    assert counts["gesture"] == 2
