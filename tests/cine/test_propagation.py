from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import shift

from napari_cmunet.cine.propagation import Changes, propagate_changes
from napari_cmunet.synthetic import PhantomConfig, make_cine
from napari_cmunet.vessels.tree import build_tree


@pytest.fixture(scope="module")
def filled():
    """A frame full of contrast, and its mask."""
    cine = make_cine(PhantomConfig(frames=8, size=256, seed=5))
    return cine.frames[-1], cine.masks[-1]


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def propagated(mask, *frames):
    """The mask in the last frame."""
    changes = Changes(mask, np.zeros_like(mask))
    *_, (_, moved) = propagate_changes(changes, frames.__getitem__, range(len(frames)))
    return moved.added


@pytest.mark.slow
def test_a_mask_follows_a_shifted_frame(filled):
    frame, mask = filled
    moved = shift(frame, (3, -4), order=1, mode="nearest")
    truth = shift(mask.astype(float), (3, -4), order=0) > 0.5
    assert dice(mask, truth) < 0.75
    assert dice(propagated(mask, frame, moved), truth) > 0.9


@pytest.mark.slow
def test_a_mask_follows_the_beating_heart():
    cine = make_cine(PhantomConfig(frames=20, size=256, seed=102, fps=10))
    copied, carried = [], []
    for index in range(12, 17):
        mask, truth = cine.masks[index], cine.masks[index + 1]
        copied.append(dice(mask, truth))
        moved = propagated(mask, cine.frames[index], cine.frames[index + 1])
        assert moved.dtype == bool
        carried.append(dice(moved, truth))
    assert np.mean(carried) > np.mean(copied) + 0.05


@pytest.mark.slow
def test_large_frames_are_carried_on_their_own_grid():
    cine = make_cine(PhantomConfig(frames=2, size=384, seed=5))
    moved = propagated(cine.masks[1], cine.frames[1], cine.frames[1])
    assert moved.shape == (384, 384)
    assert dice(moved, cine.masks[1]) > 0.97 or not cine.masks[1].any()


@pytest.mark.slow
def test_a_mask_is_carried_over_the_frames_between(filled):
    frame, mask = filled
    # Three pixels a frame, as a beating heart does it, are too many at once later on.
    way = [shift(frame, (0, 3 * n), order=1, mode="nearest") for n in range(4)]
    truth = shift(mask.astype(float), (0, 9), order=0) > 0.5
    assert dice(propagated(mask, *way), truth) > 0.85


@pytest.mark.slow
def test_changes_follow_the_vessels_and_stop_where_the_frames_do_not_match(filled):
    frame, mask = filled
    frames = [shift(frame, (0, 2 * n), order=1, mode="nearest") for n in range(4)]
    frames += [np.random.default_rng(0).normal(frame.mean(), 20, frame.shape)] * 2
    tree = build_tree(mask)
    branch = max(tree.branches, key=lambda b: b.length)
    added = np.zeros_like(mask)
    added[tree.pixels(branch)] = True
    changes = Changes(added, np.zeros_like(added))
    found = dict(propagate_changes(changes, lambda n: frames[n], range(6)))
    assert sorted(found) == [1, 2, 3]
    for number, moved in found.items():
        truth = shift(added.astype(float), (0, 2 * number), order=0) > 0.5
        assert dice(moved.added, truth) > 0.8
        assert not moved.removed.any()
        assert moved.confidence > 0.8


def test_a_removed_branch_goes_whole_and_an_added_one_stays():
    mask = np.zeros((80, 80), bool)
    mask[20:24, 5:75] = True  # a wire, longer in this frame
    mask[50:56, 5:75] = True
    removed, added = np.zeros_like(mask), np.zeros_like(mask)
    removed[20:24, 5:60] = True
    added[56:70, 40:43] = True
    after = Changes(added, removed).apply(mask)
    assert not after[:40].any()
    assert after[50:56, 5:75].all()
    assert after[added].all()
