"""Augmentation: maps stay on their frames, nothing is sheared, seeds decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_cmunet.training.augment import Augmentation, augment

# Geometry alone: grey values as they are, no smooth bending.
RIGID = Augmentation(elastic=0, contrast=0, brightness=0, noise=0, blur=0)


def smooth(seed: int, n: int = 4, side: int = 64) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((n, 1, side, side))
    x = gaussian_filter(noise, (0, 0, 4, 4))
    return torch.from_numpy(x / x.std()).float()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("how", [RIGID, replace(RIGID, elastic=0.02)])
def test_maps_stay_aligned_with_their_frames(how):
    x = smooth(0)
    label = (x > 0).float()
    frames, maps = augment(x, torch.cat([label, x.clamp(0, 1)], 1), how, generator(1))
    seen = augment(x, torch.ones_like(x), how, generator(1))[1] > 0.999
    # A map that copies the frame is moved as the frame is, and so is its threshold.
    agree = ((frames > 0) == (maps[:, :1] > 0.5))[seen]
    assert float(agree.float().mean()) > 0.97
    assert (frames.clamp(0, 1) - maps[:, 1:]).abs()[seen].max() < 0.25
    assert (frames.clamp(0, 1) - maps[:, 1:]).abs()[seen].mean() < 0.01
    assert not torch.allclose(frames, x, atol=0.1)


def test_same_seed_same_views():
    x = smooth(0)
    one = augment(x, x.clamp(0, 1), Augmentation(), generator(5))
    two = augment(x, x.clamp(0, 1), Augmentation(), generator(5))
    other = augment(x, x.clamp(0, 1), Augmentation(), generator(6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_each_frame_of_a_batch_gets_its_own_view():
    x = smooth(0, n=1).expand(6, -1, -1, -1)
    views, _ = augment(x, x, RIGID, generator(0))
    for i in range(5):
        assert (views[i] - views[i + 1]).abs().mean() > 0.05


def test_outside_the_frame_nothing_is_reviewed():
    x = smooth(0)
    how = replace(RIGID, shift=0.5, zoom=(0.5, 0.5))
    _, maps = augment(x, torch.ones_like(x), how, generator(0))
    assert 0.1 < float(maps.mean()) < 0.9
    assert maps.min() == 0
    assert maps.max() <= 1


@pytest.mark.parametrize("mirror", [False, True])
def test_no_augmentation_is_the_frame_and_mirrored_on_request(mirror):
    still = replace(RIGID, rotation=0, zoom=(1, 1), shift=0, mirror=mirror)
    x = smooth(3, n=8)
    views, _ = augment(x, x, still, generator(0))
    ways = ((), (1,), (2,), (1, 2))
    used = set()
    for frame, view in zip(x, views, strict=True):
        gaps = {d: float((torch.flip(frame, d) - view).abs().mean()) for d in ways}
        best = min(gaps, key=gaps.__getitem__)
        used.add(best)
        # The sides may be stretched by ten per cent, so not exactly.
        assert gaps[best] < 0.6 * min(g for d, g in gaps.items() if d != best)
    assert len(used) > 2 if mirror else used == {()}


def test_mirrored_views_are_not_sheared():
    """Two perpendicular lines through the middle stay perpendicular, or nearly so.

    Stretching the sides by up to e^0.1 and 1/e^0.1 turns a right angle by at most
    atan(e^0.2 - e^-0.2 over 2) = 11.4 degrees.
    """
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij"
    )
    across = (rows.abs() < 0.04).float()
    along = (columns.abs() < 0.04).float()
    n = 32
    maps = torch.stack([across, along])[None].expand(n, -1, -1, -1)
    how = replace(RIGID, shift=0, rotation=30, mirror=True)
    _, views = augment(torch.zeros(n, 1, 96, 96), maps, how, generator(0))
    for one, two in views:
        angles = [direction(line) for line in (one, two)]
        between = np.degrees(abs(angles[0] - angles[1])) % 180
        assert 90 - 12 < between < 90 + 12
        # And neither line is more magnified than zoom and stretch together allow.
        for line in (one, two):
            assert 0.7 / 1.2 < float(line.mean() / across.mean()) < 1.5 * 1.2


def direction(line: torch.Tensor) -> float:
    """Angle of the main axis of a map, in radians."""
    rows, columns = np.nonzero(line.numpy() > 0.5)
    matrix = np.cov(columns, rows)
    _, vectors = np.linalg.eigh(matrix)
    x, y = vectors[:, -1]
    return float(np.arctan2(y, x))


def test_a_crop_shows_a_part_as_large_as_it_is():
    """A ramp's slope, in grey values a pixel, says the scale; its middle, the place."""
    ramp = torch.arange(96.0).expand(64, 1, 96, 96)
    still = replace(RIGID, rotation=0, zoom=(1, 1), shift=0)
    views, maps = augment(ramp, torch.ones_like(ramp), still, generator(0), 48)
    assert views.shape == (64, 1, 48, 48)
    assert maps[..., 3:-3, 3:-3].min() > 0.99
    slopes = (views[:, 0, 24, 34] - views[:, 0, 24, 14]) / 20
    assert ((slopes > 0.88) & (slopes < 1.12)).all()  # stretched by e^0.1 at most
    middles = views[:, 0, 24, 24]
    assert middles.min() < 30
    assert middles.max() > 66


def test_stored_types_are_taken():
    x = smooth(0)
    frames, maps = augment(x.half(), (x > 0).to(torch.uint8), RIGID, generator(0))
    assert frames.dtype == maps.dtype == torch.float32


def test_grey_values_change_by_what_is_asked():
    still = replace(RIGID, rotation=0, zoom=(1, 1), shift=0)
    x = torch.zeros(64, 1, 32, 32)
    bright, _ = augment(x, x, replace(still, brightness=0.5), generator(0))
    per_view = bright[:, 0, 16, 16]
    assert 0.3 < float(per_view.std()) < 0.7
    noisy, _ = augment(x, x, replace(still, noise=0.4), generator(0))
    spread = noisy.std((1, 2, 3))
    assert float(spread.max()) <= 0.45
    assert float((spread < 1e-6).float().mean()) > 0.3  # some views are left alone
