"""The network against the paper's description, written out a second time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_cmunet.model.network import CMUNet, flop_count, parameter_count

LEVELS = (1, 2, 3, 4)


def written_out(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """CM-UNet with functions alone: four levels down, a bottleneck, four up.

    Each level is (3x3 convolution, BatchNorm, ReLU) twice; 2x2 max pooling down,
    2x2 transposed convolution of stride 2 up, skips concatenated, 1x1 at the end.
    """

    def conv_bn_relu(x, name, conv):
        x = F.conv2d(x, p[f"{name}.{conv}.weight"], p[f"{name}.{conv}.bias"], padding=1)
        bn = f"{name}.{conv + 1}"
        x = (x - p[f"{bn}.running_mean"].view(1, -1, 1, 1)) / torch.sqrt(
            p[f"{bn}.running_var"].view(1, -1, 1, 1) + 1e-5
        )
        x = x * p[f"{bn}.weight"].view(1, -1, 1, 1) + p[f"{bn}.bias"].view(1, -1, 1, 1)
        return x.clamp_min(0)

    def double(x, name):
        return conv_bn_relu(conv_bn_relu(x, name, 0), name, 3)

    skips = {}
    for level in LEVELS:
        skips[level] = double(x, f"down_conv{level}.double_conv.double_conv")
        x = F.max_pool2d(skips[level], 2)
    x = double(x, "double_conv.double_conv")
    for level in reversed(LEVELS):
        up = f"up_conv{level}.up_sample"
        x = F.conv_transpose2d(x, p[f"{up}.weight"], p[f"{up}.bias"], stride=2)
        x = torch.cat([x, skips[level]], 1)
        x = double(x, f"up_conv{level}.double_conv.double_conv")
    return F.conv2d(x, p["conv_last.weight"], p["conv_last.bias"])


def with_statistics(width: int) -> CMUNet:
    """A network of lively activations whose BatchNorms do something."""
    torch.manual_seed(width)
    network = CMUNet(width).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return network


@pytest.mark.parametrize(
    ("width", "height", "width_px"), [(64, 32, 48), (8, 64, 32), (3, 16, 16)]
)
@torch.inference_mode()
def test_same_logits_as_the_description(width, height, width_px):
    network = with_statistics(width)
    x = torch.randn(2, 1, height, width_px)
    expected = written_out(dict(network.state_dict()), x)
    logits = network(x)
    assert logits.shape == (2, 2, height, width_px)
    assert logits.std() > 0.1
    torch.testing.assert_close(
        logits, expected, rtol=1e-3, atol=1e-4 * float(logits.std())
    )


def test_published_parameter_count():
    with torch.device("meta"):
        assert parameter_count(CMUNet(64)) == 31_042_434


def test_published_parameter_names_and_shapes():
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in CMUNet(64).state_dict().items()}
    doubles = {
        **{
            f"down_conv{n}.double_conv": (64 * 2**n // 4, 64 * 2**n // 2)
            for n in LEVELS
        },
        "double_conv": (512, 1024),
        **{f"up_conv{n}.double_conv": (64 * 2**n, 64 * 2**n // 2) for n in LEVELS},
    }
    doubles["down_conv1.double_conv"] = (1, 64)
    expected = {}
    for name, (before, after) in doubles.items():
        for conv, channels in ((0, before), (3, after)):
            key = f"{name}.double_conv.{conv}"
            expected[f"{key}.weight"] = (after, channels, 3, 3)
            expected[f"{key}.bias"] = (after,)
            norm = f"{name}.double_conv.{conv + 1}"
            for part in ("weight", "bias", "running_mean", "running_var"):
                expected[f"{norm}.{part}"] = (after,)
            expected[f"{norm}.num_batches_tracked"] = ()
    for n in LEVELS:
        expected[f"up_conv{n}.up_sample.weight"] = (64 * 2**n, 64 * 2**n // 2, 2, 2)
        expected[f"up_conv{n}.up_sample.bias"] = (64 * 2**n // 2,)
    expected["conv_last.weight"], expected["conv_last.bias"] = (2, 64, 1, 1), (2,)
    assert shapes == expected
    assert len(shapes) == 136


def test_encode_and_decode_are_the_forward_pass():
    network = with_statistics(4)
    x = torch.randn(1, 1, 32, 32)
    latent, skips = network.encode(x)
    assert latent.shape == (1, 64, 2, 2)
    assert [tuple(s.shape[1:]) for s in skips] == [
        (4, 32, 32),
        (8, 16, 16),
        (16, 8, 8),
        (32, 4, 4),
    ]
    features = network.decode(latent, skips)
    assert features.shape == (1, 4, 32, 32)
    assert torch.equal(network.conv_last(features), network(x))


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 32, 32), (1, 1, 32, 40)])
def test_wrong_input_is_refused_with_the_shape(shape):
    with pytest.raises(ValueError, match=str(shape[-1])):
        CMUNet(2)(torch.zeros(shape))


def test_flop_count_is_the_published_one():
    assert flop_count(64, 256, 256) == pytest.approx(96.2e9, rel=1e-3)


def test_flop_count_agrees_with_torch():
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        CMUNet(8)(torch.zeros(1, 1, 48, 32))
    assert flop_count(8, 48, 32) == counter.get_total_flops()
