"""What labels cost, from the journal, and when more of them no longer pay."""

from __future__ import annotations

import pytest

from napari_cmunet.project.annotation_time import AnnotationTime, annotation_time_of
from tests.project.project_making import mask_of, reopened


def labelled(*seconds: float, first: int = 0) -> AnnotationTime:
    annotation_time = AnnotationTime()
    for number, each in enumerate(seconds):
        annotation_time = annotation_time.with_label(
            (f"{number + first:012x}", 0), each
        )
    return annotation_time


def test_the_journal_tells_seconds(project):
    ids = project.images.ids()
    for number, image in enumerate(ids[:5]):
        project.labels.accept(image, 0, mask_of(number), seconds=60 - number)
    # Accepted once more, it was looked at before and is no measure.
    project.labels.accept(ids[0], 0, mask_of(9), seconds=1.0)
    project.labels.accept(ids[5], 0, mask_of(1))  # by a program, without a clock
    annotation_time = annotation_time_of(reopened(project).journal())
    assert len(annotation_time.labels) == 5
    assert annotation_time.seconds == 58
    assert annotation_time.first_seconds is None


def test_the_trend_is_of_the_first_and_the_last_five():
    annotation_time = labelled(70, 62, 61, 63, 10, 30, 40, 18, 17, 19, 16, 200)
    assert annotation_time.first_seconds == 62
    assert annotation_time.seconds == 18
    assert labelled(1, 2, 3, 4).seconds is None
    assert labelled(1, 2, 3, 4, 5, 6).first_seconds is None


@pytest.mark.parametrize(
    ("gains", "seconds", "pays"),
    [
        ([(5, -0.01), (5, -0.02)], [50] * 5 + [49] * 5, False),
        ([(5, -0.01), (5, -0.02)], [50] * 5 + [30] * 5, True),  # still faster
        ([(5, -0.01), (5, 0.01)], [50] * 5 + [49] * 5, True),  # still better
        ([(5, -0.01)], [50] * 10, True),  # one training says little
        ([(5, -0.01), (2, -0.02)], [50] * 10, True),  # two patients say nothing
        ([(5, -0.01), (5, None)], [50] * 10, True),
        ([(5, -0.01), (5, -0.02)], [50] * 9, True),  # too few labels to tell
        ([(5, 0.02), (5, -0.01), (5, -0.02)], [50] * 10, False),
    ],
)
def test_more_labels_pay_while_one_of_the_two_gets_better(gains, seconds, pays):
    annotation_time = labelled(*seconds)
    for patients, low in gains:
        annotation_time = annotation_time.with_training(patients, low)
    assert annotation_time.still_pays is pays


def test_a_refused_model_counts_as_a_training(project, make_model):
    make_model(project, "tuned-001", b"one")
    project.models.register("tuned-001")
    project.models.refuse("tuned-001", "Not better.", patients=4, gain_low=-0.02)
    assert annotation_time_of(project.journal()).gains == (-0.02,)
