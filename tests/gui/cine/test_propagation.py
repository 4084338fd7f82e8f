"""Propagating what was changed in one frame of a cine to the frames around it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import shift

from napari_cmunet.gui.vessel_tools.frame_state import review_record
from napari_cmunet.vessels.edits import Edit
from napari_cmunet.vessels.naming import NamedTree, SegmentName
from napari_cmunet.vessels.segments import VALUES
from napari_cmunet.vessels.tools import ADD
from napari_cmunet.vessels.tree import build_tree
from tests.gui.vessel_tools.bench import angiogram

SOURCE, COUNT = 3, 8
FRAME = angiogram("faint")


def moved(pixels: np.ndarray, frame: int) -> np.ndarray:
    return shift(pixels.astype(float), (0, frame - SOURCE), order=0) > 0.5


@pytest.fixture
def image_state(viewer, controller, settled):
    """A cine that moves by a pixel a frame; the faint vessel is added in one frame,
    and the wire removed."""
    frames = [
        shift(FRAME, (0, n - SOURCE), order=1, mode="nearest") for n in range(COUNT)
    ]
    viewer.add_image(np.stack(frames), name="c")
    settled(controller)
    made = controller.active
    wanted = (made.mask_frame(SOURCE) != 0) | (FRAME == 165)
    wanted[8:20] = False
    made.replace(SOURCE, wanted)
    viewer.dims.set_point(0, SOURCE)
    return made


@pytest.fixture
def press(panel, viewer, qtbot):
    """Press J, and wait until what it asked for is there."""
    propagation = panel.cine.propagation.propagation

    def press() -> None:
        keys = {str(key): function for key, function in viewer.keymap.items()}
        keys["J"](viewer)
        qtbot.waitUntil(
            lambda: propagation.proposal is None or propagation.proposal.ready,
            timeout=60_000,
        )

    return press


def preview(viewer):
    found = [layer for layer in viewer.layers if layer.name == "propagated changes"]
    return found[0] if found else None


@pytest.mark.slow
def test_changes_are_shown_in_each_frame_and_accepted_as_one_step_each(
    image_state, panel, press, viewer, controller
):
    row = panel.cine.propagation
    before = image_state.mask.data.copy()
    press()
    assert (image_state.mask.data == before).all()
    assert row.propose.text() == "Accept"
    assert "one frame at a time" in row.propose.toolTip()
    assert "Changes of frame 3 for frames 0 to 7" in row.message.text()
    assert preview(viewer) is None  # the corrected frame itself
    viewer.dims.set_point(0, 5)
    panel.refresh()
    assert "confidence 0.9" in row.message.text() or "1.00" in row.message.text()
    shown = preview(viewer).data[0]
    assert preview(viewer).translate[0] == 5
    assert (shown == 1).any()
    assert (shown == 2).any()
    press()
    faint, wire = FRAME == 165, FRAME[14] == 60
    for frame in range(COUNT):
        mask = image_state.mask_frame(frame) != 0
        assert mask[moved(faint, frame)].mean() > 0.8
        if frame != SOURCE:
            assert not mask[14].any()
            assert wire.any()
            # What the model found and nobody changed stays.
            assert mask[64, 20:100].all()
    controller.editor.undo()
    restored = [
        (image_state.mask_frame(n) == before[n]).all()
        for n in range(COUNT)
        if n != SOURCE
    ]
    assert sum(restored) == 1


@pytest.mark.slow
def test_corrected_frames_are_not_touched_nor_passed(image_state, press):
    image_state.replace(5, moved(FRAME == 60, 5) & False)
    kept = image_state.mask_frame(5).copy()
    later = image_state.mask_frame(6).copy()
    press()
    press()
    assert (image_state.mask_frame(5) == kept).all()
    assert (image_state.mask_frame(6) == later).all()
    assert image_state.is_corrected(4)
    assert image_state.is_corrected(1)


@pytest.mark.slow
def test_what_was_marked_as_no_artery_is_marked_in_the_other_frames(image_state, press):
    rows, columns = np.nonzero(FRAME[:20] == 60)
    record = review_record(image_state)
    record.add_background(SOURCE, Edit(rows, columns, np.zeros(len(rows), np.uint8)))
    press()
    press()
    assert record.background(4, image_state.mask_frame(4))[14, 30]


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.slow
def test_names_go_along(image_state, panel, press, viewer, corrected):
    if not corrected:  # names alone are propagated, too
        image_state.undo()
    names = (SegmentName("7", tuple((64, column) for column in range(40, 100, 10))),)
    image_state.history.set_names(SOURCE, names)
    own = (SegmentName("1", ((64, 50),)),)
    image_state.history.set_names(5, own)
    before = image_state.mask.data.copy()
    press()
    press()
    assert viewer.dims.current_step[0] == SOURCE
    assert image_state.names[5] == own
    for frame in (1, 2, 4, 6):
        mask = image_state.mask_frame(frame) != 0
        (found,) = image_state.names[frame]
        assert 0 < found.doubt < 0.4  # to be confirmed
        away = np.subtract(found.points, names[0].points) - (0, frame - SOURCE)
        assert abs(away).max() <= 1
        values = NamedTree(build_tree(mask), image_state.names[frame]).values()
        assert values[64, 60] == VALUES["7"]
    assert np.array_equal(before, image_state.mask.data) != corrected
    # One step of each frame, with its names.
    named = [n for n in range(COUNT) if image_state.names.get(n)]
    image_state.undo()
    left = [n for n in range(COUNT) if image_state.names.get(n)]
    assert len(named) - len(left) == 1
    if not corrected:  # what was propagated gives way to what is named afterwards
        image_state.history.set_names(SOURCE, (*names, *own))
        viewer.dims.set_point(0, SOURCE)
        press()
        press()
        assert [name.segment for name in image_state.names[4]] == ["7", "1"]


@pytest.mark.slow
def test_from_another_frame_the_nearest_corrected_one_is_the_source(
    image_state, panel, press, viewer
):
    # What a model has proposed there is nothing that the reader did.
    image_state.history.set_names(6, (SegmentName("7", ((64, 50),), doubt=0.2),))
    viewer.dims.set_point(0, 6)
    press()
    assert panel.cine.propagation.propagation.proposal.source == SOURCE
    panel.refresh()
    assert preview(viewer).translate[0] == 6


@pytest.mark.parametrize("way", ["escape", "button"])
@pytest.mark.slow
def test_a_proposal_is_dismissed(image_state, panel, press, viewer, way):
    before = image_state.mask.data.copy()
    press()
    viewer.dims.set_point(0, 4)
    panel.refresh()
    if way == "escape":
        keys = {str(key): function for key, function in image_state.mask.keymap.items()}
        keys["Escape"](image_state.mask)
    else:
        panel.cine.propagation.dismiss.click()
    assert panel.cine.propagation.propagation.proposal is None
    assert [layer.name for layer in viewer.layers] == ["c", "c prediction", "c mask"]
    assert "Escape" not in {str(key) for key in image_state.mask.keymap}
    assert np.array_equal(image_state.mask.data, before)


@pytest.mark.slow
def test_strokes_meanwhile_are_part_of_what_is_shown(image_state, panel, press, viewer):
    press()
    viewer.dims.set_point(0, 4)
    panel.refresh()
    changes = panel.cine.propagation.propagation.proposal.changes[4]
    image_state.replace(4, changes.apply(image_state.mask_frame(4)))
    panel.refresh()
    assert not (preview(viewer).data == 1).any()


@pytest.mark.parametrize("change", ["undone", "painted", "named"])
@pytest.mark.slow
def test_a_preview_goes_when_its_frame_changes(image_state, panel, press, change):
    row = panel.cine.propagation
    press()
    if change == "undone":
        image_state.undo()
    elif change == "painted":
        image_state.write(SOURCE, (np.array([2]), np.array([2])), 1)
    else:
        image_state.history.set_names(SOURCE, (SegmentName("7", ((64, 50),)),))
    panel.refresh()
    assert row.propagation.proposal is None
    assert row.propose.text() == "Propagate changes"
    assert row.message.isHidden()
    assert row.propagation.message == ""


@pytest.mark.slow
def test_what_was_undone_meanwhile_is_not_accepted(image_state, panel, press):
    propagation = panel.cine.propagation.propagation
    press()
    image_state.undo()
    before = image_state.mask.data.copy()
    propagation.accept()
    assert propagation.proposal is None
    assert np.array_equal(image_state.mask.data, before)


def test_without_a_corrected_frame_it_says_so(image_state, panel, press, viewer):
    image_state.undo()
    press()
    panel.refresh()
    assert "No frame within 30 is corrected" in panel.cine.propagation.message.text()
    viewer.dims.set_point(0, 5)
    panel.refresh()
    assert panel.cine.propagation.message.isHidden()


@pytest.mark.slow
def test_a_vessel_tool_takes_its_place(image_state, panel, press):
    press()
    panel.vessels.tools.activate(ADD)
    panel.refresh()
    assert panel.cine.propagation.propagation.proposal is None
    press()
    assert panel.vessels.tools.tool is None
    assert "Escape" in {str(key) for key in image_state.mask.keymap}


def test_proposed_names_are_to_be_confirmed_first(image_state, panel, press):
    image_state.undo()
    image_state.history.set_names(SOURCE, (SegmentName("7", ((64, 50),), doubt=0.3),))
    press()
    assert "Confirm all" in panel.cine.propagation.propagation.message
