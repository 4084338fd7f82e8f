"""The network as it predicts: folded, prepacked, in 8-bit integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cmunet.model.inference import inference_network
from napari_cmunet.model.network import CMUNet, artery_logit, fuse_batchnorm
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training.evaluation.metrics import dice
from tests.model.precisions import BFLOAT16

CPU = torch.device("cpu")
vnni = pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx512_vnni"),
    reason="needs a CPU with VNNI",
)


def lively(width: int = 4) -> CMUNet:
    """A network whose BatchNorms matter."""
    torch.manual_seed(0)
    network = CMUNet(width).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return network


def trained(width: int = 16) -> CMUNet:
    """A network whose BatchNorms know its activations."""
    network = lively(width).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 1, 64, 64))
    return network.eval()


@torch.inference_mode()
def test_fused_batchnorm_is_the_same_network():
    network = lively(16)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fused = fuse_batchnorm(network)
    x = torch.randn(2, 1, 64, 48)
    expected = network(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_prepacked_network_gives_the_artery_logit(dtype):
    network = trained()
    made, kept = inference_network(network, CPU, dtype)
    assert kept == dtype
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    # Two shapes, the first again after the second.
    for shape in ((2, 1, 64, 48), (1, 1, 32, 96), (2, 1, 64, 48)):
        x = torch.randn(shape)
        expected = artery_logit(network(x))
        found = made(x.to(dtype, memory_format=torch.channels_last)).float()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@vnni
@torch.inference_mode()
def test_8_bit_network_agrees_up_to_the_border():
    network = trained()
    made, dtype = inference_network(network, CPU, torch.int8)
    assert dtype == torch.int8
    for shape in ((2, 1, 64, 48), (1, 1, 32, 96), (2, 1, 64, 48)):
        x = torch.randn(shape)
        expected = artery_logit(network(x))
        error = (made(x) - expected) / expected.std()
        assert error.std() < 0.2
        border = torch.ones(shape, dtype=torch.bool)
        border[..., 1:-1, 1:-1] = False
        assert error[border].std() < 1.5 * error[~border].std()
        assert torch.equal(made(x)[:1], made(x[:1]))


@vnni
def test_a_network_that_8_bits_do_not_suit_is_not_quantised():
    # Its running statistics say nothing about its activations.
    made, dtype = inference_network(lively(4), CPU, torch.int8)
    assert dtype in (torch.bfloat16, torch.float32)
    x = torch.zeros(1, 1, 32, 32).to(dtype, memory_format=torch.channels_last)
    assert made(x).shape == (1, 1, 32, 32)


@vnni
@pytest.mark.slow
def test_8_bits_do_not_change_the_bundled_models_masks():
    model = load_model("cmunet-artery")
    exact, fast = Predictor(model, CPU, reduced_precision=False), Predictor(model, CPU)
    assert fast.dtype == torch.int8
    assert fast.description.endswith("int8")
    changed = []
    for seed in (1, 2, 4):
        frame, artery = make_frame(PhantomConfig(size=320, seed=seed))
        masks = [mask_at(p.predict(frame), 0.7) for p in (exact, fast)]
        assert abs(np.subtract(*(dice(mask, artery) for mask in masks))) < 0.005
        changed.append(1 - dice(*masks))
        assert np.array_equal(fast.predict(frame), Predictor(model, CPU).predict(frame))
    assert np.mean(changed) < 0.01
