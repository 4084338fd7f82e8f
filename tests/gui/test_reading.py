"""Masks, threshold and undo of one image, without a window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_cmunet.gui.corrections import fingerprints
from napari_cmunet.gui.layers import is_image, why_not
from napari_cmunet.gui.reading import Reading, Source
from tests.gui.conftest import cine, expected, frame

SOURCE = Source("m", "a" * 64, "cpu", 0.5)


def read(image: np.ndarray, shown: int = 0) -> Reading:
    """A reading of which every frame is predicted and filled."""
    reading = Reading(Image(image))
    reading.new_mask_layer()
    frames = image if image.ndim == 3 else image[None]
    for i, one in enumerate(frames):
        assert reading.set_prediction(i, 255 - one, SOURCE, shown)
    return reading


def paint(reading: Reading, frame_index: int, row: int, value: int = 1) -> None:
    """Draw a horizontal line, as the brush does."""
    mask = reading.mask
    mask.mode = "paint"
    mask.brush_size = 1
    start = (row, 2) if mask.ndim == 2 else (frame_index, row, 2)
    with mask.block_history():
        for column in range(2, 20):
            mask.paint((*start[:-1], column), value)


def move(reading: Reading, threshold: float, shown: int = 0, via: float = 0.9) -> None:
    """Drag the slider there by a detour."""
    reading.steps.begin(shown)
    reading.steps.preview(via)
    reading.steps.preview(threshold)
    reading.steps.commit()


@pytest.mark.parametrize(
    ("data", "rgb", "reason"),
    [
        pytest.param(np.zeros((9, 9), np.uint8), False, None, id="frame"),
        pytest.param(np.zeros((3, 9, 9), np.uint16), False, None, id="cine"),
        pytest.param(np.zeros((9, 9), np.float32), False, None, id="float"),
        pytest.param(np.full((9, 9, 3), 7, np.uint8), True, None, id="grey rgb"),
        pytest.param(np.zeros((2, 3, 9, 9), np.uint8), False, "4 dim", id="4-D"),
        pytest.param(np.zeros((9, 9), bool), False, "yes/no", id="bool"),
        pytest.param(
            np.arange(243, dtype=np.uint8).reshape(9, 9, 3), True, "colour", id="rgb"
        ),
    ],
)
def test_says_why_an_image_cannot_be_segmented(data, rgb, reason):
    said = why_not(Image(data, rgb=rgb))
    assert said is None if reason is None else reason in said


def test_own_layers_are_no_angiograms():
    reading = read(frame())
    assert is_image(reading.image)
    assert not is_image(reading.new_prediction_layer())


def test_new_mask_lies_where_the_image_lies():
    image = Image(
        frame(), scale=(0.3, 0.2), translate=(5, 6), rotate=20, units=("mm", "mm")
    )
    reading = Reading(image)
    for layer in (reading.new_mask_layer(), reading.new_prediction_layer()):
        np.testing.assert_allclose(
            layer.data_to_world((3, 4)), image.data_to_world((3, 4))
        )
        assert layer.units == image.units


def test_prediction_cannot_be_painted_on():
    reading = read(frame())
    assert not reading.new_prediction_layer().editable


def test_fill_is_no_undo_step():
    image = frame()
    reading = read(image)
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, expected(image))


def test_threshold_moves_the_mask():
    image = frame()
    reading = read(image)
    move(reading, 0.2)
    np.testing.assert_array_equal(reading.mask.data, expected(image, 0.2))
    assert reading.threshold == 0.2


def test_one_drag_is_one_undo_step_and_takes_the_value_back():
    image = frame()
    reading = read(image)
    paint(reading, 0, 4)
    painted = reading.mask.data.copy()
    move(reading, 0.8)
    dragged = reading.mask.data.copy()
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, painted)
    assert reading.threshold == 0.5
    reading.mask.redo()
    np.testing.assert_array_equal(reading.mask.data, dragged)
    assert reading.threshold == 0.8
    reading.mask.undo()
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, expected(image))
    assert reading.threshold == 0.5


def test_corrections_survive_the_threshold_there_and_back():
    image = frame()
    reading = read(image)
    predicted = reading.mask.data.copy()
    paint(reading, 0, 4, 1)
    paint(reading, 0, 9, 0)
    painted = reading.mask.data.copy()
    corrected = painted != predicted
    # At 0 and at 1 each of the corrections agrees with the prediction.
    for threshold in (0.0, 1.0, 0.3, 0.7, 0.5):
        move(reading, threshold)
        np.testing.assert_array_equal(reading.mask.data[corrected], painted[corrected])
    np.testing.assert_array_equal(reading.mask.data, painted)
    for _ in range(7):
        reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, expected(image))
    assert reading.threshold == 0.5


def test_key_steps_in_a_row_are_one_undo_step():
    image = frame()
    reading = read(image)
    for i, value in enumerate((0.49, 0.48, 0.47, 0.46)):
        reading.steps.step(0, value, join=i > 0)
    np.testing.assert_array_equal(reading.mask.data, expected(image, 0.46))
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, expected(image))
    assert reading.threshold == 0.5


def test_a_stroke_between_key_steps_is_not_joined_over():
    reading = read(frame())
    reading.steps.step(0, 0.4, join=False)
    paint(reading, 0, 4)
    painted = reading.mask.data.copy()
    reading.steps.step(0, 0.3, join=True)
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, painted)
    assert reading.threshold == 0.4


def test_erasing_all_that_a_step_added_is_not_taken_for_undo():
    image = frame()
    reading = read(image)
    before = reading.mask.data.copy()
    move(reading, 0.45)
    added = np.nonzero(reading.mask.data != before)
    reading.mask.data_setitem(added, 0)
    reading.mask.refresh()
    assert reading.threshold == 0.45
    reading.mask.undo()
    assert reading.threshold == 0.45
    reading.mask.undo()
    assert reading.threshold == 0.5
    np.testing.assert_array_equal(reading.mask.data, before)


def test_cine_threshold_spares_corrected_frames():
    image = cine()
    reading = read(image)
    paint(reading, 3, 4)
    kept = reading.mask.data[3].copy()
    move(reading, 0.2, shown=1)
    for i in range(5):
        reading.steps.bring_up_to_date(i)
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(reading.mask.data[i], expected(image[i], 0.2))
    np.testing.assert_array_equal(reading.mask.data[3], kept)
    # One undo takes the whole cine back, the stroke stays.
    reading.mask.undo()
    assert reading.threshold == 0.5
    for i in range(5):
        reading.steps.bring_up_to_date(i)
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(reading.mask.data[i], expected(image[i]))
    np.testing.assert_array_equal(reading.mask.data[3], kept)
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, expected(image))


def test_cine_threshold_can_be_undone_where_the_shown_frame_is_empty():
    image = cine()
    image[0] = 255  # no artery at any threshold
    reading = read(image)
    move(reading, 0.2, shown=0)
    for i in range(5):
        reading.steps.bring_up_to_date(i)
    np.testing.assert_array_equal(reading.mask.data, expected(image, 0.2))
    reading.mask.undo()
    for i in range(5):
        reading.steps.bring_up_to_date(i)
    assert reading.threshold == 0.5
    np.testing.assert_array_equal(reading.mask.data, expected(image))


def test_undo_restores_the_painted_frame_alone():
    image = cine(8)
    reading = Reading(Image(image))
    mask = reading.new_mask_layer()
    reading.set_prediction(3, 255 - image[3], SOURCE, 3)
    paint(reading, 3, 4)
    reading.set_prediction(7, 255 - image[7], SOURCE, 3)
    paint(reading, 3, 9)
    mask.undo()
    mask.undo()
    np.testing.assert_array_equal(mask.data[3], expected(image[3]))
    np.testing.assert_array_equal(mask.data[7], expected(image[7]))
    mask.undo()
    np.testing.assert_array_equal(mask.data[7], expected(image[7]))


def test_a_stroke_undone_before_the_prediction_does_not_keep_the_frame():
    image = cine()
    reading = Reading(Image(image))
    mask = reading.new_mask_layer()
    paint(reading, 2, 4)
    mask.undo()
    assert reading.set_prediction(2, 255 - image[2], SOURCE, 2)
    np.testing.assert_array_equal(mask.data[2], expected(image[2]))
    # The stroke can no longer be redone into the middle of the prediction.
    mask.redo()
    np.testing.assert_array_equal(mask.data[2], expected(image[2]))


def test_a_frame_painted_before_its_prediction_is_kept():
    image = cine()
    reading = Reading(Image(image))
    mask = reading.new_mask_layer()
    paint(reading, 2, 4)
    painted = mask.data.copy()
    assert not reading.set_prediction(2, 255 - image[2], SOURCE, 2)
    np.testing.assert_array_equal(mask.data, painted)


def test_resetting_a_frame_can_be_undone():
    image = cine()
    reading = read(image)
    paint(reading, 2, 4)
    painted = reading.mask.data.copy()
    reading.steps.reset(2)
    np.testing.assert_array_equal(reading.mask.data, expected(image))
    assert not reading.is_corrected(2)
    reading.mask.undo()
    np.testing.assert_array_equal(reading.mask.data, painted)
    assert reading.is_corrected(2)


def test_a_filled_frame_under_a_held_slider_is_not_lost():
    image = frame()
    reading = Reading(Image(image))
    reading.new_mask_layer()
    reading.steps.begin(0)
    reading.steps.preview(0.7)
    reading.set_prediction(0, 255 - image, SOURCE, 0)
    reading.steps.preview(0.6)
    reading.steps.commit()
    np.testing.assert_array_equal(reading.mask.data, expected(image, 0.6))


def test_second_prediction_replaces_what_nobody_corrected():
    image = cine()
    reading = read(image)
    paint(reading, 2, 4)
    move(reading, 0.4, shown=1)
    kept = reading.mask.data[2].copy()
    reading.start_over()
    for i in range(5):
        reading.set_prediction(i, image[i], SOURCE, 0)
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(
            reading.mask.data[i], expected(255 - image[i], 0.4)
        )
    np.testing.assert_array_equal(reading.mask.data[2], kept)


def test_unsaved_corrections_are_known_exactly():
    reading = read(cine())
    assert reading.corrections.unsaved() == []
    paint(reading, 2, 4)
    assert reading.corrections.unsaved() == [2]
    reading.mask.undo()
    assert reading.corrections.unsaved() == []
    reading.mask.redo()
    prints = fingerprints(reading.snapshot())
    reading.corrections.note_export(prints, reading.threshold)
    assert reading.corrections.unsaved() == []
    paint(reading, 4, 4)
    assert reading.corrections.unsaved() == [4]


def test_another_array_in_the_mask_counts_as_corrected():
    reading = read(cine())
    reading.mask.data = np.zeros_like(reading.mask.data)
    reading.on_data_replaced()
    move(reading, 0.2, shown=0)
    reading.steps.bring_up_to_date(3)
    assert not reading.mask.data[3].any()


def test_a_mask_changed_behind_the_back_is_left_alone():
    reading = read(cine())
    reading.mask.data[3] = 0
    move(reading, 0.2, shown=0)
    assert not reading.steps.bring_up_to_date(3)
    assert not reading.mask.data[3].any()


def test_labels_beyond_one_are_artery():
    image = frame()
    reading = read(image)
    reading.mask.data_setitem((np.array([0]), np.array([0])), 3)
    mask = reading.snapshot()
    assert mask.dtype == bool
    assert mask[0, 0]


def test_a_mask_of_another_size_is_not_used():
    reading = read(frame())
    reading.mask.data = np.zeros((5, 5), np.uint8)
    assert not reading.usable_mask
    assert isinstance(reading.mask, Labels)
