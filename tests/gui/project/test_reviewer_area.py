"""What a reader did not review stays unknown in what the reviewer decides."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.project.readers.readers import FIRST_READER, REVIEWER

SHAPE = (32, 32)


def block(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    return mask


MASKS = {"": block(slice(4, 8), slice(4, 28)), "b": block(slice(6, 10), slice(4, 28))}
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
        project.project.labels.accept(image, 0, MASKS[key], AREAS[key])
    project.open(made.folder, reader=REVIEWER)
    ready(project)
    assert project.navigator.current.id == image
    return project, image, second


def decided(session, ready, image):
    session.annotation.accept()
    ready(session)
    return session.project.reference.get(image, 0)


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
def test_a_choice_brings_its_area(reviewer, ready, choice):
    session, image, second = reviewer
    review = session.review
    area, one, two = AREAS[""] & AREAS["b"], MASKS[""], MASKS["b"]
    if choice == "use":
        review.use(second)
        mask, area = two, AREAS["b"]
    elif choice == "common":
        review.use_common()
        mask = one & two
    else:
        review.use_all()
        mask = one | two
    label = decided(session, ready, image)
    np.testing.assert_array_equal(label.mask, mask)
    np.testing.assert_array_equal(label.reviewed, area)
