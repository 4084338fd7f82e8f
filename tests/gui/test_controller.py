"""Opening, predicting, switching and losing images and layers."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cmunet.errors import ModelError
from napari_cmunet.gui.controller import Controller
from napari_cmunet.gui.images.layers import SEEN_BEFORE
from napari_cmunet.gui.panel_state import describe
from tests.gui.conftest import cine, expected, frame, pause


def paint(mask, where=(4, 4), value: int = 1) -> None:
    mask.brush_size = 3
    with mask.block_history():
        mask.paint(where, value)


def test_opening_an_image_segments_it(viewer, controller, opened, model):
    image, prediction, mask = viewer.layers
    image_state = controller.active
    assert (image_state.image, image_state.prediction, image_state.mask) == (
        image,
        prediction,
        mask,
    )
    np.testing.assert_array_equal(mask.data, expected(opened))
    np.testing.assert_array_equal(prediction.data, expected(opened))
    assert mask.data.dtype == np.uint8
    assert viewer.layers.selection.active is mask
    assert mask.mode == "pan_zoom"
    assert mask.selected_label == 1
    assert not prediction.editable


def test_the_network_runs_off_the_gui_thread(opened, model):
    assert model.threads
    assert threading.get_ident() not in model.threads


def test_images_already_there_are_segmented(viewer, make_controller, settled):
    image = frame()
    viewer.add_image(image)
    controller = make_controller()
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))


def test_switched_off_it_waits_for_the_button(viewer, make_controller, settled):
    controller = make_controller(pre_segment=False)
    image = frame()
    viewer.add_image(image)
    settled(controller)
    assert len(viewer.layers) == 1
    controller.segment()
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))


def test_rgb_with_equal_channels(viewer, controller, settled):
    image = frame()
    viewer.add_image(np.stack([image] * 3, -1), rgb=True)
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))


def test_rgb_cine_and_multiscale(viewer, controller, settled):
    image = cine()
    viewer.add_image(np.stack([image] * 3, -1), rgb=True)
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))
    one = frame(size=64)
    viewer.add_image([one, one[::2, ::2]], multiscale=True)
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(one))


def test_what_is_no_angiogram_is_said(viewer, controller, settled):
    viewer.add_image(np.zeros((2, 3, 16, 16), np.uint8))
    settled(controller)
    assert len(viewer.layers) == 1
    assert "4 dimensions" in describe(controller).status
    assert not describe(controller).can_segment


def test_shown_frame_first_then_outward(viewer, controller, settled, model):
    model.open.clear()
    image = cine(7)
    viewer.add_image(image)
    viewer.dims.set_point(0, 4)
    model.open.set()
    settled(controller)
    order = [
        next(i for i in range(7) if np.array_equal(s, image[i])) for s in model.seen
    ]
    assert order == [4, 5, 3, 6, 2, 1, 0]
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))


def test_scrubbing_puts_the_shown_frame_first(
    qtbot, viewer, controller, settled, model
):
    model.open.clear()
    image = cine(9)
    viewer.add_image(image)
    viewer.dims.set_point(0, 0)
    model.let_through()
    qtbot.waitUntil(lambda: controller.queue.progress[0] == 1)
    pause()  # the worker has taken the next frame by now
    viewer.dims.set_point(0, 8)
    pause()
    model.open.set()
    settled(controller)
    assert np.array_equal(model.seen[2], image[8])


def test_fills_only_where_nobody_has_painted(qtbot, viewer, controller, settled, model):
    model.open.clear()
    image = cine(5)
    viewer.add_image(image)
    viewer.dims.set_point(0, 0)
    model.let_through()
    qtbot.waitUntil(lambda: bool(controller.active and controller.active.usable_mask))
    mask = controller.active.mask
    paint(mask, (3, 16, 16))
    paint(mask, (0, 4, 4), 0)
    mine = mask.data[3].copy()
    model.open.set()
    settled(controller)
    np.testing.assert_array_equal(mask.data[3], mine)
    for i in (1, 2, 4):
        np.testing.assert_array_equal(mask.data[i], expected(image[i]))
    np.testing.assert_array_equal(controller.active.prediction.data, expected(image))
    mask.undo()
    np.testing.assert_array_equal(mask.data[0], expected(image[0]))
    mask.undo()
    assert not mask.data[3].any()
    mask.undo()
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(mask.data[i], expected(image[i]))


def test_cancel_answers_at_once_and_can_go_on(
    qtbot, viewer, controller, settled, model
):
    model.open.clear()
    image = cine(5)
    viewer.add_image(image)
    model.let_through(2)
    qtbot.waitUntil(lambda: controller.queue.progress[0] == 2)
    controller.cancel()
    state = describe(controller)
    assert not state.busy
    assert state.status.startswith("Cancelled.")
    assert state.segment_text == "&Segment the other 3 frames"
    model.open.set()
    qtbot.waitUntil(lambda: controller.queue.wait(0))
    assert int(controller.active.predicted.sum()) == 2
    controller.segment()
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))


def test_the_model_is_loaded_once(viewer, controller, settled, model):
    for i in range(3):
        viewer.add_image(frame(i))
        settled(controller)
    assert len(model.loaded) == 1


def test_another_model_replaces_the_prediction(
    viewer, controller, opened, settled, model
):
    model.offset = 60
    controller.set_choice(model="other")
    controller.segment()
    settled(controller)
    assert [c.model for c in model.loaded] == ["cmunet-artery", "other"]
    expected_now = np.clip(255 - opened.astype(int) + 60, 0, 255) >= 128
    np.testing.assert_array_equal(controller.active.mask.data, expected_now)
    assert controller.active.sources[0].model == "other"


def test_several_images_have_each_their_own(viewer, controller, settled):
    images = [frame(i) for i in range(3)]
    layers = [viewer.add_image(image, name="same") for image in images]
    settled(controller)
    assert len(viewer.layers) == 9
    for image, layer in zip(images, layers, strict=True):
        (image_state,) = [r for r in controller.image_states if r.image is layer]
        np.testing.assert_array_equal(image_state.mask.data, expected(image))
        position = viewer.layers.index(layer)
        assert viewer.layers[position + 1] is image_state.prediction
        assert viewer.layers[position + 2] is image_state.mask
    assert controller.active.image is layers[2]
    assert viewer.layers.selection.active is controller.active.mask


def test_a_prediction_in_the_background_leaves_the_selection(
    qtbot, viewer, controller, settled, model
):
    model.open.clear()
    first = viewer.add_image(frame(0))
    second = viewer.add_image(frame(1))
    qtbot.waitUntil(lambda: controller.queue.current is not None)
    model.let_through()
    qtbot.waitUntil(lambda: controller.active.usable_mask)
    mask = controller.active.mask
    assert controller.active.image is second
    model.open.set()
    settled(controller)
    assert viewer.layers.selection.active is mask
    assert mask.mode == "pan_zoom"
    (other,) = [r for r in controller.image_states if r.image is first]
    assert other.mask is not None


def test_choosing_an_image_shows_it_alone(viewer, controller, settled):
    viewer.add_image(frame(0))
    viewer.add_image(frame(1))
    settled(controller)
    first, second = controller.image_states
    controller.show_image(first)
    assert all(layer.visible for layer in first.layers())
    assert not any(layer.visible for layer in second.layers())
    assert viewer.layers.selection.active is first.mask
    controller.show_image(second)
    assert all(layer.visible for layer in second.layers())
    assert not any(layer.visible for layer in first.layers())


@pytest.mark.slow
def test_selecting_a_layer_switches_the_image(viewer, controller, settled):
    viewer.add_image(frame(0))
    viewer.add_image(frame(1))
    settled(controller)
    first, second = controller.image_states
    viewer.layers.selection.active = first.prediction
    assert controller.active is first
    viewer.layers.selection.active = second.image
    assert controller.active is second


@pytest.mark.slow
def test_every_image_begins_at_the_threshold_of_its_model(
    viewer, model, controller, settled
):
    model.threshold = 0.7
    for seed in (1, 2):  # the second finds the model warm
        viewer.add_image(frame(seed))
        settled(controller)

    for seed, image_state in zip((1, 2), controller.image_states, strict=True):
        assert image_state.threshold == 0.7
        np.testing.assert_array_equal(image_state.mask.data, expected(frame(seed), 0.7))


def test_renaming_and_reordering_change_nothing(viewer, controller, opened):
    image_state = controller.active
    for layer in viewer.layers:
        layer.name = "x"
    viewer.layers.reverse()
    controller.editor.move_threshold(0.3)
    np.testing.assert_array_equal(image_state.mask.data, expected(opened, 0.3))
    assert describe(controller).images == (image_state.image.name,)


def test_a_deleted_mask_can_be_made_again(viewer, controller, opened):
    image_state = controller.active
    viewer.layers.remove(image_state.mask)
    state = describe(controller)
    assert state.mask_missing
    assert not state.can_correct
    assert not state.can_cut
    controller.remake_mask()
    np.testing.assert_array_equal(image_state.mask.data, expected(opened))
    assert viewer.layers.selection.active is image_state.mask
    assert not describe(controller).mask_missing


def test_a_deleted_prediction_comes_back_when_asked(viewer, controller, opened):
    image_state = controller.active
    viewer.layers.remove(image_state.prediction)
    state = describe(controller)
    assert not state.prediction_visible
    assert state.can_cut
    controller.editor.set_prediction_visible(True)
    assert image_state.prediction in viewer.layers
    np.testing.assert_array_equal(image_state.prediction.data, expected(opened))


def test_a_deleted_image_leaves_the_mask_in_work(viewer, controller, opened):
    image_state = controller.active
    viewer.layers.remove(image_state.image)
    assert controller.active is image_state
    assert "image closed" in describe(controller).images[0]
    assert describe(controller).masks
    controller.editor.move_threshold(0.3)
    np.testing.assert_array_equal(image_state.mask.data, expected(opened, 0.3))
    viewer.layers.remove(image_state.mask)
    assert controller.active is None


@pytest.mark.parametrize("which", ["image", "prediction", "mask", "all"])
def test_layers_deleted_in_the_middle(qtbot, viewer, controller, settled, model, which):
    model.open.clear()
    image = cine(5)
    viewer.add_image(image)
    model.let_through(2)
    qtbot.waitUntil(lambda: controller.queue.progress[0] == 2)
    image_state = controller.active
    qtbot.waitUntil(lambda: image_state.prediction is not None)
    if which == "all":
        viewer.layers.clear()
    else:
        viewer.layers.remove(getattr(image_state, which))
    model.open.set()
    settled(controller)
    describe(controller)
    if which == "all":
        assert controller.active is None
        assert len(viewer.layers) == 0
    elif which == "image":
        assert int(image_state.predicted.sum()) == 2
    else:
        # What was deleted on purpose does not come back by itself.
        assert getattr(image_state, which) is None
        assert image_state.predicted.all()


def test_an_image_removed_before_it_is_looked_at(viewer, controller, settled):
    layer = viewer.add_image(frame())
    viewer.layers.remove(layer)
    settled(controller)
    assert controller.image_states == []


def test_another_array_in_the_image(viewer, controller, opened, settled):
    image_state = controller.active
    new = frame(9, size=48)
    image_state.image.data = new
    assert "has changed" in describe(controller).status
    controller.segment()
    settled(controller)
    np.testing.assert_array_equal(image_state.mask.data, expected(new))


def test_detaching_in_the_middle_and_coming_back(
    qtbot, viewer, make_controller, settled, model
):
    model.open.clear()
    controller = make_controller()
    image = cine(5)
    viewer.add_image(image)
    model.let_through(2)
    qtbot.waitUntil(lambda: controller.queue.progress[0] == 2)
    mask = controller.active.mask
    paint(mask, (2, 16, 16))
    mine = mask.data[2].copy()
    controller.disconnect()
    model.open.set()
    assert controller.queue.wait()
    again = make_controller()
    settled(again)
    assert again.active.mask is mask
    assert len(viewer.layers) == 3
    again.segment()
    settled(again)
    if 2 not in (0, 1):
        np.testing.assert_array_equal(mask.data[2], mine)
    assert again.active.predicted.all()


def test_a_known_error_is_said_and_nothing_is_stuck(viewer, controller, settled, model):
    model.load_error = ModelError("There is no model named 'x'.")
    image = frame()
    viewer.add_image(image)
    settled(controller)
    state = describe(controller)
    assert state.status == "There is no model named 'x'."
    assert state.failed
    assert not state.busy
    assert state.can_segment
    model.load_error = None
    controller.segment()
    settled(controller)
    np.testing.assert_array_equal(controller.active.mask.data, expected(image))


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error"), ValueError("bad"), MemoryError()]
)
def test_unexpected_errors_reach_the_panel(viewer, controller, settled, model, error):
    model.predict_error = error
    viewer.add_image(cine())
    settled(controller)
    state = describe(controller)
    assert state.failed
    assert not state.busy
    assert state.can_segment
    assert "Traceback" not in state.status


def test_notices_are_shown_once(viewer, controller, settled, model):
    model.notices.append("The model does not fit on cuda; using the CPU.")
    viewer.add_image(frame())
    settled(controller)
    model.notices.append("Out of memory: in tiles from now on.")
    controller.segment()
    settled(controller)
    assert controller.notices == model.notices


def test_two_viewers_do_not_mix(make_controller, settled, viewer):
    other = ViewerModel()
    first, second = make_controller(), make_controller(other)
    a, b = frame(0), frame(1)
    viewer.add_image(a)
    other.add_image(b)
    settled(first)
    settled(second)
    np.testing.assert_array_equal(first.active.mask.data, expected(a))
    np.testing.assert_array_equal(second.active.mask.data, expected(b))
    assert len(viewer.layers) == len(other.layers) == 3


def test_threshold_reaches_the_hidden_frames(viewer, controller, opened_cine, settled):
    controller.editor.begin_threshold()
    for value in (0.6, 0.7, 0.3):
        controller.editor.move_threshold(value)
    controller.editor.end_threshold()
    settled(controller)
    np.testing.assert_array_equal(
        controller.active.mask.data, expected(opened_cine, 0.3)
    )
    controller.editor.undo()
    settled(controller)
    assert describe(controller).threshold == 0.5
    np.testing.assert_array_equal(controller.active.mask.data, expected(opened_cine))
    controller.editor.redo()
    settled(controller)
    assert describe(controller).threshold == 0.3
    np.testing.assert_array_equal(
        controller.active.mask.data, expected(opened_cine, 0.3)
    )


def test_the_shown_frame_follows_when_it_is_shown(viewer, controller, opened_cine):
    controller.editor.move_threshold(0.3)
    controller.editor._idle_timer.stop()
    viewer.dims.set_point(0, 3)
    np.testing.assert_array_equal(
        controller.active.mask.data[3], expected(opened_cine[3], 0.3)
    )


def test_the_slider_shows_the_frame_s_own_threshold(
    viewer, controller, opened_cine, settled
):
    viewer.dims.set_point(0, 2)
    paint(controller.active.mask, (2, 16, 16))
    viewer.dims.set_point(0, 0)
    controller.editor.move_threshold(0.3)
    settled(controller)
    assert describe(controller).threshold == 0.3
    viewer.dims.set_point(0, 2)
    assert describe(controller).threshold == 0.5
    assert describe(controller).can_reset


@pytest.mark.slow
def test_a_dead_viewer_is_let_go(model, qtbot):
    viewer = ViewerModel()
    controller = Controller(viewer, predictor_factory=model)
    controller.disconnect()
    assert controller.queue.wait()
    gone = weakref.ref(viewer)
    del viewer
    gc.collect()
    assert gone() is None
    controller.images.take_new()


def test_what_was_there_before_the_contrast_is_left_out(
    injection, controller, settled, viewer
):
    settled(controller)
    image_state = controller.active
    mask, prediction = image_state.mask.data, image_state.prediction.data
    assert not mask[:, 28:36].any()
    assert (mask[3:, 52:118, 61:65] == 1).all()
    assert (prediction[3:, 31:33, 20:110] == SEEN_BEFORE).all()
    assert not (prediction[3:, 52:118] == SEEN_BEFORE).any()
    assert not any(image_state.is_corrected(frame) for frame in range(6))
    # Predicted again, it is found again.
    controller.segment()
    settled(controller)
    assert not mask[:, 28:36].any()
    assert (image_state.prediction.data[3:, 31:33, 20:110] == SEEN_BEFORE).all()


def test_a_frame_that_was_corrected_meanwhile_stays_as_it_is(
    injection, viewer, controller, model, qtbot, settled
):
    """Its correction comes between its prediction and that of the last frame."""
    image_state = controller.active
    settled(controller)
    model.predict.open.clear()
    controller.segment()
    qtbot.waitUntil(lambda: image_state.predicted[4])
    mask = image_state.mask
    assert (mask.data[4, 31:33, 20:110] == 1).all()
    paint(mask, (4, 100, 20))
    kept = mask.data[4].copy()
    model.predict.open.set()
    settled(controller)
    np.testing.assert_array_equal(mask.data[4], kept)
    assert image_state.is_corrected(4)
    changed = (mask.data[4] != 0) != image_state.thresholded(4)
    assert changed.sum() < 20  # the stroke alone
    assert not mask.data[5, 28:36].any()


def test_an_interrupted_image_is_gone_on_with(
    injection, viewer, controller, model, qtbot, settled
):
    settled(controller)
    image_state = controller.active
    for frame_number in range(6):
        image_state.seen_before.clear(frame_number)
    image_state.set_prediction(
        4, model.predict(injection[4]), image_state.sources[4], 0
    )
    assert image_state.mask.data[4, 31:33, 20:110].any()
    controller.queue.add(image_state)
    controller.start_next()
    settled(controller)
    assert not image_state.mask.data[4, 28:36].any()
    assert 4 in image_state.seen_before


def test_a_model_that_does_not_tell_contrast_leaves_nothing_out(
    viewer, controller, model, settled
):
    model.tells_contrast = False
    frames = np.full((6, 128, 128), 215, np.uint8)
    frames[:, 30:34, 10:120] = 60
    frames[3:, 50:120, 60:66] = 40
    viewer.add_image(frames)
    settled(controller)
    assert (controller.active.mask.data[:, 31:33, 20:110] == 1).all()
