"""Only the part that was reviewed counts: boxes, lassos, strokes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.core.vessels.edits import Edit
from napari_cmunet.core.vessels.segments import FEATURES, Segment
from napari_cmunet.gui.study.opening_job import NewStudy
from napari_cmunet.gui.study.reviewed_area import BOX, LASSO
from napari_cmunet.gui.study.section_state import describe_study
from napari_cmunet.gui.vessel_tools.looked_at import looked_at
from napari_cmunet.io.labels import read_label
from tests.gui.study.conftest import name, stroke


def box(reader, top: float, left: float, bottom: float, right: float, frame=None):
    """Draw a box as the mouse would: the layer tells that it is drawn."""
    reader.browsing.draw_area(BOX)
    corners = np.array([[top, left], [top, right], [bottom, right], [bottom, left]])
    if frame is not None:
        corners = np.column_stack([np.full(4, frame), corners])
    reader.browsing.area.layer.add_rectangles(corners)


def label(reader, frame: int = 0):
    image = reader.browsing.current.id
    folder = reader.study.folder / "labels" / image
    return read_label(folder / f"frame_{frame:04d}.tif")


def test_a_box_and_what_was_painted_count(study, ready, viewer):
    stroke(study, 28, 28, 1)
    stroke(study, 28, 28, 0)
    before = study.browsing.current.mask(0)
    stroke(study, 25, 25)
    painted = study.browsing.current.mask(0) != before
    assert painted.any()
    box(study, 2, 3, 10, 12)
    state = describe_study(study)
    assert state.is_part
    assert state.accept_text == "&Accept the reviewed part"
    study.accepting.accept()
    ready(study)
    reviewed = label(study).reviewed
    assert reviewed[2:11, 3:13].all()
    assert reviewed[painted].all()
    assert not reviewed[15:20, 2:10].any()
    assert not reviewed.all()
    share = round(100 * reviewed.mean())
    assert f"{share} % of the frame reviewed" in describe_study(study).label


def test_the_brush_is_back_in_hand_after_drawing(study, viewer):
    study.browsing.draw_area(LASSO)
    area = study.browsing.area.layer
    assert viewer.layers.selection.active is area
    assert area.mode == LASSO
    area.add_polygons(np.array([[2, 2], [2, 20], [20, 20]]))
    assert viewer.layers.selection.active is study.browsing.current.reading.mask
    assert study.browsing.current.reading.mask.mode == "paint"


def test_a_click_is_no_box(study, viewer):
    study.browsing.draw_area(BOX)
    area = study.browsing.area.layer
    area.add_rectangles(np.array([[5, 5], [5, 7], [7, 7], [7, 5]]))
    assert not describe_study(study).is_part
    assert viewer.layers.selection.active is area
    assert area.mode == BOX
    # Whoever is about to draw a part does not mean the whole.
    study.accepting.accept()
    assert study.message.startswith("Draw the box or lasso first")
    assert not study.accepting.saving
    study.browsing.clear_area()
    assert describe_study(study).can_accept
    box(study, 2, 3, 12, 12)
    assert len(area.data) == 1
    assert describe_study(study).is_part


def test_a_box_that_is_not_drawn_yet_is_still_asked_for(study, viewer):
    study.browsing.draw_area(BOX)
    viewer.layers.selection.active = study.browsing.current.reading.mask
    study.accepting.accept()
    assert study.message.startswith("Draw the box or lasso first")
    assert not study.accepting.saving


def test_escape_puts_the_box_away(study, viewer):
    study.browsing.draw_area(BOX)
    area = study.browsing.area.layer
    next(act for key, act in area.keymap.items() if str(key) == "Escape")(area)
    assert viewer.layers.selection.active is study.browsing.current.reading.mask
    assert describe_study(study).can_accept


def test_the_part_is_kept_when_a_label_is_taken_back(study, ready):
    box(study, 2, 3, 10, 12)
    study.accepting.accept()
    ready(study)
    study.accepting.take_back()
    ready(study)
    study.browsing.next()
    ready(study)
    study.browsing.previous()
    ready(study)
    assert describe_study(study).is_part
    study.accepting.accept()
    ready(study)
    assert not label(study).reviewed.all()


def test_the_whole_frame_again(study, ready):
    box(study, 2, 3, 10, 12)
    study.browsing.clear_area()
    assert not describe_study(study).is_part
    study.accepting.accept()
    ready(study)
    assert label(study).reviewed is None


def test_the_part_comes_back_with_the_label(study, ready, viewer):
    image = study.browsing.current.id
    box(study, 2, 3, 10, 12)
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    # The box stays with its image.
    assert len(viewer.layers) == 3
    assert not describe_study(study).is_part
    study.browsing.go(image)
    ready(study)
    assert describe_study(study).is_part
    reviewed = label(study).reviewed
    # Accepted once more, it is still a part and the unknown is no background.
    stroke(study, 28, 28)
    study.accepting.accept()
    ready(study)
    again = label(study).reviewed
    assert again[reviewed].all()
    assert not again.all()


def test_the_part_comes_back_with_a_draft(study, ready):
    image = study.browsing.current.id
    box(study, 2, 3, 10, 12)
    stroke(study, 28, 28)
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    assert describe_study(study).is_part


def test_a_box_alone_comes_back_too(study, ready):
    image = study.browsing.current.id
    box(study, 2, 3, 10, 12)
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    assert describe_study(study).is_part
    study.browsing.clear_area()
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    assert not describe_study(study).is_part
    assert not study.browsing.keeper.holds(0)


def test_a_box_on_a_label_is_a_change(study, ready):
    image = study.browsing.current.id
    study.accepting.accept()
    ready(study)
    box(study, 2, 3, 10, 12)
    assert "changed since it was accepted" in describe_study(study).label
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    assert describe_study(study).is_part
    assert "changed since it was accepted" in describe_study(study).label
    study.accepting.accept()
    ready(study)
    assert label(study).reviewed is not None
    assert "changed" not in describe_study(study).label


def test_a_box_belongs_to_its_frame(reader, mixed, tmp_path, ready, viewer):
    reader.create(NewStudy(tmp_path / "study", (mixed,)))
    ready(reader)
    reader.browsing.next()
    ready(reader)
    assert name(reader) == "b"
    viewer.dims.set_point(0, 2)
    box(reader, 2, 3, 10, 12, frame=2)
    assert describe_study(reader).is_part
    viewer.dims.set_point(0, 0)
    assert not describe_study(reader).is_part
    reader.accepting.accept()
    ready(reader)
    assert label(reader, 0).reviewed is None
    viewer.dims.set_point(0, 2)
    reader.accepting.accept()
    ready(reader)
    assert label(reader, 2).reviewed[2:11, 3:13].all()
    viewer.dims.set_point(0, 0)
    box(reader, 2, 3, 10, 12, frame=0)
    reader.browsing.clear_area()
    viewer.dims.set_point(0, 2)
    assert describe_study(reader).is_part


def test_an_ellipse_of_napari_s_own_counts(study, ready):
    study.browsing.draw_area(BOX)
    corners = np.array([[4, 4], [4, 20], [20, 20], [20, 4]])
    study.browsing.area.layer.add_ellipses(corners)
    study.accepting.accept()
    ready(study)
    reviewed = label(study).reviewed
    assert reviewed[12, 12]
    assert not reviewed[4, 4]


def test_a_box_outside_the_image_is_nothing(study, ready):
    box(study, -20, -20, -10, -10)
    study.accepting.accept()
    ready(study)
    assert study.overview.progress.labelled == 0
    assert "Nothing of this frame counts as reviewed yet" in study.message


@pytest.mark.parametrize("how", ["remove", "clear"])
def test_the_layer_of_boxes_may_go(study, ready, viewer, how):
    box(study, 2, 3, 10, 12)
    if how == "remove":
        viewer.layers.remove(study.browsing.area.layer)
    else:
        study.browsing.area.layer.data = []
    assert not describe_study(study).is_part
    box(study, 2, 3, 10, 12)
    assert describe_study(study).is_part
    study.browsing.next()
    ready(study)
    assert len(viewer.layers) == 3


def segment(row: int, first: int, last: int) -> Segment:
    """A stretch of a row, as the tour shows one."""
    columns = np.arange(first, last)
    points = np.column_stack([np.full(len(columns), row), columns])
    return Segment(points, True, np.zeros(len(FEATURES)))


def test_what_was_looked_at_counts_and_no_more(study, ready):
    memory = looked_at(study.browsing.current.reading)
    memory.note_seen(0, segment(4, 2, 6))
    study.browsing.take_looked_at()
    state = describe_study(study)
    assert state.is_part
    assert state.is_by_looking
    # What is looked at afterwards counts, too; what was skipped does not.
    memory.note_skipped(0, segment(28, 2, 6))
    memory.note_seen(0, segment(4, 6, 10))
    study.accepting.accept()
    ready(study)
    reviewed = label(study).reviewed
    assert reviewed[4, 2:10].all()
    assert not reviewed[28, 2:6].any()
    assert not reviewed.all()
    # Nothing is learned from the rest.
    (learned,) = study.study.labels.read()
    assert (learned.reviewed == reviewed).all()


def test_what_is_no_artery_counts_as_background(study, ready):
    opened = study.browsing.current
    mask = opened.mask(0)
    mask[28:30, 2:6] = True  # a wire that only the reader's mask has held
    rows, columns = np.nonzero(mask & ~opened.mask(0))
    memory = looked_at(opened.reading)
    memory.note_background(0, Edit(rows, columns, np.zeros(len(rows), np.uint8)))
    box(study, 2, 3, 10, 12)
    study.accepting.accept()
    ready(study)
    found = label(study)
    assert found.reviewed[rows, columns].all()
    assert not found.mask[rows, columns].any()


def test_nothing_looked_at_is_no_label(study, ready):
    study.browsing.take_looked_at()
    study.accepting.accept()
    ready(study)
    assert study.overview.progress.labelled == 0
    assert "Nothing of this frame counts as reviewed yet" in study.message
    study.browsing.take_looked_at(False)
    assert not describe_study(study).is_part


def test_an_image_that_was_left_knows_what_was_looked_at(study, ready):
    opened = study.browsing.current
    place = segment(4, 2, 6)
    looked_at(opened.reading).note_seen(0, place)
    study.browsing.next()
    ready(study)
    study.browsing.go(opened.id)
    ready(study)
    again = study.browsing.current.reading
    assert again is not opened.reading
    assert looked_at(again).is_done(0, place)


def test_a_reviewed_part_is_not_asked_about_again(study, ready):
    opened = study.browsing.current
    box(study, 2, 2, 12, 12)
    study.accepting.accept()
    ready(study)
    folder = study.study.folder
    study.close()
    ready(study)
    study.open(folder)
    ready(study)
    study.browsing.go(opened.id)
    ready(study)
    memory = looked_at(study.browsing.current.reading)
    assert memory.is_done(0, segment(6, 4, 10))
    assert not memory.is_done(0, segment(28, 4, 10))
