"""Which places are in doubt: chances, and what is not proposed again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.vessels.tools import (
    prepare_context,
    propose_branch,
    propose_bridge,
    propose_removal,
    propose_run_removal,
)
from napari_cmunet.vessels.tree import build_tree
from napari_cmunet.vessels.uncertainty import FEATURE_NAMES
from napari_cmunet.vessels.vesselness import compute_features


@pytest.fixture(scope="module")
def guessed():
    """A phantom, its truth, and a network that is right but for a wire it invents
    and a branch of which it is not sure."""
    frame, truth = make_frame(PhantomConfig(size=256, seed=3, side="left"))
    tree = build_tree(truth)
    fit = [b for b in tree.branches if b.radius < 4 and min(b.joints) < 0]
    unsure = max(fit, key=lambda b: b.length)
    probability = np.where(truth, 0.97, 0.0)
    probability[tree.pixels(unsure)] = 0.3
    wire = np.zeros(truth.shape, bool)
    wire[20:110, 244:247] = True
    probability[wire] = 0.75
    blurred = gaussian_filter(probability, 0.7)
    return frame, truth, (255 * blurred).astype(np.uint8), wire, unsure


@pytest.fixture(scope="module")
def context(guessed):
    frame, _, probability, _, _ = guessed
    return prepare_context(compute_features(frame, probability), probability >= 128)


def test_every_segment_has_a_probability_and_its_features(context):
    assert context.uncertain
    for segment in context.uncertain:
        assert segment.values.shape == (len(FEATURE_NAMES),)
        assert np.isfinite(segment.values).all()
        assert 0 <= segment.artery_probability <= 1
    doubts = [segment.expected_error for segment in context.uncertain]
    assert doubts == sorted(doubts, reverse=True)


def test_the_invented_wire_is_less_likely_than_the_arteries(guessed, context):
    _, truth, _, wire, _ = guessed
    in_mask = [s for s in context.uncertain if s.in_mask and s.length > 20]
    on_wire = [s.artery_probability for s in in_mask if wire[tuple(s.points.T)].all()]
    on_truth = [s.artery_probability for s in in_mask if truth[tuple(s.points.T)].all()]
    assert on_wire
    assert max(on_wire) < np.median(on_truth)


def test_the_branch_below_the_threshold_is_proposed_and_one_click_adds_it(
    guessed, context
):
    _, truth, _, _, unsure = guessed
    middle = tuple(unsure.points[len(unsure.points) // 2].astype(float))
    made = propose_branch(context, middle)
    assert made is not None
    assert "add" in made.hint
    after = context.mask.copy()
    made.edit.apply(after)
    missing = truth & ~context.mask
    assert (after & missing).sum() > 0.4 * missing.sum()


def test_what_was_called_no_artery_is_not_proposed_again(guessed, context):
    frame, _, probability, _, unsure = guessed
    background = np.zeros(context.mask.shape, bool)
    for row, column in unsure.points:
        background[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5] = True
    again = prepare_context(
        compute_features(frame, probability), context.mask, background
    )
    for segment in again.missing:
        assert not background[tuple(segment.points.T)].any()


def test_an_empty_frame_asks_for_nothing():
    context = prepare_context(
        compute_features(np.zeros((64, 64), np.uint8)), np.zeros((64, 64), np.uint8)
    )
    assert context.uncertain == []
    assert context.gaps == []
    for propose in (
        propose_branch,
        propose_removal,
        propose_bridge,
        propose_run_removal,
    ):
        assert propose(context, (30.0, 30.0)) is None
