"""What a reader did not review stays unknown in what the reviewer decides."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.gui.project.reviewed_area import BOX
from napari_cmunet.project.readers.readers import FIRST_READER, REVIEWER
from napari_cmunet.vessels.naming import SegmentName

SHAPE = (32, 32)


def block(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    return mask


MASKS = {"": block(slice(4, 8), slice(4, 28)), "b": block(slice(6, 10), slice(4, 28))}
NAMES = {
    "": (SegmentName("6", ((6, 6), (6, 24))),),
    "b": (SegmentName("1", ((8, 6), (8, 24))),),
}
AREAS = {"": block(slice(0, 20), slice(0, 32)), "b": block(slice(0, 32), slice(0, 16))}


@pytest.fixture
def reviewer(project, ready):
    """The reviewer at the first image; two readers have reviewed a part of it each."""
    made = project.project
    image = project.navigator.current.id
    second = made.reader_code("Dr Beta")
    project.open(made.folder, reader=second)
    ready(project)
    for reader, key in ((FIRST_READER, ""), (second, "b")):
        project.open(made.folder, reader=reader)
        ready(project)
        project.project.labels.accept(
            image, 0, MASKS[key], AREAS[key], names=NAMES[key]
        )
    project.open(made.folder, reader=REVIEWER)
    ready(project)
    assert project.navigator.current.id == image
    return project, image, second


def decided(session, ready, image):
    session.annotation.accept()
    ready(session)
    return session.project.reference.get(image, 0)


@pytest.mark.slow
def test_the_first_reading_is_accepted_with_its_area(reviewer, ready):
    session, image, _ = reviewer
    label = decided(session, ready, image)
    np.testing.assert_array_equal(label.mask, MASKS[""])
    np.testing.assert_array_equal(label.reviewed, AREAS[""])
    # Also when the reviewer comes back.
    session.navigator.next()
    ready(session)
    session.navigator.previous()
    ready(session)
    np.testing.assert_array_equal(
        session.navigator.area.reviewed(0, MASKS[""]), AREAS[""]
    )


@pytest.mark.parametrize("choice", ["use", "common", "all"])
@pytest.mark.slow
def test_a_choice_brings_its_area(reviewer, ready, choice):
    session, image, second = reviewer
    review = session.review
    area, one, two = AREAS[""] & AREAS["b"], MASKS[""], MASKS["b"]
    if choice == "use":
        review.use(second)
        mask, area = two, AREAS["b"]
    elif choice == "common":
        review.merge(common=True)
        mask = one & two
    else:
        review.merge(common=False)
        mask = one | two
    label = decided(session, ready, image)
    np.testing.assert_array_equal(label.mask, mask)
    np.testing.assert_array_equal(label.reviewed, area)


@pytest.mark.slow
def test_undo_of_a_choice_brings_back_mask_names_and_area(reviewer, ready):
    session, image, second = reviewer
    area, state = session.navigator.area, session.navigator.current.image_state
    mask = state.mask

    def is_now(key: str) -> bool:
        found = session.navigator.current.mask(0)
        return (
            np.array_equal(found, MASKS[key])
            and np.array_equal(area.reviewed(0, found), AREAS[key])
            and state.names[0] == NAMES[key]
        )

    assert is_now("")
    session.review.use(second)
    assert is_now("b")
    mask.undo()
    assert is_now("")
    mask.redo()
    assert is_now("b")
    mask.undo()
    label = decided(session, ready, image)
    np.testing.assert_array_equal(label.reviewed, AREAS[""])
    assert label.names == NAMES[""]


@pytest.mark.slow
def test_a_choice_of_the_same_mask_is_undone_too(reviewer):
    session, _, second = reviewer
    area, opened = session.navigator.area, session.navigator.current
    state = opened.image_state
    state.replace(0, MASKS["b"])
    session.review.use(second)
    assert state.names[0] == NAMES["b"]
    np.testing.assert_array_equal(area.reviewed(0, MASKS["b"]), AREAS["b"])
    state.mask.undo()
    assert state.names[0] == NAMES[""]
    np.testing.assert_array_equal(opened.mask(0), MASKS["b"])
    assert not area.reviewed(0, MASKS["b"])[25, 5]
    state.mask.redo()
    np.testing.assert_array_equal(area.reviewed(0, MASKS["b"]), AREAS["b"])
    for _ in range(2):
        state.mask.undo()
    np.testing.assert_array_equal(opened.mask(0), MASKS[""])
    assert state.names[0] == NAMES[""]


@pytest.mark.slow
def test_undo_of_a_choice_brings_back_a_box(reviewer):
    session, _, second = reviewer
    area, opened = session.navigator.area, session.navigator.current
    area.draw(BOX)
    area.layer.add_rectangles([[22, 20], [22, 30], [30, 30], [30, 20]])
    before = area.reviewed(0, opened.mask(0))
    assert before[25, 25] and not before[25, 5]
    session.review.use(second)
    assert len(area.layer.data) == 0
    opened.image_state.mask.undo()
    np.testing.assert_array_equal(area.reviewed(0, opened.mask(0)), before)


@pytest.mark.slow
def test_undo_of_a_choice_leaves_a_decided_frame_unchanged(reviewer, ready):
    session, image, second = reviewer
    decided(session, ready, image)
    session.navigator.next()
    ready(session)
    session.navigator.previous()
    ready(session)
    opened = session.navigator.current
    assert session.annotation.is_unchanged(opened, 0)
    session.review.use(second)
    assert not session.annotation.is_unchanged(opened, 0)
    opened.image_state.mask.undo()
    assert session.annotation.is_unchanged(opened, 0)


@pytest.mark.slow
def test_an_undo_adds_no_box_to_an_image_that_was_left(reviewer):
    session, _, second = reviewer
    area, opened = session.navigator.area, session.navigator.current
    area.draw(BOX)
    area.layer.add_rectangles([[22, 20], [22, 30], [30, 30], [30, 20]])
    layers = session.controller.viewer.layers
    session.review.use(second)
    area.remove()
    before = list(layers)
    opened.image_state.mask.undo()
    assert list(layers) == before


@pytest.mark.slow
def test_undo_of_a_restored_version_brings_back_its_area_and_names(
    session, project, ready
):
    opened, labels = project.navigator.current, project.project.labels
    for key, reviewed in (("", AREAS[""]), ("b", None)):
        labels.accept(opened.id, 0, MASKS[key], reviewed, names=NAMES[key])
    project.navigator.next()
    ready(project)
    project.navigator.previous()
    ready(project)
    opened, area = project.navigator.current, project.navigator.area
    assert not area.is_part(0)
    project.annotation.restore(labels.older(opened.id, 0)[-1])
    ready(project)
    np.testing.assert_array_equal(area.reviewed(0, opened.mask(0)), AREAS[""])
    names = opened.image_state.names
    assert project.annotation.is_unchanged(opened, 0) and names[0] == NAMES[""]
    opened.image_state.mask.undo()
    assert not area.is_part(0) and names[0] == NAMES["b"]
    assert not project.annotation.is_unchanged(opened, 0)
    opened.image_state.mask.redo()
    np.testing.assert_array_equal(area.reviewed(0, opened.mask(0)), AREAS[""])
    assert project.annotation.is_unchanged(opened, 0)
