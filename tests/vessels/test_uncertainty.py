"""Which places are in doubt: chances, and what is not proposed again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.vessels.edit_context import look
from napari_cmunet.vessels.features import gather
from napari_cmunet.vessels.modes import Tool
from napari_cmunet.vessels.segments import FEATURES
from napari_cmunet.vessels.tools import offer
from napari_cmunet.vessels.tree import grow_tree
from napari_cmunet.vessels.uncertainty import doubt, likely_artery


@pytest.fixture(scope="module")
def guessed():
    """A phantom, its truth, and a network that is right but for a wire it invents
    and a branch of which it is not sure."""
    frame, truth = make_frame(PhantomConfig(size=256, seed=3, side="left"))
    tree = grow_tree(truth)
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
def scene(guessed):
    frame, _, probability, _, _ = guessed
    return look(gather(frame, probability), probability >= 128)


def test_every_segment_has_a_chance_and_its_numbers(scene):
    assert scene.doubtful
    for segment in scene.doubtful:
        assert segment.numbers.shape == (len(FEATURES),)
        assert np.isfinite(segment.numbers).all()
        assert 0 <= likely_artery(segment) <= 1
    doubts = [doubt(segment) for segment in scene.doubtful]
    assert doubts == sorted(doubts, reverse=True)


def test_the_invented_wire_is_less_likely_than_the_arteries(guessed, scene):
    _, truth, _, wire, _ = guessed
    in_mask = [s for s in scene.doubtful if s.in_mask and s.length > 20]
    on_wire = [likely_artery(s) for s in in_mask if wire[tuple(s.points.T)].all()]
    on_truth = [likely_artery(s) for s in in_mask if truth[tuple(s.points.T)].all()]
    assert on_wire
    assert max(on_wire) < np.median(on_truth)


def test_the_branch_below_the_threshold_is_proposed_and_one_click_adds_it(
    guessed, scene
):
    _, truth, _, _, unsure = guessed
    middle = tuple(unsure.points[len(unsure.points) // 2].astype(float))
    made = offer(Tool.ACCEPT, scene, middle)
    assert made is not None
    assert "add" in made.hint
    after = scene.mask.copy()
    made.edit.apply(after)
    missing = truth & ~scene.mask
    assert (after & missing).sum() > 0.4 * missing.sum()


def test_what_was_called_no_artery_is_not_proposed_again(guessed, scene):
    frame, _, probability, _, unsure = guessed
    background = np.zeros(scene.mask.shape, bool)
    for row, column in unsure.points:
        background[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5] = True
    again = look(gather(frame, probability), scene.mask, background)
    for segment in again.proposals:
        assert not background[tuple(segment.points.T)].any()


def test_an_empty_frame_asks_for_nothing():
    scene = look(gather(np.zeros((64, 64), np.uint8)), np.zeros((64, 64), np.uint8))
    assert scene.doubtful == []
    assert scene.gaps == []
    for tool in (Tool.ACCEPT, Tool.REMOVE, Tool.BRIDGE, Tool.NOT_ARTERY):
        assert offer(tool, scene, (30.0, 30.0)) is None
