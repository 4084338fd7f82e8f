"""The switch that inverts an image: pixels, prediction and provenance follow."""

from __future__ import annotations

import numpy as np

from napari_cmunet.gui.export import origin
from napari_cmunet.gui.images.layers import is_inverted
from napari_cmunet.synthetic import PhantomConfig, make_frame
from tests.gui.conftest import cine, expected


def test_the_switch_turns_any_image_and_back(panel, viewer, controller, settled):
    frames = cine(3)
    layer = viewer.add_image(frames, name="c", contrast_limits=(20, 200))
    settled(controller)
    panel.refresh()
    assert panel.invert.isEnabled()
    assert not panel.invert.isChecked()
    panel.invert.click()
    settled(controller)
    panel.refresh()
    state = controller.active
    assert panel.invert.isChecked()
    assert is_inverted(state.image)
    assert not state.image_replaced
    assert np.array_equal(layer.data, 255 - frames)
    assert tuple(layer.contrast_limits) == (55, 235)
    # It is segmented again as it is now.
    assert np.array_equal(state.mask_frame(1), expected(255 - frames[1]))
    assert origin(state).inverted
    panel.invert.click()
    settled(controller)
    assert np.array_equal(layer.data, frames)
    assert tuple(layer.contrast_limits) == (20, 200)
    assert not origin(state).inverted


def test_bright_arteries_are_offered_to_be_inverted(panel, viewer, controller, settled):
    frame, _ = make_frame(PhantomConfig(size=256, seed=3))
    layer = viewer.add_image(255 - frame)
    settled(controller)
    panel.refresh()
    assert "arteries seem to be bright" in controller.message
    assert "seems bright" in panel.invert.text()
    panel.invert.click()
    settled(controller)
    panel.refresh()
    assert "seems bright" not in panel.invert.text()
    assert layer.metadata["napari_cmunet"]["is_inverted"]


def test_without_an_image_there_is_nothing_to_invert(panel):
    assert not panel.invert.isEnabled()
