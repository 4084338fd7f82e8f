"""Which patches are hidden, and the loss at them."""

from __future__ import annotations

import pytest
import torch

from napari_cmunet.pretraining.patch_masking import (
    from_patches,
    patch_mask,
    patch_statistics,
    reconstruction_loss,
    to_patches,
    to_pixels,
    vesselness,
)


def noise(count: int = 8, patches: int = 64) -> torch.Tensor:
    return torch.rand(count, patches, generator=torch.Generator().manual_seed(0))


def test_every_frame_has_its_own_mask_of_the_same_size():
    mask = patch_mask(noise(), (8, 8), 0.65)
    assert mask.shape == (8, 1, 8, 8)
    assert (mask.flatten(1).sum(1) == round(0.65 * 64)).all()
    assert len({tuple(m.flatten().tolist()) for m in mask}) == 8


def test_guidance_hides_vessels_more_often():
    vessels = torch.zeros(200, 1, 8, 8)
    vessels[:, :, 3] = 1
    drawn = noise(200)
    by_chance = patch_mask(drawn, (8, 8), 0.5, vessels, 0.0)[:, 0, 3].float().mean()
    guided = patch_mask(drawn, (8, 8), 0.5, vessels, 0.5)[:, 0, 3].float().mean()
    assert by_chance == pytest.approx(0.5, abs=0.05)
    assert guided > 0.9
    nothing = patch_mask(drawn, (8, 8), 0.5, 0 * vessels, 0.5)
    assert torch.equal(nothing, patch_mask(drawn, (8, 8), 0.5))


def test_patches_go_back_where_they_were():
    x = torch.randn(2, 1, 32, 48)
    patches = to_patches(x, 16)
    assert patches.shape == (2, 6, 256)
    assert torch.equal(patches[0, 0].view(16, 16), x[0, 0, :16, :16])
    assert torch.equal(patches[0, 4].view(16, 16), x[0, 0, 16:, 16:32])
    assert torch.equal(from_patches(patches, 16, (2, 3)), x)


def test_the_loss_is_0_for_normalised_patches_and_1_for_nothing():
    x = 5 + 3 * torch.randn(2, 1, 32, 32)
    mask = patch_mask(noise(2, 4), (2, 2), 0.5)
    mean, std = patch_statistics(to_patches(x, 16))
    perfect = from_patches((to_patches(x, 16) - mean) / std, 16, (2, 2))
    assert reconstruction_loss(perfect, x, mask, 16) < 1e-9
    nothing = reconstruction_loss(torch.zeros_like(x), x, mask, 16)
    assert nothing == pytest.approx(1, abs=1e-3)


def test_only_hidden_patches_count():
    x = torch.randn(1, 1, 32, 32)
    mask = patch_mask(noise(1, 4), (2, 2), 0.5)
    a = torch.randn(1, 1, 32, 32)
    b = torch.where(to_pixels(mask, 16), a, 100.0)
    assert reconstruction_loss(a, x, mask, 16) == reconstruction_loss(b, x, mask, 16)


def test_a_dark_line_is_a_vessel_and_a_bright_one_or_a_dot_is_not():
    x = torch.zeros(3, 1, 48, 48)
    x[0, :, :, 23:26] = -1
    x[1, :, :, 23:26] = 1
    x[2, :, 23:26, 23:26] = -1
    found = vesselness(x)
    middle = found[:, 0, 24, 24]
    assert middle[0] > 20 * middle[1]
    assert middle[0] > 5 * middle[2]
    assert middle[0] > 2 * found[1].max()  # beside a bright line it is darker
    assert found[0, 0, :, :10].max() < 0.01 * middle[0]
