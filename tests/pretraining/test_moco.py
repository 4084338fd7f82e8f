"""The contrastive loss, and the networks that it is between."""

from __future__ import annotations

import math

import pytest
import torch

from napari_cmunet.model.network import CMUNet
from napari_cmunet.pretraining.moco import PretrainNetworks, info_nce


def test_the_own_target_is_told_from_the_others():
    targets = torch.eye(4)
    own, groups = torch.arange(4), torch.arange(4)
    loss, accuracy = info_nce(targets, targets, own, groups, 0.07)
    assert (loss < 1e-4, accuracy) == (True, 1)
    loss, _ = info_nce(torch.ones(4, 4), targets, own, groups, 0.07)
    assert loss == pytest.approx(math.log(4), abs=1e-5)


def test_frames_of_one_cine_are_no_negatives():
    targets = torch.ones(3, 4)
    loss, _ = info_nce(targets, targets, torch.arange(3), torch.tensor([0, 0, 1]), 0.07)
    # Two of the three choose between two, the third between three.
    assert loss == pytest.approx((2 * math.log(2) + math.log(3)) / 3, abs=1e-5)


def test_a_part_of_the_batch_finds_its_own_among_all():
    targets = torch.eye(4)
    loss, accuracy = info_nce(
        targets[2:], targets, torch.tensor([2, 3]), torch.arange(4), 0.07
    )
    assert (loss < 1e-4, accuracy) == (True, 1)


def test_the_target_follows_and_takes_no_gradient():
    networks = PretrainNetworks(2)
    before = networks.target_projector[0].weight.clone()
    x = torch.randn(2, 1, 32, 32)
    pixels, embedding, _ = networks.online(x)
    assert pixels.shape == x.shape
    (pixels.square().mean() + embedding.square().mean()).backward()
    described, logit = networks.target(x, segments=True)
    assert described.grad_fn is None
    assert logit.shape == x.shape
    assert logit.grad_fn is None
    assert all(
        p.grad is None
        for name, p in networks.named_parameters()
        if name.startswith("target")
    )
    assert networks.network.up_conv1.double_conv.double_conv[0].weight.grad is not None
    with torch.no_grad():
        networks.projector[0].weight += 1
    networks.follow(0.9)
    moved = networks.target_projector[0].weight - before
    assert torch.allclose(moved, torch.full_like(moved, 0.1), atol=1e-6)


def test_biases_that_a_normalisation_undoes_stay_at_0():
    networks = PretrainNetworks(2)
    block = networks.network.down_conv1.double_conv.double_conv
    assert not block[0].bias.requires_grad
    assert not block[0].bias.any()
    assert networks.network.up_conv1.up_sample.bias.requires_grad
    assert not networks.network.conv_last.weight.requires_grad
    assert PretrainNetworks(2, segments=True).network.conv_last.weight.requires_grad


def test_it_can_begin_with_the_weights_of_a_model():
    model = CMUNet(2)
    networks = PretrainNetworks(2, segments=True, start=model)
    for own in (networks.network, networks.target_network):
        assert torch.equal(own.conv_last.weight, model.conv_last.weight)
        first = own.down_conv1.double_conv.double_conv[0]
        assert torch.equal(
            first.weight, model.down_conv1.double_conv.double_conv[0].weight
        )
