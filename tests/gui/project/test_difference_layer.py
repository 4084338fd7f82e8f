"""What another model finds in the open image."""

from __future__ import annotations

import numpy as np

from napari_cmunet.gui.prediction.prediction import Source
from napari_cmunet.gui.project.difference_layer import FOUND, ModelChange
from tests.gui.conftest import expected, frame


def test_what_was_there_before_the_contrast_is_no_difference(
    viewer, controller, settled
):
    image = frame()
    viewer.add_image(image)
    settled(controller)
    image_state = controller.active
    left_out = np.zeros(image.shape, bool)
    left_out[4:8] = True
    image_state.seen_before[0] = left_out
    change = ModelChange(controller, image_state)
    every = np.full(image.shape, 255, np.uint8)
    image_state.set_prediction(0, every, Source("other", "b" * 64, "cpu", 0.5, True), 0)
    change.update(0)
    before = expected(image) > 0
    assert (~before & left_out).any()
    shown = np.asarray(change.layer.data) == FOUND
    assert np.array_equal(shown, ~before & ~left_out)
    assert change.difference(0).found == shown.sum()
