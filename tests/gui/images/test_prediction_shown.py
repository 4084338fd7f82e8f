"""Whether the prediction is shown: the user's choice, whatever image is in front."""

from __future__ import annotations

import pytest
from napari.layers import Image

from napari_cmunet.gui.images.image_state import ImageState
from tests.gui.conftest import cine, frame


@pytest.fixture
def opened(viewer, controller, settled):
    """A frame in front of a cine; N opens the next frame in its place."""
    viewer.add_image(cine(), name="c")
    settled(controller)
    viewer.add_image(frame(), name="a")
    settled(controller)
    return controller.active


@pytest.fixture
def select(viewer):
    def select(name: str) -> None:
        viewer.layers.selection.active = viewer.layers[name]

    return select


@pytest.fixture
def next_image(panel, controller, settled):
    """Open an image in place of the frame; whether the box says it is shown."""

    def open_next(former: ImageState) -> bool:
        image_state = ImageState(Image(frame(1), name="b"))
        controller.replace_image(former, image_state)
        controller.segment()
        settled(controller)
        panel.refresh()
        assert controller.active is image_state
        assert image_state.prediction.visible == image_state.show_prediction
        return panel.prediction_shown.isChecked()

    return open_next


def test_it_is_still_shown_after_another_image_was_in_front(opened, select, next_image):
    select("c mask")
    assert not opened.prediction.visible
    assert next_image(opened)


def test_it_is_still_shown_where_only_the_image_was_shown_again(
    opened, select, viewer, next_image
):
    select("c mask")
    viewer.layers["a"].visible = True
    select("a mask")
    assert next_image(opened)


@pytest.mark.parametrize("in_front", [True, False])
def test_what_hides_the_overlays_for_a_while_does_not_count(
    opened, panel, select, next_image, in_front
):
    panel.cine.pixel_size.start.click()  # a line along the catheter is to be drawn
    assert not opened.prediction.visible
    if not in_front:
        select("c mask")
    assert next_image(opened)


@pytest.mark.parametrize("way", ["box", "eye"])
@pytest.mark.parametrize("in_front", [True, False])
def test_hidden_by_the_user_it_stays_hidden(
    opened, panel, select, next_image, way, in_front
):
    if way == "box":
        panel.prediction_shown.click()
    else:
        opened.prediction.visible = False
    if not in_front:
        select("c mask")
    assert not next_image(opened)


def test_the_eye_is_remembered_when_the_image_comes_back(opened, panel, select):
    opened.prediction.visible = False
    select("c mask")
    panel.refresh()
    assert panel.prediction_shown.isChecked()
    select("a mask")
    panel.refresh()
    assert not panel.prediction_shown.isChecked()
    opened.prediction.visible = True
    select("c mask")
    select("a mask")
    panel.refresh()
    assert panel.prediction_shown.isChecked()
