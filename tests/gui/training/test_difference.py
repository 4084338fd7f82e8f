"""What is found now and what is gone, as a layer that no brush changes."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cmunet.gui.training.difference import (
    FOUND_NOW,
    GONE_NOW,
    DifferenceView,
)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def masks() -> tuple[np.ndarray, np.ndarray]:
    before, after = np.zeros((2, 30, 40), bool)
    before[5:10, 5:15] = True
    after[7:14, 5:15] = True
    return before, after


def test_found_now_and_gone_now(viewer):
    image = viewer.add_image(np.zeros((30, 40)), scale=(0.3, 0.3), name="a")
    mine = viewer.add_labels(np.ones((30, 40), np.uint8))
    view = DifferenceView(viewer)
    before, after = masks()
    told = view.show(image, before, after)
    layer = view.layer
    assert (layer.data[10:14, 5:15] == FOUND_NOW).all()
    assert (layer.data[5:7, 5:15] == GONE_NOW).all()
    assert (layer.data[7:10, 5:15] == 0).all()
    assert (told.found, told.gone, told.before) == (40, 20, 50)
    assert "40 pixels (80%) found now" in str(told)
    assert not layer.editable
    assert np.array_equal(layer.scale, image.scale)
    assert viewer.layers.index(layer) == 1
    assert viewer.layers.selection.active is mine  # the brush stays in hand
    assert (mine.data == 1).all()


def test_a_second_one_replaces_the_first_and_hiding_takes_it_away(viewer):
    image = viewer.add_image(np.zeros((30, 40)))
    view = DifferenceView(viewer)
    before, after = masks()
    view.show(image, before, after)
    view.show(image, after, before)
    assert len(viewer.layers) == 2
    view.hide()
    view.hide()
    assert list(viewer.layers) == [image]
    assert "exactly the same" in str(view.show(image, before, before))


def test_a_layer_that_the_reader_deleted_or_renamed(viewer):
    image = viewer.add_image(np.zeros((2, 30, 40)))
    view = DifferenceView(viewer)
    before, after = (np.stack([m, m]) for m in masks())
    view.show(image, before, after)
    view.layer.name = "mine"
    view.show(image, before, after)
    assert len(viewer.layers) == 2
    viewer.layers.remove(view.layer)
    assert view.layer is None
    view.hide()
    view.show(image, before, after)
    assert view.layer in viewer.layers
    with pytest.raises(ValueError, match="shapes differ"):
        view.show(image, before, after[0])
