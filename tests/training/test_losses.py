"""Losses: 0 when perfect, blind to what nobody reviewed, never without a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_cmunet.model.network import artery_logit
from napari_cmunet.training.losses import (
    cross_entropy_loss,
    dice_loss,
    segmentation_loss,
    skeleton_recall_loss,
)

CERTAIN = 40.0


def label(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A target (2, 1, 64, 64) and something thin inside it."""
    noise = gaussian_filter(
        np.random.default_rng(seed).standard_normal((2, 1, 64, 64)), (0, 0, 3, 3)
    )
    target, centre = noise > 0.8 * noise.std(), noise > 1.6 * noise.std()
    return torch.from_numpy(target).float(), torch.from_numpy(centre).float()


def reviewed_share(share: float) -> torch.Tensor:
    n = round(share * 2 * 64 * 64)
    flat = torch.zeros(2 * 64 * 64)
    flat[torch.from_numpy(np.random.default_rng(1).permutation(flat.numel())[:n])] = 1
    return flat.view(2, 1, 64, 64)


def two_class(logit: torch.Tensor) -> torch.Tensor:
    return torch.cat([-logit / 2, logit / 2], 1)


@pytest.mark.parametrize("share", [0.001, 0.02, 1.0])
def test_perfect_and_certain_costs_nothing(share):
    target, centre = label()
    perfect = two_class((2 * target - 1) * CERTAIN)
    loss = segmentation_loss(perfect, target, reviewed_share(share), centre)
    assert float(loss) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("share", [0.02, 1.0])
def test_shares_of_a_pixel_are_perfect_when_they_are_predicted(share):
    target, centre = label()
    target = torch.nn.functional.avg_pool2d(target, 3, 1, 1)  # as at a border
    reviewed = reviewed_share(share)
    logit = torch.logit(target, 1e-7)

    def loss(of: torch.Tensor) -> float:
        return float(segmentation_loss(two_class(of), target, reviewed, centre))

    assert loss(logit) == pytest.approx(0, abs=1e-4)
    # Too wide, too narrow, or as sure at the border as within.
    for wrong in (logit + 1, logit - 1, 40 * torch.sign(target - 0.5)):
        assert loss(wrong) > 0.01


@pytest.mark.parametrize("share", [0.001, 0.02, 1.0])
def test_wrong_everywhere_costs_a_lot(share):
    target, centre = label()
    wrong = two_class((1 - 2 * target) * CERTAIN)
    loss = segmentation_loss(wrong, target, reviewed_share(share), centre)
    assert float(loss) > 10


def test_unreviewed_pixels_have_exactly_no_gradient():
    target, centre = label()
    reviewed = reviewed_share(0.3)
    logits = torch.randn(2, 2, 64, 64, generator=torch.manual_seed(0))
    logits.requires_grad_()
    segmentation_loss(logits, target, reviewed, centre).backward()
    outside = (reviewed == 0).expand_as(logits)
    assert (logits.grad[outside] == 0).all()
    assert (logits.grad[~outside] != 0).all()


def test_unreviewed_labels_and_predictions_do_not_enter_the_value():
    target, centre = label()
    reviewed = reviewed_share(0.3)
    logits = torch.randn(2, 2, 64, 64, generator=torch.manual_seed(0))
    known = segmentation_loss(logits, target, reviewed, centre)
    other = torch.where(reviewed > 0, target, 1 - target)
    elsewhere = torch.where(reviewed > 0, logits, -3 * logits)
    line = torch.where(reviewed > 0, centre, 1 - centre)
    assert torch.equal(segmentation_loss(elsewhere, other, reviewed, line), known)


def test_an_all_background_label_is_learnt_from():
    empty = torch.zeros(2, 1, 64, 64)
    logits = torch.zeros(2, 2, 64, 64, requires_grad=True)
    loss = segmentation_loss(logits, empty, torch.ones_like(empty), empty)
    loss.backward()
    assert torch.isfinite(loss)
    # Every pixel is pushed towards background.
    assert (logits.grad[:, 1] > 0).all()
    assert (logits.grad[:, 0] < 0).all()
    sure = two_class(torch.full_like(empty, -CERTAIN))
    nothing = segmentation_loss(sure, empty, torch.ones_like(empty), empty)
    assert float(nothing) == pytest.approx(0, abs=1e-5)


def test_nothing_reviewed_is_nothing_lost():
    target, centre = label()
    logits = torch.randn(2, 2, 64, 64, requires_grad=True)
    loss = segmentation_loss(logits, target, torch.zeros_like(target), centre)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (logits.grad == 0).all()


def test_the_gradient_points_the_right_way():
    target, centre = label()
    logits = torch.zeros(2, 2, 64, 64, requires_grad=True)
    segmentation_loss(logits, target, torch.ones_like(target), centre).backward()
    artery = target[:, 0] > 0
    assert (logits.grad[:, 1][artery] < 0).all()
    assert (logits.grad[:, 1][~artery] > 0).all()


def test_dice_loss_by_hand():
    p = torch.tensor([1.0, 0.5, 0.0, 1.0]).view(1, 1, 2, 2)
    t = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    everywhere = torch.ones_like(t)
    assert float(dice_loss(p, t, everywhere)) == pytest.approx(1 - 3.5 / 5)
    but_the_last = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    assert float(dice_loss(p, t, but_the_last)) == pytest.approx(1 - 3.5 / 4)


def test_cross_entropy_is_a_mean_over_reviewed_pixels():
    logit = torch.tensor([0.0, 3.0]).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    both = cross_entropy_loss(logit, target, torch.ones_like(target))
    assert float(both) == pytest.approx((np.log(2) + 3 + np.log1p(np.exp(-3))) / 2)
    first = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert float(cross_entropy_loss(logit, target, first)) == pytest.approx(np.log(2))


def test_skeleton_recall_sees_the_centreline_alone():
    centre = torch.zeros(1, 1, 8, 8)
    centre[..., 4, :] = 1
    everywhere = torch.ones_like(centre)
    fat = torch.ones_like(centre)
    found = skeleton_recall_loss(fat, centre, centre, everywhere)
    assert float(found) == pytest.approx(0)
    half = centre.clone()
    half[..., 4:] = 0
    found = skeleton_recall_loss(half, centre, centre, everywhere)
    assert float(found) == pytest.approx(1 - 4.5 / 8.5)


def test_the_skeleton_weight_can_be_nothing():
    target, centre = label()
    logits = torch.randn(2, 2, 64, 64)
    everywhere = torch.ones_like(target)
    plain = segmentation_loss(logits, target, everywhere, centre, skeleton_weight=0)
    with_line = segmentation_loss(logits, target, everywhere, centre)
    p = torch.sigmoid(artery_logit(logits))
    extra = 0.5 * skeleton_recall_loss(p, target, centre, everywhere)
    torch.testing.assert_close(with_line, plain + extra)


def test_half_precision_logits_give_a_full_precision_loss():
    target, centre = label()
    logits = torch.randn(2, 2, 64, 64).bfloat16()
    loss = segmentation_loss(logits, target, torch.ones_like(target), centre)
    assert loss.dtype == torch.float32
    assert artery_logit(logits).shape == (2, 1, 64, 64)
