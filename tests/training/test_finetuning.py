"""Completing masks of main branches, and the card of a new model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.card import Postprocessing
from napari_cmunet.model.registry import load_model
from napari_cmunet.training.config import FinetuneResult, OperatingPoint
from napari_cmunet.training.dataset import Label
from napari_cmunet.training.finetuning import (
    CONFIDENT_ARTERY,
    CONFIDENT_BACKGROUND,
    StartModel,
    completed,
    model_card,
)
from napari_cmunet.training.options import FinetuneOptions


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


@pytest.mark.parametrize(
    ("threshold", "margin", "said"),
    [
        (0.5, 2.5, "fewer side"),
        (0.5, 0.5, "more side"),
        (0.7, 0.6, None),  # as log-odds of the network these are the start's
        (0.7, 1.5, "fewer side"),
    ],
)
def test_a_card_says_when_labels_change_the_side_branches(
    tiny_model, threshold, margin, said
):
    model = load_model(tiny_model)
    own = Postprocessing()
    model = replace(model, card=replace(model.card, postprocessing=own))
    options = FinetuneOptions()
    start = replace(StartModel.load(options, tiny_model), model=model)
    point = OperatingPoint(threshold, replace(own, twig_margin=margin))
    result = FinetuneResult({}, 1, 1, 0.8, 0.8, "done", operating_point=point)
    card = model_card("new", start, options, 18, result)
    assert (card.threshold, card.postprocessing) == (threshold, point.postprocessing)
    assert ("side branches" in card.description) == (said is not None)
    assert (said or "") in card.description


@pytest.mark.parametrize("name", ["syntax-names"])
def test_a_model_of_something_else_starts_no_training(name):
    with pytest.raises(TrainingError, match="no model of arteries"):
        StartModel.load(FinetuneOptions(start=name))
