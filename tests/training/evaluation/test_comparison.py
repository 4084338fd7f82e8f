"""The gate: better, not better, or nobody can tell, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.training.dataset import Label
from napari_cmunet.training.evaluation.comparison import (
    TRAINED_WITHOUT,
    Pair,
    interval,
    judge,
    regression_frames,
    score_regression_set,
)
from napari_cmunet.training.evaluation.validation import score_frames
from napari_cmunet.training.events import BETTER, CANNOT_TELL, NOT_BETTER


def pairs(*gains, old=0.7, learned=()):
    """Patients whose Dice and clDice both rise by so much."""
    return {
        f"p{n}": Pair((old + g, old + g), (old, old), n in learned)
        for n, g in enumerate(gains)
    }


def verdict(measured, sentinels=(0.7, 0.7), **more):
    return judge("new", "old", "a" * 64, measured, sentinels, **more)


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        ((0.05, 0.06, 0.04), BETTER),
        ((0.05, 0.06, 0.04, 0.01, 0.02), BETTER),
        ((0.05, 0.06), CANNOT_TELL),  # two patients show nothing
        ((0.05,), CANNOT_TELL),
        ((), CANNOT_TELL),
        ((0.05, -0.04, 0.01), CANNOT_TELL),
        ((-0.01, -0.02, 0.01), NOT_BETTER),
        ((0.0, 0.0, 0.0), NOT_BETTER),
        ((-0.31, -0.3), NOT_BETTER),  # but two can show that it is bad
    ],
)
def test_outcomes(gains, outcome):
    assert verdict(pairs(*gains)).outcome == outcome


def test_figures_and_words():
    v = verdict(pairs(0.05, 0.06, 0.04))
    assert v.patients == 3
    assert v.dice == pytest.approx(0.75)
    assert v.gain == pytest.approx(0.05)
    assert v.gain_low < 0.05 < v.gain_high
    for words in ("Better.", "3 patients", "Dice 0.750, before 0.700", "+0.050"):
        assert words in v.text


def test_one_measure_up_and_the_other_down():
    measured = {f"p{n}": Pair((0.85, 0.67), (0.7, 0.7)) for n in range(4)}
    v = verdict(measured)
    assert v.outcome == CANNOT_TELL
    assert "one measure rises" in v.text


def test_a_model_that_has_seen_the_patients_is_favoured():
    # Better all the same: better for sure.
    v = verdict(pairs(0.05, 0.06, 0.04, learned=(0, 1, 2)))
    assert v.outcome == BETTER
    assert "had seen 3" in v.text
    # Not better there: it may be better all the same.
    v = verdict(pairs(-0.05, -0.06, -0.04, learned=(0, 1, 2)))
    assert v.outcome == CANNOT_TELL
    assert "learned from 3 of the 3" in v.text
    # Those whom neither has seen decide, if they are enough.
    v = verdict(pairs(-0.05, 0.06, 0.04, 0.05, learned=(0,)))
    assert (v.outcome, v.patients) == (BETTER, 3)


def test_a_model_that_lost_its_way_is_refused_whatever_else():
    v = verdict(pairs(0.05, 0.06, 0.04), sentinels=(0.1, 0.7))
    assert v.outcome == NOT_BETTER
    assert "synthetic" in v.text


def test_models_that_stand_for_the_new_one_are_named():
    assert (
        "trained without"
        in verdict(pairs(0.1, 0.1, 0.1), left_out=TRAINED_WITHOUT).text
    )


def test_why_nothing_can_be_known():
    v = verdict({}, None, why_none="all labels are of one patient")
    assert v.outcome == CANNOT_TELL
    assert "all labels are of one patient" in v.text


@pytest.mark.slow
def test_interval_is_students():
    from scipy.stats import ttest_1samp

    values = [0.1, 0.2, 0.15, 0.05]
    low, high = ttest_1samp(values, 0).confidence_interval(0.90)
    assert interval(values) == pytest.approx((0.125, low, high))
    assert interval([0.1]) is None


def test_frames_of_one_patient_count_as_one_and_unseen_pixels_not_at_all():
    mask = np.zeros((20, 20), bool)
    mask[8:12] = True
    frame = np.where(mask, 255, 0).astype(np.uint8)
    wrong = np.full((20, 20), 255, np.uint8)
    seen = np.zeros((20, 20), bool)
    seen[8:12] = True
    labels = [
        Label(frame, mask, patient="a"),
        Label(wrong, mask, patient="a"),
        Label(wrong, mask, reviewed=seen, patient="b"),
    ]
    scores = score_frames(lambda x: x, 0.5, labels)
    assert scores["b"] == (1.0, 1.0)
    assert scores["a"][0] == pytest.approx((1 + 2 * 80 / 480) / 2)


@pytest.mark.slow
def test_sentinels_are_always_the_same_and_hold_arteries():
    frames = regression_frames()
    again = regression_frames.__wrapped__()
    for (frame, mask), (frame_again, _) in zip(frames, again, strict=True):
        assert np.array_equal(frame, frame_again)
        assert mask.any()
    perfect = {x.tobytes(): m for x, m in frames}
    found = score_regression_set(
        lambda x: perfect[x.tobytes()].astype(np.uint8) * 255, 0.5, frames
    )
    assert found == 1.0


def test_labels_that_are_the_model_s_own_find_say_so():
    own = "nearly what the model in use found"
    assert own in verdict(pairs(-0.03, -0.04, -0.02, old=0.995)).text
    assert own not in verdict(pairs(-0.03, -0.04, -0.02)).text
    # What a refusal for another reason says is not contradicted.
    lost = verdict(pairs(0.003, 0.002, 0.004, old=0.99), (0.02, 0.7))
    assert lost.outcome == NOT_BETTER
    assert own not in lost.text
