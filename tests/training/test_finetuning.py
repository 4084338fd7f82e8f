"""Masks of main branches, completed: the rest is added where sure, else unknown."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.training.dataset import Label
from napari_cmunet.training.finetuning import (
    CONFIDENT_ARTERY,
    CONFIDENT_BACKGROUND,
    completed,
)


class Knows:
    """Says of four columns: surely none, perhaps, surely artery, surely none."""

    def predict(self, frame):
        chances = np.array(
            [0.05, (CONFIDENT_ARTERY + CONFIDENT_BACKGROUND) / 2, 0.95, 0.05]
        )
        return np.broadcast_to(np.rint(255 * chances), frame.shape).astype(np.uint8)


def label(reviewed=None) -> Label:
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = True  # also where the model knows of no artery, and where it doubts
    return Label(np.zeros((4, 4)), mask, reviewed, patient="p", name="n")


def test_what_is_sure_is_added_and_what_is_not_is_unknown():
    (made,) = completed([label()], Knows())
    expected = label().mask
    expected[:, 2] = True
    np.testing.assert_array_equal(made.mask, expected)
    unknown = np.zeros((4, 4), bool)
    unknown[1:, 1] = True
    np.testing.assert_array_equal(made.reviewed, ~unknown)
    assert (made.patient, made.name) == ("p", "n")


def test_what_nobody_reviewed_stays_unknown():
    reviewed = np.ones((4, 4), bool)
    reviewed[3] = False
    (made,) = completed([label(reviewed)], Knows())
    assert not made.reviewed[3].any()
    assert made.reviewed[0].all()


def test_labels_are_taken_one_by_one():
    def labels():
        yield label()
        raise AssertionError("taken before it was needed")

    found = completed(labels(), Knows())
    next(found)
    with pytest.raises(AssertionError):
        next(found)
