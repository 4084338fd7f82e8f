"""Random views depend on their own key alone, and show what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cmunet.pretraining.augment import (
    ViewRange,
    disturb,
    draw,
    placement,
    sample,
    shifted,
    shifted_back,
)


def test_a_draw_does_not_depend_on_its_company():
    alone, together = draw([(0, 1, 7)], 16), draw([(0, 1, 3), (0, 1, 7)], 16)
    for name in ("uniform", "normal", "patches", "noise_seeds"):
        np.testing.assert_array_equal(
            getattr(alone, name)[0], getattr(together, name)[1]
        )
    assert not np.array_equal(together.patches[0], together.patches[1])


def test_without_zoom_a_view_is_the_frame_never_mirrored():
    frames = torch.randn(6, 1, 32, 32)
    draws = draw([(0, i) for i in range(6)])
    views = sample(frames, placement(draws, ViewRange(zoom=(1.0, 1.0)), 32, 32), 32)
    assert torch.allclose(views, frames, atol=1e-4)


def test_a_turned_view_keeps_above_what_is_above():
    column = torch.linspace(1, -1, 64)[None, None, :, None].expand(16, 1, 64, 64)
    draws, how = draw([(5, i) for i in range(16)]), ViewRange((1.2, 1.2), rotation=30)
    views = sample(column, placement(draws, how, 64, 48), 48)
    above, below = views[..., :16, 16:32].mean((1, 2, 3)), views[..., 32:, 16:32]
    assert (above > below.mean((1, 2, 3))).all()


@pytest.mark.parametrize("zoom", [1.0, 1.3, 2.0])
def test_views_smaller_than_the_frame_lie_inside_it(zoom):
    ones = torch.ones(32, 1, 64, 64)
    draws = draw([(1, i) for i in range(32)])
    how = ViewRange(zoom=(zoom, zoom))
    views = sample(ones, placement(draws, how, 64, 48), 48)
    assert views[..., 2:-2, 2:-2].min() > 0.999  # half a pixel may hang over


def test_views_larger_than_the_frame_hold_all_of_it():
    ones = torch.ones(32, 1, 64, 64)
    draws = draw([(2, i) for i in range(32)])
    theta = placement(draws, ViewRange(zoom=(0.8, 0.8)), 64, 64)
    share = sample(ones, theta, 64).mean((1, 2, 3))
    assert torch.allclose(share, torch.full_like(share, 0.64), atol=0.02)


def test_a_shifted_view_is_the_same_moved_by_whole_pixels():
    frames = torch.randn(8, 1, 64, 64)
    draws, how = draw([(3, i) for i in range(8)]), ViewRange((1.2, 1.2), shift=31)
    theta = placement(draws, how, 64, 64)
    views = sample(frames, theta, 64)
    moved = sample(frames, shifted(theta, draws, how, 64), 64)
    pixels = np.round((2 * draws.uniform[:, 4:6] - 1) * 8).astype(int)
    assert np.abs(pixels).max() > 3
    for view, other, (dx, dy) in zip(views, moved, pixels, strict=True):
        rolled = torch.roll(view, (-dy, -dx), (-2, -1))[:, 8:-8, 8:-8]
        assert torch.allclose(rolled, other[:, 8:-8, 8:-8], atol=1e-3)


def test_noise_is_each_frames_own():
    x, how = torch.zeros(8, 1, 32, 32), ViewRange(noise=0.5, contrast=0.1)
    keys = [(4, i) for i in range(8)]
    all_at_once = disturb(x, draw(keys), how)
    second_half = disturb(x[4:], draw(keys[4:]), how)
    assert torch.equal(all_at_once[4:], second_half)
    spread = all_at_once.std((1, 2, 3))
    assert (spread == 0).any()
    assert 0.05 < spread.max() <= 0.55


def test_a_moved_view_is_laid_back_over_the_view():
    frames = torch.randn(8, 1, 64, 64)
    draws, how = draw([(3, i) for i in range(8)]), ViewRange((1.2, 1.2), shift=31)
    theta = placement(draws, how, 64, 64)
    views = sample(frames, theta, 64)
    moved = sample(frames, shifted(theta, draws, how, 64), 64)
    back, seen = shifted_back(moved, draws, how)
    assert torch.allclose(back * seen, views * seen, atol=1e-3)
    pixels = np.round((2 * draws.uniform[:, 4:6] - 1) * 8)
    share = np.prod(1 - np.abs(pixels) / 64, 1)
    np.testing.assert_allclose(seen.mean((1, 2, 3)), share, rtol=1e-5)
