"""Thresholds: exact at every step of a byte, and shy of what a reader has set."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.model.threshold import mask_at, threshold_byte, threshold_change

RAMP = np.arange(256, dtype=np.uint8)


def test_a_probability_that_reaches_the_threshold_counts():
    for byte in range(1, 256):
        mask = mask_at(RAMP, byte / 255)
        assert mask.dtype == bool
        assert mask[byte:].all()
        assert not mask[:byte].any()


def test_half_and_the_ends():
    assert threshold_byte(0.5) == 128  # 127 of 255 is less than half
    assert threshold_byte(0) == 1  # what cannot be an artery never is
    assert threshold_byte(1) == 255
    assert threshold_byte(2) == 255
    assert mask_at(RAMP.reshape(2, 8, 16), 0.5).shape == (2, 8, 16)


def applied(mask, probability, old, new):
    mask = mask.copy()
    indices, values = threshold_change(mask, probability, old, new)
    mask[indices] = values
    return mask


@pytest.mark.parametrize(("old", "new"), [(0.5, 0.2), (0.2, 0.9), (0.4, 0.4), (0, 1)])
@pytest.mark.parametrize("shape", [(32, 32), (4, 16, 16)])
def test_an_uncorrected_mask_becomes_that_of_the_new_threshold(old, new, shape):
    probability = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mask = mask_at(probability, old).astype(np.uint8)
    changed = applied(mask, probability, old, new)
    assert np.array_equal(changed > 0, mask_at(probability, new))
    assert np.array_equal(applied(changed, probability, new, old), mask)


def test_corrections_stay():
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    mask = mask_at(probability, 0.5).astype(np.uint8)
    corrected = rng.random(mask.shape) < 0.3
    mask[corrected] = 1 - mask[corrected]
    for new in (0.1, 0.35, 0.8):
        changed = applied(mask, probability, 0.5, new)
        assert np.array_equal(changed[corrected], mask[corrected])
        expected = mask_at(probability, new)
        assert np.array_equal(changed[~corrected] > 0, expected[~corrected])


def test_only_what_changes_is_touched():
    probability = np.array([[10, 100, 140, 250]], np.uint8)
    mask = mask_at(probability, 0.5).astype(np.int32)
    indices, values = threshold_change(mask, probability, 0.5, 0.3)
    assert [list(i) for i in indices] == [[0], [1]]
    assert list(values) == [1]
    indices, values = threshold_change(mask, probability, 0.5, 0.5)
    assert len(values) == 0
