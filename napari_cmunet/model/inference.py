"""The network as it predicts: folded, prepacked and, where it pays, in 8-bit integers.

Every network here maps standardised frames ``(B, 1, H, W)`` to the logit of artery
against background ``(B, 1, H, W)``, in one output channel.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_cmunet.model.device import fast_dtype
from napari_cmunet.model.network import CMUNet, DoubleConv
from napari_cmunet.model.quantized import PackedByShape, QuantizedCMUNet

MAX_QUANTIZATION_ERROR = 0.15
"""Greatest error of 8-bit logits on :func:`_probe`, in their standard deviations.

0.03 to 0.09 for trained networks; far above it where the running statistics of
BatchNorm do not describe the activations.
"""


def inference_network(
    network: CMUNet, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, torch.dtype]:
    """Make the fastest network that predicts as ``network`` does.

    Parameters
    ----------
    network : CMUNet
        On the CPU, in float32; left as it is.
    dtype : torch.dtype
        Of weights and activations; ``torch.int8`` on the CPU alone. Where 8 bits do
        not do for this network, the next best type is taken.

    Returns
    -------
    network : nn.Module
    dtype : torch.dtype
        Of the network and, but for ``torch.int8``, of the frames that it takes.
    """
    fused = fuse_batchnorm(network)
    fused.conv_last = _artery_conv(fused.conv_last)
    if dtype == torch.int8:
        quantized = QuantizedCMUNet(network, fused)
        if _quantization_error(quantized, fused) <= MAX_QUANTIZATION_ERROR:
            return quantized, dtype
        dtype = fast_dtype(device)
    made: Any = fused
    made = made.to(device, dtype, memory_format=torch.channels_last)
    # oneDNN packs bfloat16 only where the CPU has instructions for it.
    if device.type == "cpu" and dtype in (torch.float32, fast_dtype(device)):
        prepack_convolutions(made)
    return made, dtype


def fuse_batchnorm(network: CMUNet) -> CMUNet:
    """A copy for prediction with each BatchNorm folded into its convolution."""
    fused = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for module in fused.modules():
        if isinstance(module, DoubleConv):
            layers: list[Any] = list(module.double_conv)
            for conv in (0, 3):
                layers[conv] = fuse_conv_bn_eval(layers[conv], layers[conv + 1])
            module.double_conv = nn.Sequential(
                layers[0], layers[2], layers[3], layers[5]
            )
    return fused


class PrepackedConvReLU(nn.Module):
    """A 3x3 convolution and its ReLU as one oneDNN call, weights reordered once."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self._bias = conv.bias
        self._packed = PackedByShape(
            lambda shape: torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight, *self._geometry, shape
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        made: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._packed[x], self._bias, *self._geometry, "relu", [], None
        )
        return made


def prepack_convolutions(network: CMUNet) -> None:
    """Replace the convolutions of a fused network on the CPU, where oneDNN is there.

    Parameters
    ----------
    network : CMUNet
        As :func:`fuse_batchnorm` gives it; changed in place.
    """
    if not (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    ):
        return
    for module in network.modules():
        if isinstance(module, DoubleConv):
            first, _, second, _ = module.double_conv
            assert isinstance(first, nn.Conv2d)
            assert isinstance(second, nn.Conv2d)
            module.double_conv = nn.Sequential(
                PrepackedConvReLU(first), PrepackedConvReLU(second)
            )


def _artery_conv(last: nn.Conv2d) -> nn.Conv2d:
    """The last convolution, giving artery against background in one channel."""
    assert last.bias is not None
    conv = nn.Conv2d(last.in_channels, 1, 1).requires_grad_(False)
    conv.weight.copy_(last.weight[1:2] - last.weight[0:1])
    assert conv.bias is not None
    conv.bias.copy_(last.bias[1:2] - last.bias[0:1])
    return conv


@torch.inference_mode()
def _quantization_error(quantized: nn.Module, exact: nn.Module) -> float:
    expected = exact(_probe())
    return float((quantized(_probe()) - expected).std() / (expected.std() + 1e-9))


def _probe(side: int = 64) -> torch.Tensor:
    """A dark winding line on noise, ``(1, 1, side, side)``; always the same."""
    at = torch.linspace(-1, 1, side)
    line = torch.exp(-((at[:, None] - 0.5 * torch.sin(3 * at)) * 12).square())
    noise = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    return (0.5 * noise - 3 * line)[None, None]
