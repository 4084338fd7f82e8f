"""The network as it predicts: folded, prepacked and, where it pays, in 8-bit integers.

Every network here maps standardised frames ``(B, 1, H, W)`` to the logit of artery
against background ``(B, 1, H, W)``, in one output channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from napari_cmunet.model.device import fast_dtype
from napari_cmunet.model.network import CMUNet, DoubleConv, artery_conv, fuse_batchnorm

if TYPE_CHECKING:
    from collections.abc import Callable

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
    fused.conv_last = artery_conv(fused.conv_last)
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


RANGE = 13.0
"""Standard deviations that an activation may be above its mean before it saturates.

Vessels are rare and far from the mean of their channel: 10 to 13 is best.
"""

SCALE = 1 / 255
"""Of the activations, uint8 for 0 to 1."""

DOWN = ("down_conv1", "down_conv2", "down_conv3", "down_conv4", "double_conv")
UP = ("up_conv4", "up_conv3", "up_conv2", "up_conv1")


class PackedByShape:
    """Weights as oneDNN lays them out for one shape of input and number of threads.

    For another one it would lay them out anew in each call, at several times the cost
    of the convolution.

    Parameters
    ----------
    pack : callable
        Makes them for the shape of an input.
    """

    def __init__(self, pack: Callable[[list[int]], torch.Tensor]) -> None:
        self._pack = pack
        self._packed: dict[tuple[torch.Size, int], torch.Tensor] = {}

    def __getitem__(self, x: torch.Tensor) -> torch.Tensor:
        key = x.shape, torch.get_num_threads()
        packed = self._packed.get(key)
        if packed is None:
            packed = self._pack(list(x.shape))
            # Few at a time: a cine has one shape, tiles have up to nine.
            if len(self._packed) > 9:
                self._packed.clear()
            self._packed[key] = packed
        return packed


class QuantizedCMUNet(nn.Module):
    """CM-UNet with all but its first convolution in 8-bit integers.

    The range of each channel follows from its BatchNorm (data-free quantisation, Nagel
    et al. 2019, arXiv 1906.04721): mean and deviation of what it gives are its shift
    and scale. Each channel is scaled to its own range, which is exact since ReLU and
    maxima do not mind, and so all activations share one scale, as the processor wants.

    Parameters
    ----------
    network : CMUNet
        For the ranges that its BatchNorms tell.
    fused : CMUNet
        The same with each BatchNorm folded, and one output channel.
    """

    def __init__(self, network: CMUNet, fused: CMUNet) -> None:
        super().__init__()
        peaks = [_peaks(getattr(network, name)) for name in (*DOWN, *UP)]
        below = torch.ones(1)
        self.down = nn.ModuleList()
        skips: list[torch.Tensor] = []
        for name, (peak, top, _) in zip(DOWN, peaks, strict=False):
            first, _, second, _ = _layers(getattr(fused, name))
            scaled = _rescale(first, below, peak)
            self.down.append(
                nn.Sequential(
                    QuantizedConv(*scaled, padding=1)
                    if skips
                    else QuantizingConv(*scaled),
                    QuantizedConv(*_rescale(second, peak, top), padding=1),
                )
            )
            skips.append(below := top)
        skips.pop()
        moments = peaks[len(DOWN) - 1][2]
        self.up = nn.ModuleList()
        for name, (peak, top, after) in zip(UP, peaks[len(DOWN) :], strict=True):
            block = getattr(fused, name)
            up = QuantizedUpsampling(block.up_sample, below, moments)
            first, _, second, _ = _layers(block)
            weight, bias = _rescale(first, torch.cat([up.span, skips[-1]]), peak)
            shift = torch.cat([up.lowest, torch.zeros_like(skips.pop())])
            bias = bias + (first.weight * shift[:, None, None]).sum((1, 2, 3)) / peak
            self.up.append(
                nn.ModuleList(
                    [
                        up,
                        QuantizedConv(weight, bias),
                        QuantizedConv(*_rescale(second, peak, top), padding=1),
                    ]
                )
            )
            below, moments = top, after
        last = _rescale(fused.conv_last, below, torch.ones(1))
        self.last = QuantizedConv(*last, logits=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Artery logits ``(B, 1, H, W)`` of frames ``(B, 1, H, W)``, both float32."""
        skips: list[torch.Tensor] = []
        for block in self.down:
            if skips:
                x = _halve(x)
            skips.append(x := block(x))
        skips.pop()
        blocks: Any = self.up
        for up, first, second in blocks:
            x = second(first(up(x, skips.pop())))
        return self.last(x)


class QuantizedConv(nn.Module):
    """A convolution from uint8 to uint8 with its ReLU, or to float32 logits.

    Parameters
    ----------
    weight : float tensor (C_out, C_in, k, k)
        From activations of 0 to 1 to such.
    bias : float tensor (C_out,)
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        padding: int = 0,
        *,
        logits: bool = False,
    ) -> None:
        super().__init__()
        self._bias, self._geometry = bias, ([1, 1], [padding] * 2, [1, 1], 1)
        out: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        self._out = out if logits else (SCALE, 0, torch.uint8, "relu", [], "")
        self._scales = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        weight = (weight / self._scales[:, None, None, None]).round()
        self._packed = PackedByShape(
            lambda shape: torch.ops.onednn.qconv_prepack(
                weight.to(torch.int8), self._scales, SCALE, 0, *self._geometry, shape
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H, W)``."""
        made: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(
            x,
            SCALE,
            0,
            self._packed[x],
            self._scales,
            self._zeros,
            self._bias,
            *self._geometry,
            *self._out,
        )
        return made


class QuantizingConv(nn.Module):
    """The first convolution and its ReLU in float32, then rounded to uint8."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self._weight = (weight / SCALE).contiguous(memory_format=torch.channels_last)
        self._bias = bias / SCALE + 0.5  # cutting off then rounds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to uint8 ``(B, C, H, W)``."""
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self._weight, self._bias, padding=1).clamp_(0, 255).byte()


class QuantizedUpsampling(nn.Module):
    """The transposed convolution of an up block, joined with the skip connection.

    It has no ReLU, so its channels are shifted by their lowest value; the convolution
    after it takes that back. It comes with the border of zeros (which are not 0 any
    more) that this convolution needs.

    Parameters
    ----------
    conv : nn.ConvTranspose2d
        2x2, stride 2.
    below : tensor (C_in,)
        Range of the channels that it takes.
    moments : pair of tensors (C_in,)
        Mean and variance of these, for the range of what it gives.

    Attributes
    ----------
    lowest, span : tensors (C_out,)
        Least value of each channel, and how far the greatest is above it.
    """

    def __init__(
        self,
        conv: nn.ConvTranspose2d,
        below: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        super().__init__()
        assert conv.bias is not None
        mean, variance = (value[:, None, None, None] for value in moments)
        middle = (conv.weight * mean).sum(0) + conv.bias[:, None, None]
        reach = RANGE * (conv.weight.square() * variance).sum(0).sqrt()
        lowest = (middle - reach).amin((1, 2)).clamp_max(0)
        highest = (middle + reach).amax((1, 2)).clamp_min(0)
        self.span = (highest - lowest).clamp_min(1e-9)
        zero = (-lowest / self.span / SCALE).round()
        self.lowest = -zero * SCALE * self.span
        self._border = torch.cat([zero, torch.zeros_like(zero)]).byte()
        # As a 1x1 convolution to the four pixels that each pixel becomes.
        weight = conv.weight * below[:, None, None, None] / self.span[:, None, None]
        weight = weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]
        bias = ((conv.bias - self.lowest) / self.span).repeat(4)
        self._conv = QuantizedConv(weight.contiguous(), bias)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Join ``(B, 2C, H, W)`` with its skip ``(B, C, 2H, 2W)``, and a border."""
        batch, channels, height, width = skip.shape
        joined = x.new_empty((batch, height + 2, width + 2, 2 * channels))
        for edge in (joined[:, 0], joined[:, -1], joined[:, :, 0], joined[:, :, -1]):
            edge.copy_(self._border)
        inside = joined[:, 1:-1, 1:-1]
        inside[..., channels:] = skip.permute(0, 2, 3, 1)
        pixels = self._conv(x).permute(0, 2, 3, 1).unflatten(3, (2, 2, channels))
        inside[..., :channels].unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).copy_(
            pixels.permute(0, 1, 3, 2, 4, 5)
        )
        return joined.permute(0, 3, 1, 2)


def _layers(block: Any) -> Any:
    """The layers of a double convolution, or of the one in a block."""
    while not isinstance(block, nn.Sequential):
        block = block.double_conv
    return block


def _peaks(
    block: nn.Module,
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Ranges after both convolutions of a block; mean and variance after the second."""
    _, first, _, _, second, _ = _layers(block)
    one, two = (
        (bn.bias + RANGE * bn.weight.abs()).detach().clamp_min(1e-3)
        for bn in (first, second)
    )
    return one, two, _rectified_moments(second.bias.detach(), second.weight.detach())


def _rectified_moments(
    mean: torch.Tensor, deviation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of a normal variable after ReLU."""
    deviation = deviation.abs() + 1e-9
    at = mean / deviation
    density = torch.exp(-0.5 * at.square()) / (2 * torch.pi) ** 0.5
    share = torch.special.ndtr(at)
    first = mean * share + deviation * density
    second = (mean.square() + deviation.square()) * share + mean * deviation * density
    return first, (second - first.square()).clamp_min(0)


def _rescale(
    conv: nn.Conv2d, below: torch.Tensor, above: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias from channels of 0 to 1 to such, given the ranges of both."""
    assert conv.bias is not None
    weight = conv.weight * below[:, None, None] / above[:, None, None, None]
    return weight, conv.bias / above


def _halve(x: torch.Tensor) -> torch.Tensor:
    """2x2 maxima; torch has no max pooling of uint8."""
    x = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(x[..., ::2], x[..., 1::2])
