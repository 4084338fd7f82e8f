"""What another model finds in the open image."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.gui.prediction.prediction import Source
from napari_cmunet.gui.project.difference_layer import FOUND, GONE, ModelChange
from tests.gui.conftest import expected, frame


def prepared(viewer, controller, settled):
    """An image, what was found in it, and a part that was left out."""
    image = frame()
    viewer.add_image(image)
    settled(controller)
    left_out = np.zeros(image.shape, bool)
    left_out[4:8] = True
    before = expected(image) > 0
    assert (~before & left_out).any()
    assert (before & left_out).any()
    return controller.active, before, left_out


def other(tells_contrast: bool) -> Source:
    return Source("other", "b" * 64, "cpu", 0.5, tells_contrast)


@pytest.mark.parametrize("tells_contrast", [True, False])
def test_what_both_models_leave_out_is_no_difference(
    viewer, controller, settled, tells_contrast
):
    """A model that does not tell contrast leaves nothing out."""
    image_state, before, left_out = prepared(viewer, controller, settled)
    image_state.seen_before[0] = left_out
    change = ModelChange(controller, image_state)
    every = np.full(before.shape, 255, np.uint8)
    image_state.seen_before.clear(0)
    image_state.set_prediction(0, every, other(tells_contrast), 0)
    change.update(0)
    wanted = ~before & ~left_out if tells_contrast else ~before
    assert np.array_equal(np.asarray(change.layer.data) == FOUND, wanted)
    assert change.difference(0).found == wanted.sum()


def test_what_the_new_model_leaves_out_at_last_is_gone(viewer, controller, settled):
    image_state, before, left_out = prepared(viewer, controller, settled)
    change = ModelChange(controller, image_state)
    found = before * np.uint8(255)
    image_state.set_prediction(0, found, other(True), 0)
    change.update(0)
    assert change.difference(0).gone == 0
    image_state.seen_before[0] = left_out
    image_state.set_prediction(0, found * ~left_out, other(True), 0)
    change.update(0)
    assert change.difference(0).gone == (before & left_out).sum()
    assert np.array_equal(np.asarray(change.layer.data) == GONE, before & left_out)
