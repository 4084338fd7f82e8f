"""The simulated reader on small phantoms: it ends with a right mask, and it counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from benchmarks.simulated_reader import Action, Hand, correct
from benchmarks.simulated_reader.errors import Truth
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.vessels.edits import remove_branches
from napari_cmunet.vessels.tree import build_tree
from napari_cmunet.vessels.vesselness import compute_features


@pytest.fixture(scope="module")
def case():
    """A phantom, and a mask that lacks a branch and holds a wire."""
    frame, truth = make_frame(PhantomConfig(size=256, seed=3, side="left"))
    tree = build_tree(truth)
    fit = [b for b in tree.branches if 1 <= b.radius < 4]
    edit = remove_branches(tree, [max(fit, key=lambda b: b.length)])
    mask = truth.copy()
    edit.apply(mask)
    mask[20:110, 244:247] = True
    return compute_features(frame), truth, mask


def test_a_right_mask_costs_one_look(case):
    features, truth, _ = case
    made = correct(features, truth, truth)
    hand = Hand()
    assert made.tally.seconds == pytest.approx(hand.think + hand.key)
    assert made.tally.strokes == made.tally.clicks == made.left == 0
    assert made.dice == 1


def test_the_brush_alone_gets_there(case):
    features, truth, mask = case
    made = correct(features, mask, truth)
    assert made.tally.strokes >= 2
    assert made.tally.clicks == 0
    # What is within 1.5 pixels of a border is right enough.
    assert made.dice > 0.9
    assert Truth(truth).burden(made.mask) < 0.2 * Truth(truth).burden(mask)


def test_tools_get_there_in_less_time(case):
    features, truth, mask = case
    brush = correct(features, mask, truth)
    tools = correct(features, mask, truth, list(Action))
    assert tools.tally.seconds < 0.8 * brush.tally.seconds
    assert tools.tally.clicks > 0
    assert tools.dice > brush.dice - 0.03


def test_the_same_seed_gives_the_same_figures(case):
    features, truth, mask = case
    first, second = (correct(features, mask, truth, seed=4) for _ in range(2))
    assert first.tally == second.tally
    assert (first.mask == second.mask).all()


def test_borders_within_the_tolerance_are_no_errors(case):
    _, truth, _ = case
    asked = Truth(truth)
    assert asked.errors(binary_dilation(truth)) == []
    assert asked.errors(binary_dilation(truth, iterations=4))


def test_missing_and_superfluous_are_told_apart(case):
    _, truth, mask = case
    errors = Truth(truth).errors(mask)
    assert {error.missing for error in errors} == {True, False}
    wire = max((e for e in errors if not e.missing), key=lambda e: e.length)
    assert wire.length > 60
    assert np.abs(wire.line[:, 1] - 245).max() <= 1


def test_painting_is_slower_where_the_margin_is_thin():
    hand = Hand()
    assert hand.paint_speed(1.5, 512) == hand.slowest / 2
    assert hand.paint_speed(6.0, 512) > hand.paint_speed(1.5, 512)
    assert hand.paint_speed(500.0, 512) == hand.fastest / 2
