"""Only the part that was reviewed counts: boxes, lassos, strokes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.gui.project.reviewed_area import BOX, LASSO
from napari_cmunet.gui.project.section_state import describe_project
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.gui.vessel_tools.frame_state import review_record
from napari_cmunet.io.masks.label_file import read_label
from napari_cmunet.vessels.edits import Edit
from napari_cmunet.vessels.uncertainty import FEATURE_NAMES, Segment
from tests.gui.project.conftest import name, stroke


def box(session, top: float, left: float, bottom: float, right: float, frame=None):
    """Draw a box as the mouse would: the layer tells that it is drawn."""
    session.annotation.draw_area(BOX)
    corners = np.array([[top, left], [top, right], [bottom, right], [bottom, left]])
    if frame is not None:
        corners = np.column_stack([np.full(4, frame), corners])
    session.navigator.area.layer.add_rectangles(corners)


def label(session, frame: int = 0):
    image = session.navigator.current.id
    folder = session.project.folder / "labels" / image
    return read_label(folder / f"frame_{frame:04d}.tif")


def test_a_box_and_what_was_painted_count(project, ready, viewer):
    stroke(project, 28, 28, 1)
    stroke(project, 28, 28, 0)
    before = project.navigator.current.mask(0)
    stroke(project, 25, 25)
    painted = project.navigator.current.mask(0) != before
    assert painted.any()
    box(project, 2, 3, 10, 12)
    state = describe_project(project)
    assert state.is_part
    assert state.accept_text == "&Accept the reviewed part"
    project.annotation.accept()
    ready(project)
    reviewed = label(project).reviewed
    assert reviewed[2:11, 3:13].all()
    assert reviewed[painted].all()
    assert not reviewed[15:20, 2:10].any()
    assert not reviewed.all()
    share = round(100 * reviewed.mean())
    assert f"{share} % of the frame reviewed" in describe_project(project).label


def test_the_brush_is_back_in_hand_after_drawing(project, viewer):
    project.navigator.current.image_state.mask.mode = "paint"
    project.annotation.draw_area(LASSO)
    area = project.navigator.area.layer
    assert viewer.layers.selection.active is area
    assert area.mode == LASSO
    area.add_polygons(np.array([[2, 2], [2, 20], [20, 20]]))
    assert viewer.layers.selection.active is project.navigator.current.image_state.mask
    assert project.navigator.current.image_state.mask.mode == "paint"


def test_a_click_is_no_box(project, viewer):
    project.annotation.draw_area(BOX)
    area = project.navigator.area.layer
    area.add_rectangles(np.array([[5, 5], [5, 7], [7, 7], [7, 5]]))
    assert not describe_project(project).is_part
    assert viewer.layers.selection.active is area
    assert area.mode == BOX
    # Whoever is about to draw a part does not mean the whole.
    project.annotation.accept()
    assert project.messages.text.startswith("Draw the box or lasso first")
    assert not project.annotation.saving
    project.annotation.review_all()
    assert describe_project(project).can_accept
    box(project, 2, 3, 12, 12)
    assert len(area.data) == 1
    assert describe_project(project).is_part


def test_a_box_that_is_not_drawn_yet_is_still_asked_for(project, viewer):
    project.annotation.draw_area(BOX)
    viewer.layers.selection.active = project.navigator.current.image_state.mask
    project.annotation.accept()
    assert project.messages.text.startswith("Draw the box or lasso first")
    assert not project.annotation.saving


def test_escape_puts_the_box_away(project, viewer):
    project.annotation.draw_area(BOX)
    area = project.navigator.area.layer
    next(act for key, act in area.keymap.items() if str(key) == "Escape")(area)
    assert viewer.layers.selection.active is project.navigator.current.image_state.mask
    assert describe_project(project).can_accept


@pytest.mark.slow
def test_the_part_is_kept_when_a_label_is_taken_back(project, ready):
    box(project, 2, 3, 10, 12)
    project.annotation.accept()
    ready(project)
    project.annotation.take_back()
    ready(project)
    project.navigator.next()
    ready(project)
    project.navigator.previous()
    ready(project)
    assert describe_project(project).is_part
    project.annotation.accept()
    ready(project)
    assert not label(project).reviewed.all()


def test_the_whole_frame_again(project, ready):
    box(project, 2, 3, 10, 12)
    project.annotation.review_all()
    assert not describe_project(project).is_part
    project.annotation.accept()
    ready(project)
    assert label(project).reviewed is None


@pytest.mark.slow
def test_the_part_comes_back_with_the_label(project, ready, viewer):
    image = project.navigator.current.id
    box(project, 2, 3, 10, 12)
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    # The box stays with its image.
    assert len(viewer.layers) == 3
    assert not describe_project(project).is_part
    project.navigator.go(image)
    ready(project)
    assert describe_project(project).is_part
    reviewed = label(project).reviewed
    # Accepted once more, it is still a part and the unknown is no background.
    stroke(project, 28, 28)
    project.annotation.accept()
    ready(project)
    again = label(project).reviewed
    assert again[reviewed].all()
    assert not again.all()


@pytest.mark.slow
def test_the_part_comes_back_with_a_draft(project, ready):
    image = project.navigator.current.id
    box(project, 2, 3, 10, 12)
    stroke(project, 28, 28)
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    assert describe_project(project).is_part


@pytest.mark.slow
def test_a_box_alone_comes_back_too(project, ready):
    image = project.navigator.current.id
    box(project, 2, 3, 10, 12)
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    assert describe_project(project).is_part
    project.annotation.review_all()
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    assert not describe_project(project).is_part
    assert not project.navigator.draft_saver.has_draft(0)


@pytest.mark.slow
def test_a_box_on_a_label_is_a_change(project, ready):
    image = project.navigator.current.id
    project.annotation.accept()
    ready(project)
    box(project, 2, 3, 10, 12)
    assert "changed since it was accepted" in describe_project(project).label
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    assert describe_project(project).is_part
    assert "changed since it was accepted" in describe_project(project).label
    project.annotation.accept()
    ready(project)
    assert label(project).reviewed is not None
    assert "changed" not in describe_project(project).label


@pytest.mark.slow
def test_a_box_belongs_to_its_frame(session, mixed, tmp_path, ready, viewer):
    session.create(NewProject(tmp_path / "project", (mixed,)))
    ready(session)
    session.navigator.next()
    ready(session)
    assert name(session) == "b"
    viewer.dims.set_point(0, 2)
    box(session, 2, 3, 10, 12, frame=2)
    assert describe_project(session).is_part
    viewer.dims.set_point(0, 0)
    assert not describe_project(session).is_part
    session.annotation.accept()
    ready(session)
    assert label(session, 0).reviewed is None
    viewer.dims.set_point(0, 2)
    session.annotation.accept()
    ready(session)
    assert label(session, 2).reviewed[2:11, 3:13].all()
    viewer.dims.set_point(0, 0)
    box(session, 2, 3, 10, 12, frame=0)
    session.annotation.review_all()
    viewer.dims.set_point(0, 2)
    assert describe_project(session).is_part


@pytest.mark.slow
def test_an_ellipse_of_napari_s_own_counts(project, ready):
    project.annotation.draw_area(BOX)
    corners = np.array([[4, 4], [4, 20], [20, 20], [20, 4]])
    project.navigator.area.layer.add_ellipses(corners)
    project.annotation.accept()
    ready(project)
    reviewed = label(project).reviewed
    assert reviewed[12, 12]
    assert not reviewed[4, 4]


@pytest.mark.slow
def test_a_box_outside_the_image_is_nothing(project, ready):
    box(project, -20, -20, -10, -10)
    project.annotation.accept()
    ready(project)
    assert project.overview.progress.labelled == 0
    assert "Nothing of this frame counts as reviewed yet" in project.messages.text


@pytest.mark.parametrize("how", ["remove", "clear"])
@pytest.mark.slow
def test_the_layer_of_boxes_may_go(project, ready, viewer, how):
    box(project, 2, 3, 10, 12)
    if how == "remove":
        viewer.layers.remove(project.navigator.area.layer)
    else:
        project.navigator.area.layer.data = []
    assert not describe_project(project).is_part
    box(project, 2, 3, 10, 12)
    assert describe_project(project).is_part
    project.navigator.next()
    ready(project)
    assert len(viewer.layers) == 3


def segment(row: int, first: int, last: int) -> Segment:
    """A stretch of a row, as the guided review shows one."""
    columns = np.arange(first, last)
    points = np.column_stack([np.full(len(columns), row), columns])
    return Segment(points, True, np.zeros(len(FEATURE_NAMES)))


def test_what_was_looked_at_counts_and_no_more(project, ready):
    memory = review_record(project.navigator.current.image_state)
    memory.add_segment(0, segment(4, 2, 6))
    project.annotation.review_looked_at()
    state = describe_project(project)
    assert state.is_part
    assert state.is_by_looking
    # What is looked at afterwards counts, too; what was skipped does not.
    memory.add_skipped(0, segment(28, 2, 6))
    memory.add_segment(0, segment(4, 6, 10))
    project.annotation.accept()
    ready(project)
    reviewed = label(project).reviewed
    assert reviewed[4, 2:10].all()
    assert not reviewed[28, 2:6].any()
    assert not reviewed.all()
    # Nothing is learned from the rest.
    (learned,) = project.project.labels.read()
    assert (learned.reviewed == reviewed).all()


@pytest.mark.slow
def test_what_is_no_artery_counts_as_background(project, ready):
    opened = project.navigator.current
    mask = opened.mask(0)
    mask[28:30, 2:6] = True  # a wire that only the session's mask has held
    rows, columns = np.nonzero(mask & ~opened.mask(0))
    memory = review_record(opened.image_state)
    memory.add_background(0, Edit(rows, columns, np.zeros(len(rows), np.uint8)))
    box(project, 2, 3, 10, 12)
    project.annotation.accept()
    ready(project)
    found = label(project)
    assert found.reviewed[rows, columns].all()
    assert not found.mask[rows, columns].any()


@pytest.mark.slow
def test_nothing_looked_at_is_no_label(project, ready):
    project.annotation.review_looked_at()
    project.annotation.accept()
    ready(project)
    assert project.overview.progress.labelled == 0
    assert "Nothing of this frame counts as reviewed yet" in project.messages.text
    project.annotation.review_looked_at(False)
    assert not describe_project(project).is_part


@pytest.mark.slow
def test_an_image_that_was_left_knows_what_was_reviewed(project, ready):
    opened = project.navigator.current
    place = segment(4, 2, 6)
    review_record(opened.image_state).add_segment(0, place)
    project.navigator.next()
    ready(project)
    project.navigator.go(opened.id)
    ready(project)
    again = project.navigator.current.image_state
    assert again is not opened.image_state
    assert review_record(again).is_done(0, place)


@pytest.mark.slow
def test_a_reviewed_part_is_not_asked_about_again(project, ready):
    opened = project.navigator.current
    box(project, 2, 2, 12, 12)
    project.annotation.accept()
    ready(project)
    folder = project.project.folder
    project.close()
    ready(project)
    project.open(folder)
    ready(project)
    project.navigator.go(opened.id)
    ready(project)
    memory = review_record(project.navigator.current.image_state)
    assert memory.is_done(0, segment(6, 4, 10))
    assert not memory.is_done(0, segment(28, 4, 10))
