"""The vessel tools on a ViewerModel: one undo step each, and nothing done unasked."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.shortcuts import default_shortcuts

from napari_cmunet.gui.images.layers import METADATA, SEEN_BEFORE
from napari_cmunet.gui.shortcuts import MASK_KEYS, PROJECT_KEYS
from napari_cmunet.gui.vessel_tools.frame_state import review_record
from napari_cmunet.gui.vessel_tools.preview import ADDED, PLACE, REMOVED, UNCERTAIN
from napari_cmunet.gui.vessel_tools.section import NEXT_PLACE, SKIP_PLACE
from napari_cmunet.vessels.tools import ADD, REMOVE, TOOLS
from tests.gui.vessel_tools.bench import Bench, angiogram, one_step


@pytest.fixture
def bench(qtbot, viewer, panel, settled):
    viewer.add_image(angiogram("faint"), name="a")
    settled(panel.controller)
    made = Bench(qtbot, viewer, panel)
    yield made
    qtbot.waitUntil(lambda: not made.tools.cache.running)
    panel.vessels.close_tools()


def test_remove_takes_the_branch_under_the_cursor(bench):
    bench.take(REMOVE)
    assert "remove this branch" in bench.hover(95, 70)
    change = one_step(bench, lambda: bench.click(95, 70))
    assert change[95, 70] == -1
    assert not change[64].any()


def test_trace_adds_the_vessel_between_two_clicks(bench):
    assert not bench.frame[30, 99]
    bench.take(ADD)
    bench.click(22, 103, shift=True)
    assert bench.mask.mode == "pan_zoom"
    assert "add this vessel" in bench.hover(60, 86)
    change = one_step(bench, lambda: bench.click(60, 86))
    rows, _ = np.nonzero(change == 1)
    assert rows.min() <= 24
    assert rows.max() >= 55
    assert (change >= 0).all()


def test_keys_change_the_width_before_the_second_click(bench):
    bench.take(ADD)
    widths = []
    for key in ("", "]", "["):
        bench.click(22, 103, shift=True)
        bench.hover(60, 86)
        keys = {str(k): function for k, function in bench.mask.keymap.items()}
        for _ in range(5 if key else 0):
            keys[key](bench.mask)
        shown = np.asarray(bench.tools.preview.layer.data) == ADDED
        widths.append(int(shown.sum()))
        bench.tools._on_escape(bench.mask)
    assert widths[2] < 0.85 * widths[0] < 0.7 * widths[1]
    bench.tools.deactivate()
    assert not {"[", "]"} & {str(key) for key in bench.mask.keymap}


def test_one_click_adds_a_branch_that_the_model_was_not_sure_of(bench):
    bench.take(ADD)
    assert "add this branch" in bench.hover(40, 95)
    change = one_step(bench, lambda: bench.click(40, 95))
    assert change[40, 95] == 1
    assert (change >= 0).all()


def test_what_hangs_on_nothing_goes_whole_and_is_remembered(bench):
    image_state = bench.panel.controller.active
    bench.take(REMOVE)
    change = one_step(bench, lambda: bench.click(14, 30))
    assert (change[14, 10:68] == -1).all()
    background = review_record(image_state).background(0, bench.frame)
    assert background[14, 30]
    assert review_record(image_state).reviewed(0, bench.frame)[14, 30]
    bench.mask.undo()
    assert not review_record(image_state).background(0, bench.frame)[14, 30]


def test_bridge_closes_a_gap(bench):
    rows, columns = np.mgrid[56:73, 29:33]
    bench.mask.data_setitem((rows.ravel(), columns.ravel()), 0)
    bench.take(ADD)
    assert "close this gap" in bench.hover(64, 31)
    change = one_step(bench, lambda: bench.click(64, 31))
    assert (change[64, 29:33] == 1).all()


def test_each_tool_marks_what_it_can_do_something_about(bench):
    marked = {}
    for tool in (ADD, REMOVE):
        bench.take(tool)
        bench.hover(5, 5)
        marked[tool] = np.asarray(bench.tools.preview.layer.data) == UNCERTAIN
    mask = bench.frame > 0
    added = marked[ADD].reshape(-1, *mask.shape).any(axis=0)
    removed = marked[REMOVE].reshape(-1, *mask.shape).any(axis=0)
    assert added.any()
    assert not (added & mask).any()
    assert not (removed & ~mask).any()


def test_a_click_that_comes_too_soon_is_done_once_the_frame_is_prepared(bench):
    bench.take(REMOVE)
    bench.hover(95, 70)
    bench.tools.cache.clear()
    before = bench.frame.copy()
    bench.tools.click()
    assert (bench.frame == before).all()
    bench.settle()
    bench.qtbot.waitUntil(lambda: (bench.frame != before).any())
    assert bench.frame[95, 70] == 0


def test_a_drawn_shape_takes_the_tool_out_of_hand(bench, panel):
    bench.take(ADD)
    panel.cine.pixel_size.start.click()
    bench.qtbot.waitUntil(lambda: bench.tools.tool is None)
    assert bench.tools.preview.layer not in bench.viewer.layers


def test_hovering_changes_nothing_and_a_drag_only_moves_the_image(bench):
    before = bench.frame.copy()
    for tool in TOOLS:
        bench.take(tool)
        bench.hover(95, 70)
        bench.click(95, 70, drag=40)
    assert (bench.frame == before).all()


def test_the_preview_shows_what_a_click_would_do(bench):
    bench.take(REMOVE)
    bench.hover(95, 70)
    shown = bench.tools.preview.layer
    assert shown.data[95, 70] == REMOVED
    assert shown.data[64, 20] not in (ADDED, REMOVED)
    assert bench.viewer.layers.selection.active is bench.mask
    bench.tools.deactivate()
    assert shown not in bench.viewer.layers


def test_taking_up_the_brush_puts_the_tool_down(bench):
    bench.take(ADD)
    bench.mask.mode = "paint"
    assert bench.tools.tool is None
    assert bench.tools._on_press not in bench.viewer.mouse_drag_callbacks
    bench.take(REMOVE)
    bench.panel.tools.picked.emit("pan_zoom")
    assert bench.tools.tool is None
    assert bench.mask.mode == "pan_zoom"


def test_the_preview_is_never_taken_for_an_image_or_a_mask(bench):
    bench.take(REMOVE)
    layer = bench.tools.preview.layer
    assert layer.metadata[METADATA]["role"] == "preview"
    assert not layer.editable
    assert len(bench.panel.controller.image_states) == 1


def test_other_label_values_stay_and_the_selected_one_is_drawn(bench):
    bench.mask.data_setitem(np.nonzero(bench.frame[:, :20]), 3)
    bench.mask.selected_label = 2
    bench.take(ADD)
    bench.click(22, 103, shift=True)
    bench.click(60, 86)
    assert 2 in bench.frame
    assert 3 in bench.frame


def places(bench):
    """Confirm one place of the guided review after the other."""
    for _ in range(30):
        bench.review.confirm()
        bench.settle()
        if bench.review.place is None:
            break
        yield bench.review.place


def test_the_review_offers_a_place_once_and_ends(bench):
    seen = [place.middle for place in places(bench)]
    assert bench.review.place is None
    assert len(set(seen)) == len(seen)
    assert "No uncertain place" in bench.review.text
    reviewed = review_record(bench.panel.controller.active).reviewed(0, bench.frame)
    for row, column in seen:
        assert reviewed[int(row), int(column)]


def test_the_review_begins_with_the_most_probable_error_and_counts(bench):
    probabilities, texts = [], []
    for place in places(bench):
        probabilities.append(place.error_probability)
        texts.append(bench.review.text)
    assert probabilities == sorted(probabilities, reverse=True)
    assert min(probabilities) >= 0.5
    assert all("worth a look" in text for text in texts)
    for left, text in enumerate(reversed(texts[:-1]), start=1):
        assert f" {left} more place" in text
    assert "Enough" in bench.review.text


def test_own_corrections_are_not_asked_about(bench):
    bench.take(ADD)
    bench.click(22, 103, shift=True)
    bench.click(60, 86)
    for _ in range(30):
        bench.review.skip()
        bench.settle()
        if bench.review.place is None:
            break
        assert bench.review.place.distance((40.0, 95.0)) > 4


def test_on_a_cine_only_the_shown_frame_is_changed(qtbot, viewer, panel, settled):
    viewer.add_image(np.stack([angiogram("faint")] * 3), name="c", scale=(1, 0.5, 0.5))
    settled(panel.controller)
    viewer.dims.set_point(0, 1)
    bench = Bench(qtbot, viewer, panel)
    bench.at = lambda row, column: (1, row * 0.5, column * 0.5)
    bench.take(REMOVE)
    others = bench.mask.data[[0, 2]].copy()
    change = one_step(bench, lambda: bench.click(95, 70))
    assert change[95, 70] == -1
    assert (bench.mask.data[[0, 2]] == others).all()
    assert bench.tools.preview.layer.translate[0] == 1
    panel.vessels.close_tools()


def test_the_marks_of_another_frame_go_with_it(qtbot, viewer, panel, settled):
    viewer.add_image(np.stack([angiogram("faint"), angiogram("faint")[::-1]]), name="c")
    settled(panel.controller)
    viewer.dims.set_point(0, 0)
    bench = Bench(qtbot, viewer, panel)
    bench.at = lambda row, column: (0, row, column)
    bench.take(ADD)
    bench.hover(5, 5)
    first = np.asarray(bench.tools.preview.layer.data).copy()
    assert (first == UNCERTAIN).any()
    viewer.dims.set_point(0, 1)  # and the mouse rests
    qtbot.waitUntil(
        lambda: (
            bench.tools.preview.layer.translate[0] == 1
            and (np.asarray(bench.tools.preview.layer.data) == UNCERTAIN).any()
        )
    )
    assert (np.asarray(bench.tools.preview.layer.data) != first).any()
    panel.vessels.close_tools()


def test_keys_are_free_and_given_back(bench):
    ours = [*(tool.key for tool in TOOLS), NEXT_PLACE, SKIP_PLACE]
    assert len(set(ours)) == len(ours)
    assert not set(ours) & {*MASK_KEYS, *PROJECT_KEYS}
    elsewhere = ("points", "shape", "vertex", "add_", "direct", "select", "plane")
    for name, keys in default_shortcuts.items():
        # Points, shapes and volumes have letters of their own, on their layers alone.
        if any(word in name for word in elsewhere):
            continue
        assert not {str(key) for key in keys} & set(ours), name
    bound = {str(key) for key in bench.viewer.keymap}
    assert {"A", "S", "Q"} <= bound
    bench.panel.stop()
    assert not {"A", "S", "Q"} & {str(key) for key in bench.viewer.keymap}


def test_a_panel_that_is_closed_with_a_tool_in_hand_shows_nothing_more(bench):
    bench.take(ADD)
    bench.panel.stop()
    assert bench.tools.tool is None
    assert not bench.panel._refresh_soon.isActive()


def test_the_mark_of_a_place_goes_with_the_review(bench):
    bench.review.confirm()
    bench.settle()
    assert bench.review.place is not None
    mark = bench.tools.preview.layer
    assert mark in bench.viewer.layers
    bench.review.stop()
    assert mark not in bench.viewer.layers


def test_without_a_mask_nothing_can_be_taken_up(qtbot, panel):
    panel.vessels.tools.activate(ADD)
    panel.vessels.review.confirm()
    assert panel.vessels.tools.tool is None
    assert not panel.vessels.row.isEnabled()


def test_the_place_stays_marked_with_a_tool_in_hand_and_after_it(bench):
    bench.review.confirm()
    bench.settle()
    assert bench.review.place is not None

    def marked() -> np.ndarray:
        return bench.tools.preview.layer.data == PLACE

    place = marked()
    assert place.any()
    for tool in TOOLS:
        bench.take(tool)
        bench.hover(2, 2)
        assert (marked() == place).all()
    bench.tools.deactivate()
    assert (marked() == place).all()
    bench.review.stop()
    assert bench.tools.preview.layer is None


@pytest.fixture
def cine_bench(qtbot, viewer, panel, settled):
    viewer.add_image(np.stack([angiogram("faint"), angiogram("faint")[::-1]]), name="c")
    settled(panel.controller)
    viewer.dims.set_point(0, 0)
    made = Bench(qtbot, viewer, panel)
    made.settle()
    yield made
    panel.vessels.close_tools()


def test_nothing_of_the_review_is_left_in_another_frame(qtbot, cine_bench):
    bench = cine_bench
    bench.review.confirm()
    assert bench.review.place is not None
    for _ in range(30):
        bench.review.confirm()
        if bench.review.place is None:
            break
    assert "No uncertain place" in bench.review.text
    bench.viewer.dims.set_point(0, 1)
    bench.panel.refresh()
    assert bench.review.text == ""
    assert bench.tools.preview.layer is None


def test_a_place_asked_for_is_not_flown_to_in_another_frame(cine_bench):
    bench = cine_bench
    bench.review.confirm()
    assert bench.tools.preview.layer is not None
    rows, columns = np.nonzero(bench.frame[:, :20])
    where = (np.zeros_like(rows), rows, columns)
    bench.mask.data_setitem(where, 0)  # so the frame is prepared anew
    bench.panel.refresh()
    bench.review.confirm()
    assert bench.review.text.startswith("Looking")
    assert bench.tools.preview.layer is None
    bench.viewer.dims.set_point(0, 1)
    camera = bench.viewer.scene.camera.center
    bench.settle()
    assert bench.viewer.scene.camera.center == camera
    assert bench.review.place is None
    assert bench.review.text == ""
    assert bench.tools.preview.layer is None


@pytest.fixture
def wire_bench(qtbot, viewer, panel, settled):
    """A bench on a frame whose wire at the top was there before the contrast."""
    image = angiogram()
    viewer.add_image(image, name="a")
    settled(panel.controller)
    image_state = panel.controller.active
    wire = np.zeros(image.shape, bool)
    wire[11:18, 5:74] = True
    found = np.where(wire, 40, 255 - image).astype(np.uint8)
    source = image_state.sources[0]
    image_state.seen_before[0] = wire
    assert image_state.set_prediction(0, found, source, 0)
    made = Bench(qtbot, viewer, panel)
    yield made
    qtbot.waitUntil(lambda: not made.tools.cache.running)
    panel.vessels.close_tools()


def test_what_was_there_before_is_outlined_and_not_in_the_mask(wire_bench):
    image_state = wire_bench.panel.controller.active
    shown = np.asarray(image_state.prediction.data)
    assert (shown[12:17, 8:70] == SEEN_BEFORE).all()
    assert shown[64, 30] == 1
    assert not wire_bench.frame[12:17, :90].any()


def test_one_click_takes_it_for_artery_after_all(wire_bench):
    wire_bench.take(ADD)
    assert "though it was there before" in wire_bench.hover(14, 40)
    change = one_step(wire_bench, lambda: wire_bench.click(14, 40))
    assert (change[14, 12:66] == 1).all()
    assert (change >= 0).all()
    assert not change[20:].any()


def test_what_was_there_before_is_no_uncertain_place(wire_bench):
    wire_bench.take(REMOVE)
    context = wire_bench.tools.context()
    assert all(s.distance((14, 40)) > 6 for s in context.uncertain)


def test_remove_takes_the_whole_of_what_was_there_before(wire_bench):
    image_state = wire_bench.panel.controller.active
    drawn = wire_bench.frame != 0
    drawn[12:17, 8:70] = True
    drawn[14:66, 38:41] = True  # so that it hangs on the tree
    image_state.replace(0, drawn)
    wire_bench.take(REMOVE)
    assert "remove the whole run" in wire_bench.hover(14, 20)
    change = one_step(wire_bench, lambda: wire_bench.click(14, 20))
    assert (change[14, 12:34] == -1).all()
    assert (change[14, 46:66] == -1).all()
    assert (wire_bench.frame[64, 20:110] == 1).all()
