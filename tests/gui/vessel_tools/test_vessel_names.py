"""Naming vessels in the panel: clicks, undo, edits of the mask, labels."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import line

from napari_cmunet.gui.vessel_tools.names_layer import placed_names
from napari_cmunet.vessels.naming import SegmentName

TRUNK, DISTAL, SIDE = (40, 60), (120, 60), (105, 95)


def angiogram() -> np.ndarray:
    """A vessel downwards with a side branch, so dark that the fake model finds it."""
    grey = np.full((160, 160), 200, np.uint8)
    for start, end, radius in (
        ((10, 60), (80, 60), 4),
        ((80, 60), (150, 60), 3),
        ((80, 60), (120, 120), 3),
    ):
        for row, column in zip(*line(*start, *end), strict=True):
            grey[
                row - radius : row + radius + 1, column - radius : column + radius + 1
            ] = 20
    return grey


class Reader:
    """A reader who names vessels in a panel."""

    def __init__(self, qtbot, viewer, panel) -> None:
        self.qtbot, self.viewer, self.panel = qtbot, viewer, panel
        self.section = panel.measuring.names
        self.naming = self.section.naming

    def settle(self) -> None:
        self.qtbot.waitUntil(lambda: not self.naming.running)
        self.section.refresh()

    def choose(self, title: str) -> None:
        number = self.section.segment.findText(title)
        assert number >= 0
        self.section.segment.setCurrentIndex(number)
        self.section.segment.activated.emit(number)

    def click(self, point, *, shift: bool = False) -> None:
        self.naming.take((*self.viewer.dims.point[:-2], *point), shift)

    def name(self, title: str, point, *, shift: bool = False) -> None:
        self.choose(title)
        self.click(point, shift=shift)
        self.settle()

    @property
    def texts(self) -> list[str]:
        layer = self.naming.layer.layer
        return [] if layer is None else sorted(layer.text.values.tolist())


@pytest.fixture
def reader(qtbot, viewer, panel, controller, settled) -> Reader:
    viewer.add_image(angiogram(), name="a")
    settled(controller)
    return Reader(qtbot, viewer, panel)


def test_nothing_is_shown_before_a_name_is_given(reader, viewer):
    assert [layer.name for layer in viewer.layers] == ["a", "a prediction", "a mask"]
    assert reader.section.message.isHidden()
    assert not reader.section.confirm.isEnabled()


@pytest.mark.slow
def test_clicks_name_branches_and_undo_takes_names_back(reader, controller):
    state = controller.active
    before = state.mask_frame(0).copy()
    state.write(0, (np.array([5]), np.array([5])), 1)
    reader.name("6 LAD proximal", TRUNK)
    reader.name("9 D1", SIDE)
    assert reader.texts == ["6 LAD proximal", "9 D1"]
    assert reader.section.message.text() == "2 named"

    # Ctrl+Z is the mask's own undo.
    state.mask.undo()
    assert reader.texts == ["6 LAD proximal"]
    state.mask.undo()
    assert reader.texts == [] and state.mask_frame(0)[5, 5]
    state.mask.undo()
    np.testing.assert_array_equal(state.mask_frame(0), before)
    for _ in range(3):
        state.mask.redo()
    assert reader.texts == ["6 LAD proximal", "9 D1"] and state.mask_frame(0)[5, 5]
    # A naming leaves nothing to redo.
    state.mask.undo()
    reader.name("7 LAD mid", DISTAL)
    state.mask.redo()
    assert reader.texts == ["6 LAD proximal", "7 LAD mid"]


def test_clicks_in_a_row_all_count(reader):
    reader.choose("6 LAD proximal")
    reader.click(TRUNK)
    reader.choose("9 D1")
    reader.click(SIDE)
    reader.settle()
    assert reader.texts == ["6 LAD proximal", "9 D1"]


def test_shift_names_from_the_click_on(reader):
    reader.name("1 RCA proximal", TRUNK)
    reader.name("2 RCA mid", (50, 60), shift=True)
    assert reader.texts == ["1 RCA proximal", "2 RCA mid"]
    reader.name("No name", (70, 60))
    assert reader.texts == ["1 RCA proximal"]


@pytest.mark.slow
def test_names_follow_the_mask(reader, controller):
    reader.name("6 LAD proximal", TRUNK)
    reader.name("9 D1", SIDE)
    state = controller.active
    rows, columns = np.nonzero(state.mask_frame(0))
    side = columns > 66
    state.write(0, (rows[side], columns[side]), 0)
    reader.section.refresh()
    assert reader.texts == ["6 LAD proximal"]
    state.mask.undo()
    reader.section.refresh()
    assert reader.texts == ["6 LAD proximal", "9 D1"]


def test_beside_a_vessel_it_says_so(reader):
    reader.name("6 LAD proximal", (40, 120))
    assert reader.section.message.text() == "There is no branch of the mask."
    assert reader.texts == []


def test_a_doubtful_name_has_a_question_mark_until_it_is_confirmed(reader, controller):
    state = controller.active
    names = (
        SegmentName("6", ((20, 60), (60, 60)), 0.8),
        SegmentName("7", ((100, 60), (140, 60)), 0.8),
    )
    state.history.set_names(0, names)
    reader.section.refresh()
    assert reader.texts == ["6 LAD proximal ?", "7 LAD mid ?"]
    text = "2 named, 2 of them with a question mark"
    assert reader.section.message.text() == text
    reader.name("As proposed: confirm", TRUNK)
    assert reader.texts == ["6 LAD proximal", "7 LAD mid ?"]
    reader.section.confirm.click()
    assert reader.texts == ["6 LAD proximal", "7 LAD mid"]
    assert not reader.section.confirm.isEnabled()


def test_clicks_name_until_another_tool_is_taken(reader, panel, controller):
    reader.section.name.click()
    assert reader.naming.picking and reader.section.name.isChecked()
    assert controller.active.mask.cursor == "crosshair"
    panel.measuring.points.click()
    assert not reader.naming.picking and not reader.section.name.isChecked()
    assert panel.measuring.measurement.picking
    reader.section.name.click()
    assert panel.measuring.measurement.picking is None
    controller.active.mask.mode = "paint"
    assert not reader.naming.picking
    reader.section.name.click()
    panel.vessels.row.buttons["add"].click()
    assert not reader.naming.picking


def test_short_proposals_beside_a_longer_one_have_no_text():
    mask = np.ones((512, 512), bool)
    trunk = SegmentName("13", ((10, 10), (50, 10)), doubt=0.2)
    twig = SegmentName("13", ((10, 30), (15, 30)), doubt=0.7)
    own = SegmentName("13", ((10, 50), (15, 50)))
    other = SegmentName("14", ((10, 70), (15, 70)), doubt=0.7)
    shown = placed_names((trunk, twig, own, other), mask)
    assert [name.text for name in shown] == ["13", "13", "14 ?"]
    assert [name.place[1] for name in shown] == [10, 50, 70]


def crowded(doubt: float) -> tuple[SegmentName, ...]:
    """Long stretches side by side, of two segments, with twigs."""
    long = [("6", 100), ("6", 130), ("7", 160), ("7", 190)]
    names = [
        SegmentName(segment, tuple((row, column) for row in range(100, 400, 10)), doubt)
        for segment, column in long
    ]
    for row in range(110, 390, 30):
        names.append(SegmentName("6", ((row, 105), (row, 115)), doubt))
    return tuple(names)


@pytest.mark.parametrize("zoom", [0.25, 0.5, 2.0])
def test_no_name_lies_over_another(zoom):
    mask = np.ones((512, 512), bool)
    placed = placed_names(crowded(0.7), mask, zoom)
    assert {name.segment for name in placed if name.text} == {"6", "7"}
    # A confirmed name needs no more room than its proposal.
    assert len(placed_names(crowded(0.0), mask, zoom)) >= len(placed)
    boxes = []
    for (row, column), text, *_ in placed:
        half = np.array([9, 4.5 * len(text)]) / zoom  # as napari draws them
        place = np.array([row, column])
        low, high = place - half, place + half
        assert (low >= 0).all() and (high <= 512).all()
        assert all((low >= b).any() or (high <= a).any() for a, b in boxes)
        boxes.append((low, high))


def test_twigs_of_a_vessel_share_its_name_also_when_confirmed():
    mask = np.ones((512, 512), bool)
    placed = placed_names(crowded(0.0), mask)
    assert [name.text for name in placed] == ["6 LAD proximal", "6", "7 LAD mid", "7"]


def test_what_has_no_room_is_named_after_zooming_in(reader, controller, viewer, qtbot):
    names = tuple(
        SegmentName(segment, ((row, 60), (row + 12, 60)))
        for segment, row in (("5", 15), ("6", 30), ("7", 45), ("8", 60))
    )
    controller.active.history.set_names(0, names)
    viewer.scene.camera.zoom = 0.6
    reader.section.refresh()
    hidden = reader.texts.count("")
    assert hidden > 0
    assert reader.section.message.text() == f"4 named. Zoom in for {hidden} more."
    viewer.scene.camera.zoom = 8
    qtbot.waitUntil(lambda: reader.texts == ["5", "6", "7", "8"])
    assert reader.section.message.text() == "4 named"


def test_a_removed_layer_does_not_come_back_at_another_zoom(
    reader, controller, viewer, qtbot
):
    names = (SegmentName("5", ((15, 60), (27, 60))), SegmentName("6", ((30, 60),)))
    controller.active.history.set_names(0, names)
    viewer.scene.camera.zoom = 0.3
    reader.section.refresh()
    viewer.layers.remove(reader.naming.layer.layer)
    viewer.scene.camera.zoom = 8
    before = len(viewer.layers)
    qtbot.wait(300)
    assert len(viewer.layers) == before
    other = (SegmentName("7", ((15, 60), (27, 60))),)
    controller.active.history.set_names(0, other)
    reader.section.refresh()
    assert reader.texts == ["7"]
