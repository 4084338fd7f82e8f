"""The networks of CM-UNet's pre-training, and the contrastive loss between them."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from napari_cmunet.model.network import CMUNet, artery_logit


class FeatureDecoder(nn.Module):
    """Predict, at the bottleneck, features of the whole frame from the masked one's.

    Two convolutions through a quarter of the channels, added to their input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 4, 1)
        self.block = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 3, padding=1),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to the same."""
        return latent + self.block(latent)


def perceptron(inside: int, hidden: int, outside: int) -> nn.Sequential:
    """Two linear layers with layer normalisation.

    Batch normalisation over a small batch would leak the negatives to each frame.
    """
    return nn.Sequential(
        nn.Linear(inside, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Linear(hidden, outside),
    )


class Online(NamedTuple):
    """Output of the online network for masked frames.

    Parameters
    ----------
    pixels : tensor (B, 1, H, W)
        Reconstruction, normalised within each patch.
    embedding : float tensor (B, E)
        Comparable to :meth:`PretrainNetworks.target`.
    logits : tensor (B, 2, H, W)
        Background and artery, from the same features as ``pixels``.
    """

    pixels: torch.Tensor
    embedding: torch.Tensor
    logits: torch.Tensor


class PretrainNetworks(nn.Module):
    """CM-UNet, its momentum target and the heads of pre-training.

    Parameters
    ----------
    width : int
        Of the CM-UNet.
    segments : bool
        Whether ``conv_last`` is trained too, on frames with known masks.
    start : CMUNet, optional
        Of that width; its weights are where the network begins. Random ones by
        default.
    """

    def __init__(
        self, width: int, *, segments: bool = False, start: CMUNet | None = None
    ) -> None:
        super().__init__()
        features, embedding = 16 * width, min(256, 16 * width)
        hidden = min(1536, 4 * features)
        self.network = CMUNet(width)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        _cancel_idle_biases(self.network)
        self.pixel_head = nn.Conv2d(width, 1, 1)
        for parameter in self.pixel_head.parameters():
            nn.init.zeros_(parameter)  # begin with each patch's mean
        self.feature_decoder = FeatureDecoder(features)
        self.projector = perceptron(features, hidden, embedding)
        self.predictor = perceptron(embedding, hidden, embedding)
        if not segments:
            self.network.conv_last.requires_grad_(False)
        self.target_network = copy.deepcopy(self.network).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def online(self, masked: torch.Tensor) -> Online:
        """Reconstruct, embed and segment masked frames ``(B, 1, H, W)``."""
        latent, skips = self.network.encode(masked)
        features = self.network.decode(latent, skips)
        summary = self.feature_decoder(latent).mean((-2, -1))
        return Online(
            self.pixel_head(features),
            self.predictor(self.projector(summary)).float(),
            self.network.conv_last(features),
        )

    @torch.no_grad()
    def target(
        self, whole: torch.Tensor, *, segments: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embed and segment whole frames by the momentum target; no gradient.

        Returns
        -------
        embedding : float tensor (B, E)
        logit : float tensor (B, 1, H, W) or None
            Artery against background, where ``segments`` asks for it.
        """
        network = self.target_network
        latent, skips = network.encode(whole)
        embedding = self.target_projector(latent.mean((-2, -1))).float()
        if not segments:
            return embedding, None
        return embedding, artery_logit(network.conv_last(network.decode(latent, skips)))

    def segment(self, frames: torch.Tensor) -> torch.Tensor:
        """Two-class logits of whole frames."""
        return self.network(frames)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Update the momentum target (EMA of the online network)."""
        for own, source in (
            (self.target_network, self.network),
            (self.target_projector, self.projector),
        ):
            update = get_ema_multi_avg_fn(momentum)
            update(list(own.parameters()), list(source.parameters()), 0)


def info_nce(
    predicted: torch.Tensor,
    targets: torch.Tensor,
    own: torch.Tensor,
    groups: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE: match a frame to its own target among those of the batch.

    Parameters
    ----------
    predicted : tensor (b, E)
        Of this process's frames.
    targets : tensor (B, E)
        Of all processes' frames.
    own : int tensor (b,)
        Index of the target of each prediction.
    groups : int tensor (B,)
        Frames of one cine share a number and are not negatives of each other.

    Returns
    -------
    loss, accuracy : scalar tensors
        The accuracy has no gradient.
    """
    score = F.normalize(predicted, dim=1) @ F.normalize(targets, dim=1).T / temperature
    related = groups[own][:, None] == groups[None]
    related[torch.arange(len(own), device=own.device), own] = False
    score = score.masked_fill(related, float("-inf"))
    right = (score.detach().argmax(1) == own).float().mean()
    return F.cross_entropy(score, own), right


def _cancel_idle_biases(network: nn.Module) -> None:
    """Fix at 0 the biases that the following batch normalisation cancels.

    Adam would turn the rounding error of their gradient into full steps.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for layer, after in zip(module, list(module)[1:], strict=False):
            if not (isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)):
                continue
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
                layer.bias.requires_grad_(False)
