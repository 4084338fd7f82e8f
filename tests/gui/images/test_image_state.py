"""Masks, threshold and undo of one image, without a window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_cmunet.gui.images.corrections import fingerprints
from napari_cmunet.gui.images.image_state import ImageState
from napari_cmunet.gui.images.layers import SEEN_BEFORE, is_image, unsupported
from napari_cmunet.gui.prediction.prediction import Source
from tests.gui.conftest import cine, expected, frame

SOURCE = Source("m", "a" * 64, "cpu", 0.5, True)


def read(image: np.ndarray, shown: int = 0) -> ImageState:
    """A reading of which every frame is predicted and filled."""
    image_state = ImageState(Image(image))
    image_state.new_mask_layer()
    frames = image if image.ndim == 3 else image[None]
    for i, one in enumerate(frames):
        assert image_state.set_prediction(i, 255 - one, SOURCE, shown)
    return image_state


def paint(image_state: ImageState, frame_index: int, row: int, value: int = 1) -> None:
    """Draw a horizontal line, as the brush does."""
    mask = image_state.mask
    mask.mode = "paint"
    mask.brush_size = 1
    start = (row, 2) if mask.ndim == 2 else (frame_index, row, 2)
    with mask.block_history():
        for column in range(2, 20):
            mask.paint((*start[:-1], column), value)


def move(
    image_state: ImageState, threshold: float, shown: int = 0, via: float = 0.9
) -> None:
    """Drag the slider there by a detour."""
    image_state.history.begin_drag(shown)
    image_state.history.preview(via)
    image_state.history.preview(threshold)
    image_state.history.end_drag()


@pytest.mark.parametrize(
    ("data", "rgb", "reason"),
    [
        pytest.param(np.zeros((40, 40), np.uint8), False, None, id="frame"),
        pytest.param(np.zeros((3, 40, 40), np.uint16), False, None, id="cine"),
        pytest.param(np.zeros((40, 40), np.float32), False, None, id="float"),
        pytest.param(np.full((40, 40, 3), 7, np.uint8), True, None, id="grey rgb"),
        pytest.param(np.zeros((2, 3, 40, 40), np.uint8), False, "4 dim", id="4-D"),
        pytest.param(np.zeros((40, 40), bool), False, "yes/no", id="bool"),
        pytest.param(np.zeros((40, 31), np.uint8), False, "Too small", id="small"),
        pytest.param(np.zeros((40, 40, 2), np.uint8), False, "Too small", id="alpha"),
        pytest.param(
            np.arange(4800).reshape(40, 40, 3).astype(np.uint8),
            True,
            "colour",
            id="rgb",
        ),
    ],
)
def test_says_why_an_image_cannot_be_segmented(data, rgb, reason):
    said = unsupported(Image(data, rgb=rgb))
    assert said is None if reason is None else reason in said


def test_own_layers_are_no_angiograms():
    image_state = read(frame())
    assert is_image(image_state.image)
    assert not is_image(image_state.new_prediction_layer())


def test_new_mask_lies_where_the_image_lies():
    image = Image(
        frame(), scale=(0.3, 0.2), translate=(5, 6), rotate=20, units=("mm", "mm")
    )
    image_state = ImageState(image)
    for layer in (image_state.new_mask_layer(), image_state.new_prediction_layer()):
        np.testing.assert_allclose(
            layer.data_to_world((3, 4)), image.data_to_world((3, 4))
        )
        assert layer.units == image.units


def test_prediction_cannot_be_painted_on():
    image_state = read(frame())
    assert not image_state.new_prediction_layer().editable


def test_fill_is_no_undo_step():
    image = frame()
    image_state = read(image)
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, expected(image))


def test_threshold_moves_the_mask():
    image = frame()
    image_state = read(image)
    move(image_state, 0.2)
    np.testing.assert_array_equal(image_state.mask.data, expected(image, 0.2))
    assert image_state.threshold == 0.2


def test_one_drag_is_one_undo_step_and_takes_the_value_back():
    image = frame()
    image_state = read(image)
    paint(image_state, 0, 4)
    painted = image_state.mask.data.copy()
    move(image_state, 0.8)
    dragged = image_state.mask.data.copy()
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, painted)
    assert image_state.threshold == 0.5
    image_state.mask.redo()
    np.testing.assert_array_equal(image_state.mask.data, dragged)
    assert image_state.threshold == 0.8
    image_state.mask.undo()
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, expected(image))
    assert image_state.threshold == 0.5


def test_corrections_survive_the_threshold_there_and_back():
    image = frame()
    image_state = read(image)
    predicted = image_state.mask.data.copy()
    paint(image_state, 0, 4, 1)
    paint(image_state, 0, 9, 0)
    painted = image_state.mask.data.copy()
    corrected = painted != predicted
    # At 0 and at 1 each of the corrections agrees with the prediction.
    for threshold in (0.0, 1.0, 0.3, 0.7, 0.5):
        move(image_state, threshold)
        np.testing.assert_array_equal(
            image_state.mask.data[corrected], painted[corrected]
        )
    np.testing.assert_array_equal(image_state.mask.data, painted)
    for _ in range(7):
        image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, expected(image))
    assert image_state.threshold == 0.5


def test_key_steps_in_a_row_are_one_undo_step():
    image = frame()
    image_state = read(image)
    for i, value in enumerate((0.49, 0.48, 0.47, 0.46)):
        image_state.history.set_threshold(0, value, join=i > 0)
    np.testing.assert_array_equal(image_state.mask.data, expected(image, 0.46))
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, expected(image))
    assert image_state.threshold == 0.5


def test_a_stroke_between_key_steps_is_not_joined_over():
    image_state = read(frame())
    image_state.history.set_threshold(0, 0.4, join=False)
    paint(image_state, 0, 4)
    painted = image_state.mask.data.copy()
    image_state.history.set_threshold(0, 0.3, join=True)
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, painted)
    assert image_state.threshold == 0.4


def test_erasing_all_that_a_step_added_is_not_taken_for_undo():
    image = frame()
    image_state = read(image)
    before = image_state.mask.data.copy()
    move(image_state, 0.45)
    added = np.nonzero(image_state.mask.data != before)
    image_state.mask.data_setitem(added, 0)
    image_state.mask.refresh()
    assert image_state.threshold == 0.45
    image_state.mask.undo()
    assert image_state.threshold == 0.45
    image_state.mask.undo()
    assert image_state.threshold == 0.5
    np.testing.assert_array_equal(image_state.mask.data, before)


def test_cine_threshold_spares_corrected_frames():
    image = cine()
    image_state = read(image)
    paint(image_state, 3, 4)
    kept = image_state.mask.data[3].copy()
    move(image_state, 0.2, shown=1)
    for i in range(5):
        image_state.history.bring_up_to_date(i)
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(image_state.mask.data[i], expected(image[i], 0.2))
    np.testing.assert_array_equal(image_state.mask.data[3], kept)
    # One undo takes the whole cine back, the stroke stays.
    image_state.mask.undo()
    assert image_state.threshold == 0.5
    for i in range(5):
        image_state.history.bring_up_to_date(i)
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(image_state.mask.data[i], expected(image[i]))
    np.testing.assert_array_equal(image_state.mask.data[3], kept)
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, expected(image))


def test_cine_threshold_can_be_undone_where_the_shown_frame_is_empty():
    image = cine()
    image[0] = 255  # no artery at any threshold
    image_state = read(image)
    move(image_state, 0.2, shown=0)
    for i in range(5):
        image_state.history.bring_up_to_date(i)
    np.testing.assert_array_equal(image_state.mask.data, expected(image, 0.2))
    image_state.mask.undo()
    for i in range(5):
        image_state.history.bring_up_to_date(i)
    assert image_state.threshold == 0.5
    np.testing.assert_array_equal(image_state.mask.data, expected(image))


def test_undo_restores_the_painted_frame_alone():
    image = cine(8)
    image_state = ImageState(Image(image))
    mask = image_state.new_mask_layer()
    image_state.set_prediction(3, 255 - image[3], SOURCE, 3)
    paint(image_state, 3, 4)
    image_state.set_prediction(7, 255 - image[7], SOURCE, 3)
    paint(image_state, 3, 9)
    mask.undo()
    mask.undo()
    np.testing.assert_array_equal(mask.data[3], expected(image[3]))
    np.testing.assert_array_equal(mask.data[7], expected(image[7]))
    mask.undo()
    np.testing.assert_array_equal(mask.data[7], expected(image[7]))


def test_a_stroke_undone_before_the_prediction_does_not_keep_the_frame():
    image = cine()
    image_state = ImageState(Image(image))
    mask = image_state.new_mask_layer()
    paint(image_state, 2, 4)
    mask.undo()
    assert image_state.set_prediction(2, 255 - image[2], SOURCE, 2)
    np.testing.assert_array_equal(mask.data[2], expected(image[2]))
    # The stroke can no longer be redone into the middle of the prediction.
    mask.redo()
    np.testing.assert_array_equal(mask.data[2], expected(image[2]))


def test_a_frame_painted_before_its_prediction_is_kept():
    image = cine()
    image_state = ImageState(Image(image))
    mask = image_state.new_mask_layer()
    paint(image_state, 2, 4)
    painted = mask.data.copy()
    assert not image_state.set_prediction(2, 255 - image[2], SOURCE, 2)
    np.testing.assert_array_equal(mask.data, painted)


def test_resetting_a_frame_can_be_undone():
    image = cine()
    image_state = read(image)
    paint(image_state, 2, 4)
    painted = image_state.mask.data.copy()
    image_state.history.reset(2)
    np.testing.assert_array_equal(image_state.mask.data, expected(image))
    assert not image_state.is_corrected(2)
    image_state.mask.undo()
    np.testing.assert_array_equal(image_state.mask.data, painted)
    assert image_state.is_corrected(2)


def test_a_filled_frame_under_a_held_slider_is_not_lost():
    image = frame()
    image_state = ImageState(Image(image))
    image_state.new_mask_layer()
    image_state.history.begin_drag(0)
    image_state.history.preview(0.7)
    image_state.set_prediction(0, 255 - image, SOURCE, 0)
    image_state.history.preview(0.6)
    image_state.history.end_drag()
    np.testing.assert_array_equal(image_state.mask.data, expected(image, 0.6))


def test_second_prediction_replaces_what_nobody_corrected():
    image = cine()
    image_state = read(image)
    paint(image_state, 2, 4)
    move(image_state, 0.4, shown=1)
    kept = image_state.mask.data[2].copy()
    image_state.discard_predictions()
    for i in range(5):
        image_state.set_prediction(i, image[i], SOURCE, 0)
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(
            image_state.mask.data[i], expected(255 - image[i], 0.4)
        )
    np.testing.assert_array_equal(image_state.mask.data[2], kept)


def test_unsaved_corrections_are_known_exactly():
    image_state = read(cine())
    assert image_state.corrections.unsaved() == []
    paint(image_state, 2, 4)
    assert image_state.corrections.unsaved() == [2]
    image_state.mask.undo()
    assert image_state.corrections.unsaved() == []
    image_state.mask.redo()
    prints = fingerprints(image_state.snapshot())
    image_state.corrections.note_export(prints, image_state.threshold)
    assert image_state.corrections.unsaved() == []
    paint(image_state, 4, 4)
    assert image_state.corrections.unsaved() == [4]


def test_another_array_in_the_mask_counts_as_corrected():
    image_state = read(cine())
    image_state.mask.data = np.zeros_like(image_state.mask.data)
    image_state.on_data_replaced()
    move(image_state, 0.2, shown=0)
    image_state.history.bring_up_to_date(3)
    assert not image_state.mask.data[3].any()


def test_a_mask_changed_behind_the_back_is_left_alone():
    image_state = read(cine())
    image_state.mask.data[3] = 0
    move(image_state, 0.2, shown=0)
    assert not image_state.history.bring_up_to_date(3)
    assert not image_state.mask.data[3].any()


def test_labels_beyond_one_are_artery():
    image = frame()
    image_state = read(image)
    image_state.mask.data_setitem((np.array([0]), np.array([0])), 3)
    mask = image_state.snapshot()
    assert mask.dtype == bool
    assert mask[0, 0]


def test_a_mask_of_another_size_is_not_used():
    image_state = read(frame())
    image_state.mask.data = np.zeros((5, 5), np.uint8)
    assert not image_state.usable_mask
    assert isinstance(image_state.mask, Labels)


def test_what_was_there_before_is_shown_and_not_in_the_mask():
    image = cine(3)
    image_state = ImageState(Image(image))
    image_state.new_mask_layer()
    wire = np.zeros(image.shape[1:], bool)
    wire[2] = True
    image_state.seen_before[1] = wire
    image_state.set_prediction(1, np.zeros_like(image[1]), SOURCE, 0)
    assert np.array_equal(image_state.seen_before[1], wire)
    assert not image_state.seen_before[0].any()
    pixels = image_state.prediction_pixels()
    assert (pixels[1] == SEEN_BEFORE * wire).all()
    assert not image_state.mask.data[1].any()
    image_state.seen_before[1] = np.zeros_like(wire)
    assert SEEN_BEFORE not in image_state.prediction_pixels()
