"""Measures against cases done by hand and against their definitions."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.morphology import skeletonize

from napari_cmunet.training.evaluation.metrics import (
    bootstrap_interval,
    cldice,
    dice,
    hd95,
    score,
    wrong_places,
)


def box(top: int, bottom: int, left: int, right: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[top:bottom, left:right] = True
    return mask


EMPTY = np.zeros((40, 40), bool)


def test_two_boxes_by_hand():
    predicted, truth = box(10, 20, 10, 20), box(10, 20, 15, 25)
    found = score(predicted, truth)
    assert found.dice == pytest.approx(2 * 50 / 200)
    assert found.precision == pytest.approx(0.5)
    assert found.recall == pytest.approx(0.5)
    assert asdict(found)["dice"] == found.dice


def test_precision_and_recall_are_not_swapped():
    small, large = box(10, 20, 10, 20), box(10, 20, 10, 30)
    found = score(small, large)
    assert (found.precision, found.recall) == (1, 0.5)
    found = score(large, small)
    assert (found.precision, found.recall) == (0.5, 1)


def test_the_same_mask_is_perfect():
    mask = box(10, 20, 5, 30)
    found = score(mask, mask)
    assert asdict(found) == {
        "dice": 1,
        "cldice": 1,
        "precision": 1,
        "recall": 1,
        "hd95": 0,
    }


def test_two_empty_masks_agree_and_one_does_not():
    assert asdict(score(EMPTY, EMPTY)) == {
        "dice": 1,
        "cldice": 1,
        "precision": 1,
        "recall": 1,
        "hd95": 0,
    }
    mask = box(10, 20, 10, 20)
    for found in (score(EMPTY, mask), score(mask, EMPTY)):
        assert (found.dice, found.cldice) == (0, 0)
        assert (found.precision, found.recall) == (0, 0)
        assert found.hd95 == float("inf")


def test_cldice_forgives_a_thinner_vessel_and_not_a_lost_one():
    truth = box(10, 15, 2, 38) | box(25, 30, 2, 38)
    thin = box(12, 13, 2, 38) | box(27, 28, 2, 38)
    assert dice(thin, truth) < 0.5
    assert cldice(thin, truth) > 0.9
    one_branch = box(10, 15, 2, 38)
    # All that was found is true, half the length is missing.
    assert cldice(one_branch, truth) == pytest.approx(2 / 3, abs=0.02)


def test_hd95_is_a_distance_in_pixels():
    assert hd95(box(10, 20, 10, 20), box(10, 20, 13, 23)) == pytest.approx(3)
    line, far = box(10, 11, 2, 38), box(17, 18, 2, 38)
    assert hd95(line, far) == 7
    # A speck far away is less than five per cent of the border.
    speck = line | box(35, 36, 20, 21)
    assert hd95(speck, line) == 0


def test_definitions_on_random_masks():
    """Dice, clDice, precision and recall as any scorer of masks defines them."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        fields = gaussian_filter(rng.standard_normal((2, 64, 64)), (0, 2, 2))
        p, t = fields > rng.uniform(0, 0.2)
        overlap = np.count_nonzero(p & t)
        found = score(p, t)
        assert found.dice == pytest.approx(2 * overlap / (p.sum() + t.sum()))
        assert found.precision == pytest.approx(overlap / p.sum())
        assert found.recall == pytest.approx(overlap / t.sum())
        topology_precision = t[skeletonize(p)].mean()
        topology_sensitivity = p[skeletonize(t)].mean()
        assert found.cldice == pytest.approx(
            2 / (1 / topology_precision + 1 / topology_sensitivity)
        )


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(40, 40\)"):
        score(EMPTY, EMPTY[:20])


def test_interval_contains_the_mean_and_shrinks_with_more_images():
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.1, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    # Normal theory: 2 * 1.96 * 0.1 / sqrt(400).
    assert high - low == pytest.approx(0.0196, rel=0.15)
    few = bootstrap_interval(values[:20])
    assert few[1] - few[0] > 3 * (high - low)


def test_interval_draws_whole_patients():
    """Ten alike frames of a patient say no more than one of them."""
    rng = np.random.default_rng(0)
    one_each = rng.normal(0.7, 0.1, 12)
    ten_each = np.repeat(one_each, 10)
    patients = np.repeat([f"p{i}" for i in range(12)], 10)
    alone = bootstrap_interval(one_each)
    grouped = bootstrap_interval(ten_each, list(patients))
    ungrouped = bootstrap_interval(ten_each)
    assert grouped == pytest.approx(alone, abs=0.01)
    assert ungrouped[1] - ungrouped[0] < 0.5 * (grouped[1] - grouped[0])


def test_interval_weighs_frames_not_patients():
    values, patients = [1, 1, 1, 0], ["a", "a", "a", "b"]
    low, high = bootstrap_interval(values, patients)
    assert (low, high) == (0, 1)


def test_unknown_patients_are_not_one_patient():
    values = np.random.default_rng(0).normal(0.7, 0.1, 50)
    assert bootstrap_interval(values, [""] * 50) == bootstrap_interval(values)


def test_interval_is_the_same_each_time():
    values = [0.2, 0.5, 0.9, 0.7]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    # Not by chance of a coarse distribution: other seeds draw otherwise.
    many = np.random.default_rng(0).random(50)
    assert bootstrap_interval(many, seed=1) != bootstrap_interval(many, seed=2)


def test_wrong_places_are_false_and_missed_branches():
    truth = np.zeros((96, 96), bool)
    truth[20:23, 5:90] = True
    truth[60:63, 5:90] = True
    assert wrong_places(truth, truth) == 0
    shifted = np.roll(truth, 2, 0)  # within the reach
    assert wrong_places(shifted, truth) == 0
    missed = truth.copy()
    missed[60:63] = False
    assert wrong_places(missed, truth) == 1
    missed[80:83, 5:40] = True
    assert wrong_places(missed, truth) == 2
    missed[40:43, 5:15] = True  # too short to count
    assert wrong_places(missed, truth) == 2
    assert wrong_places(np.zeros_like(truth), truth) == 2
    assert wrong_places(np.zeros_like(truth), np.zeros_like(truth)) == 0
