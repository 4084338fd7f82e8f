"""Random views depend on their own key alone, and show what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cmunet.pretraining.augment import (
    DEPTH,
    copy_paste_pairs,
    draw,
    jitter_intensity,
    paste_arteries,
    shift_affine,
    unshift_maps,
    view_affine,
    warp,
)
from napari_cmunet.training.augment import NO_AUGMENTATION


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
    views = warp(frames, view_affine(draws, NO_AUGMENTATION, 32, 32), 32)
    assert torch.allclose(views, frames, atol=1e-4)


def test_a_turned_view_keeps_above_what_is_above():
    column = torch.linspace(1, -1, 64)[None, None, :, None].expand(16, 1, 64, 64)
    draws, how = (
        draw([(5, i) for i in range(16)]),
        replace(NO_AUGMENTATION, zoom=(1.2, 1.2), rotation=30),
    )
    views = warp(column, view_affine(draws, how, 64, 48), 48)
    above, below = views[..., :16, 16:32].mean((1, 2, 3)), views[..., 32:, 16:32]
    assert (above > below.mean((1, 2, 3))).all()


@pytest.mark.parametrize("zoom", [1.0, 1.3, 2.0])
def test_views_smaller_than_the_frame_lie_inside_it(zoom):
    ones = torch.ones(32, 1, 64, 64)
    draws = draw([(1, i) for i in range(32)])
    how = replace(NO_AUGMENTATION, zoom=(zoom, zoom))
    views = warp(ones, view_affine(draws, how, 64, 48), 48)
    assert views[..., 2:-2, 2:-2].min() > 0.999  # half a pixel may hang over


def test_views_larger_than_the_frame_hold_all_of_it():
    ones = torch.ones(32, 1, 64, 64)
    draws = draw([(2, i) for i in range(32)])
    theta = view_affine(draws, replace(NO_AUGMENTATION, zoom=(0.8, 0.8)), 64, 64)
    share = warp(ones, theta, 64).mean((1, 2, 3))
    assert torch.allclose(share, torch.full_like(share, 0.64), atol=0.02)


def test_a_shifted_view_is_the_same_moved_by_whole_pixels():
    frames = torch.randn(8, 1, 64, 64)
    draws = draw([(3, i) for i in range(8)])
    how = replace(NO_AUGMENTATION, zoom=(1.2, 1.2))
    theta = view_affine(draws, how, 64, 64)
    views = warp(frames, theta, 64)
    moved = warp(frames, shift_affine(theta, draws, 31, 64), 64)
    pixels = np.round((2 * draws.uniform[:, 4:6] - 1) * 8).astype(int)
    assert np.abs(pixels).max() > 3
    for view, other, (dx, dy) in zip(views, moved, pixels, strict=True):
        rolled = torch.roll(view, (-dy, -dx), (-2, -1))[:, 8:-8, 8:-8]
        assert torch.allclose(rolled, other[:, 8:-8, 8:-8], atol=1e-3)


def test_noise_is_each_frames_own():
    x, how = (
        torch.zeros(8, 1, 32, 32),
        replace(NO_AUGMENTATION, noise=0.5, contrast=0.1),
    )
    keys = [(4, i) for i in range(8)]
    all_at_once = jitter_intensity(x, draw(keys), how)
    second_half = jitter_intensity(x[4:], draw(keys[4:]), how)
    assert torch.equal(all_at_once[4:], second_half)
    spread = all_at_once.std((1, 2, 3))
    assert (spread == 0).any()
    assert 0.05 < spread.max() <= 0.55


def test_a_moved_view_is_laid_back_over_the_view():
    frames = torch.randn(8, 1, 64, 64)
    draws = draw([(3, i) for i in range(8)])
    how = replace(NO_AUGMENTATION, zoom=(1.2, 1.2))
    theta = view_affine(draws, how, 64, 64)
    views = warp(frames, theta, 64)
    moved = warp(frames, shift_affine(theta, draws, 31, 64), 64)
    back, seen = unshift_maps(moved, draws, 31)
    assert torch.allclose(back * seen, views * seen, atol=1e-3)
    pixels = np.round((2 * draws.uniform[:, 4:6] - 1) * 8)
    share = np.prod(1 - np.abs(pixels) / 64, 1)
    np.testing.assert_allclose(seen.mean((1, 2, 3)), share, rtol=1e-5)


def test_wide_arteries_are_darker_than_thin_ones_and_the_rest_stays():
    frame = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    tree = torch.zeros_like(frame)
    tree[..., 10:24, :] = 1
    tree[..., 40:42, :] = 1
    faint, dark = (
        (frame - paste_arteries(frame, tree, torch.tensor([chance])))[0, 0, :, 32]
        for chance in (0.0, 1.0)
    )
    assert faint[17].item() == pytest.approx(DEPTH[0], rel=1e-4)
    assert dark[17].item() == pytest.approx(DEPTH[1], rel=1e-4)
    for drop in (faint, dark):
        assert 0.3 < drop[40] / drop[17] < 0.7
        assert drop[10] < 0.9 * drop[17]
        assert not drop[28:38].any()


@pytest.mark.parametrize("frames", [4, 8, 12])
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_processes_compose_what_one_would(share, frames):
    whole = copy_paste_pairs(share, slice(0, 8), 8, frames)
    assert len(whole.phantoms) == 8 * share
    found = []
    for rank in range(4):
        part = copy_paste_pairs(share, slice(2 * rank, 2 * rank + 2), 8, frames)
        assert (part.frames < frames // 4).all()
        found += list(
            zip(part.phantoms + 2 * rank, part.frames + rank * frames // 4, strict=True)
        )
    assert found == list(zip(*whole, strict=True))


@pytest.mark.parametrize(("share", "of"), [(0.05, 8), (0.3, 8), (0.4, 2), (0.7, 8)])
def test_a_share_that_is_no_part_of_a_batch_is_met_over_the_steps(share, of):
    counts = [
        len(copy_paste_pairs(share, slice(0, of), of, 8, step).phantoms)
        for step in range(100)
    ]
    assert sum(counts) == pytest.approx(100 * of * share, abs=1)
    assert max(counts) - min(counts) <= 1


def test_none_are_composed_without_a_share():
    assert not np.size(copy_paste_pairs(0.0, slice(0, 8), 8, 8).phantoms)
