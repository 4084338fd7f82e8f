from __future__ import annotations

import numpy as np
from scipy.ndimage import shift

from napari_cmunet.cine.propagation import propagate_mask
from napari_cmunet.synthetic import PhantomConfig, make_cine


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_a_mask_follows_a_shifted_frame():
    cine = make_cine(PhantomConfig(frames=8, size=256, seed=5))
    frame, mask = cine.frames[-1], cine.masks[-1]
    moved = shift(frame, (3, -4), order=1, mode="nearest")
    truth = shift(mask.astype(float), (3, -4), order=0) > 0.5
    assert dice(mask, truth) < 0.75
    assert dice(propagate_mask(mask, frame, moved), truth) > 0.9


def test_a_mask_follows_the_beating_heart():
    cine = make_cine(PhantomConfig(frames=20, size=256, seed=102, fps=10))
    copied, carried = [], []
    for index in range(12, 17):
        mask, truth = cine.masks[index], cine.masks[index + 1]
        copied.append(dice(mask, truth))
        moved = propagate_mask(mask, cine.frames[index], cine.frames[index + 1])
        assert moved.dtype == bool
        carried.append(dice(moved, truth))
    assert np.mean(carried) > np.mean(copied) + 0.05


def test_large_frames_are_carried_on_their_own_grid():
    cine = make_cine(PhantomConfig(frames=2, size=384, seed=5))
    moved = propagate_mask(cine.masks[1], cine.frames[1], cine.frames[1])
    assert moved.shape == (384, 384)
    assert dice(moved, cine.masks[1]) > 0.97 or not cine.masks[1].any()


def test_a_mask_is_carried_over_the_frames_between():
    cine = make_cine(PhantomConfig(frames=8, size=256, seed=5))
    frame, mask = cine.frames[-1], cine.masks[-1]
    # Three pixels a frame, as a beating heart does it, are too many at once later on.
    way = [shift(frame, (0, 3 * n), order=1, mode="nearest") for n in range(4)]
    truth = shift(mask.astype(float), (0, 9), order=0) > 0.5
    assert dice(propagate_mask(mask, *way), truth) > 0.85
    assert np.array_equal(propagate_mask(mask, frame), mask)
