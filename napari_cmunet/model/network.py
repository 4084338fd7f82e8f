"""CM-UNet, the network: a U-Net whose parameter names match the published one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDE = 16
"""Height and width fed to the network must be multiples of this (four poolings)."""


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each followed by batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        return self.double_conv(x)


class DownBlock(nn.Module):
    """Double convolution, kept as the skip connection, then 2x2 max pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.double_conv = DoubleConv(in_channels, out_channels)
        self.down_sample = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the halved map and the skip connection at full size."""
        skip = self.double_conv(x)
        return self.down_sample(skip), skip


class UpBlock(nn.Module):
    """Transposed convolution to twice the size, skip joined, double convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up_sample = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.double_conv = DoubleConv(in_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``(B, in, H, W)`` and a ``(B, out, 2H, 2W)`` skip to ``(B, out, 2H, 2W)``."""
        # The published order: upsampled features first, skip second.
        return self.double_conv(torch.cat([self.up_sample(x), skip], dim=1))


class CMUNet(nn.Module):
    """The U-Net of CM-UNet (arXiv 2507.17779), at any width.

    Width 64 is the published network with 31,042,434 parameters. Other widths
    are the same network, narrower or wider, with the same parameter names, so a
    published checkpoint of width 64 loads without renaming.

    Parameters
    ----------
    width : int
        Channels of the first level; the levels have 1, 2, 4, 8 and 16 times it.
    out_classes : int
        Channels of the logits: background and artery.
    """

    def __init__(self, width: int = 64, out_classes: int = 2) -> None:
        super().__init__()
        w = width
        self.width = width
        self.down_conv1 = DownBlock(1, w)
        self.down_conv2 = DownBlock(w, 2 * w)
        self.down_conv3 = DownBlock(2 * w, 4 * w)
        self.down_conv4 = DownBlock(4 * w, 8 * w)
        self.double_conv = DoubleConv(8 * w, 16 * w)
        self.up_conv4 = UpBlock(16 * w, 8 * w)
        self.up_conv3 = UpBlock(8 * w, 4 * w)
        self.up_conv2 = UpBlock(4 * w, 2 * w)
        self.up_conv1 = UpBlock(2 * w, w)
        self.conv_last = nn.Conv2d(w, out_classes, 1)

    @classmethod
    def outline(cls, width: int) -> dict[str, torch.Tensor]:
        """The tensors of a network by name, of shape and type alone: no memory."""
        with torch.device("meta"):
            return cls(width).state_dict()

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Encoder and bottleneck.

        Parameters
        ----------
        x : tensor (B, 1, H, W)
            Standardised frames; H and W multiples of 16.

        Returns
        -------
        latent : tensor (B, 16 width, H / 16, W / 16)
        skips : list of four tensors, finest first
        """
        skips = []
        for block in (
            self.down_conv1,
            self.down_conv2,
            self.down_conv3,
            self.down_conv4,
        ):
            x, skip = block(x)
            skips.append(skip)
        return self.double_conv(x), skips

    def decode(self, latent: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """Decoder: features ``(B, width, H, W)`` before the last convolution."""
        x = self.up_conv4(latent, skips[3])
        x = self.up_conv3(x, skips[2])
        x = self.up_conv2(x, skips[1])
        return self.up_conv1(x, skips[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, out_classes, H, W)`` for frames ``(B, 1, H, W)``.

        Raises
        ------
        ValueError
            If the frames have other than one channel, or a side that is not a
            multiple of 16.
        """
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"CM-UNet takes (B, 1, H, W), not {tuple(x.shape)}")
        if x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            raise ValueError(
                f"CM-UNet needs sides that are multiples of {STRIDE}, "
                f"not {tuple(x.shape[2:])}; pad the frame first"
            )
        return self.conv_last(self.decode(*self.encode(x)))


def artery_conv(last: nn.Conv2d) -> nn.Conv2d:
    """The last convolution, giving artery against background in one channel."""
    assert last.bias is not None
    conv = nn.Conv2d(last.in_channels, 1, 1).requires_grad_(False)
    conv.weight.copy_(last.weight[1:2] - last.weight[0:1])
    assert conv.bias is not None
    conv.bias.copy_(last.bias[1:2] - last.bias[0:1])
    return conv


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


def artery_logit(logits: torch.Tensor) -> torch.Tensor:
    """Artery against background, ``(B, 1, H, W)``, from two-class logits."""
    return logits[:, 1:2].float() - logits[:, 0:1].float()


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


def flop_count(width: int, height: int, width_px: int) -> float:
    """Floating point operations of one forward pass over one frame.

    Counts a multiply-add as two, convolutions and transposed convolutions alone:
    96.2e9 for width 64 and a 256 x 256 frame.
    """
    total = 0.0
    channels, area = 1, float(height * width_px)
    for level in range(5):
        out = width * 2**level
        total += 2 * 9 * area * (channels * out + out * out)
        channels, area = out, area / 4
    area *= 4
    for level in range(3, -1, -1):
        out = width * 2**level
        area *= 4
        total += 2 * area * 2 * out * out  # 2x2, stride 2: one tap per output pixel
        total += 2 * 9 * area * (2 * out * out + out * out)
    return total + 2 * area * width * 2
