"""Training of the late decoder alone, on features that are computed once.

The encoder and the early decoder stay as they are, so their features of a few
augmented views of each label need one forward pass each, shared by all steps and by
all folds of a cross-validation. The late decoder sees a few pixels around each place
only; it is trained on small crops of these features without losing context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_cmunet.model.device import training_autocast
from napari_cmunet.training.augment import augment
from napari_cmunet.training.dataset import REVIEWED, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.training.config import FinetuneConfig
    from napari_cmunet.training.dataset import LabelledFrames

MOST_VIEWS = 72
"""Views whose features are held in memory, 9 MB each at width 24 and 320 pixels."""

BORDER = 4
"""Pixels at the border of a crop that are not learned from: they lack neighbours."""


class LateDecoder(nn.Module):
    """The last decoder blocks of a network and its last convolution.

    Shares them with the network, under the same names.

    Parameters
    ----------
    blocks : int
        1 or 2.
    """

    def __init__(self, network: CMUNet, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        if blocks > 1:
            self.up_conv2 = network.up_conv2
        self.up_conv1 = network.up_conv1
        self.conv_last = network.conv_last

    def forward(self, x: torch.Tensor, *skips: torch.Tensor) -> torch.Tensor:
        """Logits of features; skip connections coarsest first."""
        if self.blocks > 1:
            x = self.up_conv2(x, skips[0])
        return self.conv_last(self.up_conv1(x, skips[-1]))


def early_features(
    network: CMUNet, x: torch.Tensor, blocks: int
) -> tuple[torch.Tensor, ...]:
    """What :class:`LateDecoder` takes, of prepared frames ``(B, 1, H, W)``."""
    latent, skips = network.encode(x)
    x = network.up_conv3(network.up_conv4(latent, skips[3]), skips[2])
    if blocks > 1:
        return x, skips[1], skips[0]
    return network.up_conv2(x, skips[1]), skips[0]


@dataclass(frozen=True)
class FeatureViews:
    """Features of augmented views of labels."""

    #: Coarsest first; each level has twice the size of the one before.
    levels: tuple[torch.Tensor, ...]
    #: uint8 tensor (V, 3, G, G); as in
    #: :class:`napari_cmunet.training.dataset.LabelledFrames`.
    maps: torch.Tensor
    rows: torch.Tensor  # int64 tensor (N,); which of these views belong to the labels
    labels: torch.Tensor  # int64 tensor (N,); which label each of them shows
    #: patients, names: of the labels.
    patients: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.patients)

    def subset(self, indices: Sequence[int]) -> FeatureViews:
        """The labels at ``indices``; the features are shared, not copied."""
        place = {label: i for i, label in enumerate(indices)}
        labels = self.labels.tolist()
        kept = [n for n, label in enumerate(labels) if label in place]
        return replace(
            self,
            rows=self.rows[torch.as_tensor(kept, dtype=torch.long)],
            labels=torch.as_tensor([place[labels[n]] for n in kept]),
            patients=tuple(self.patients[i] for i in indices),
            names=tuple(self.names[i] for i in indices),
        )


@torch.no_grad()
def feature_views(
    network: CMUNet,
    frames: LabelledFrames,
    config: FinetuneConfig,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> FeatureViews | None:
    """Compute the features of ``config.views`` augmented views of each label.

    None if stopped meanwhile.
    """
    network.to(device).eval()
    views = max(1, min(config.views, MOST_VIEWS // len(frames)))
    random = torch.Generator(device).manual_seed(config.seed)
    levels: list[list[torch.Tensor]] = []
    maps, labels = [], []
    for label in range(len(frames)):
        if should_stop():
            return None
        at = torch.tensor([label] * views)
        x, y = augment(
            frames.frames[at].to(device),
            frames.maps_at(at).to(device),
            config.augmentation,
            random,
        )
        with training_autocast(device):
            found = early_features(
                network,
                x.to(memory_format=torch.channels_last),
                config.trained_blocks,
            )
        levels.append([level.half() for level in found])
        maps.append((y * WHOLE).round().to(torch.uint8))
        labels += [label] * views
    return FeatureViews(
        tuple(torch.cat(level) for level in zip(*levels, strict=True)),
        torch.cat(maps),
        torch.arange(len(labels)),
        torch.tensor(labels),
        frames.patients,
        frames.names,
    )


class FeatureBatches:
    """Batches of crops of features.

    Parameters
    ----------
    config : FinetuneConfig
        ``crop`` is the side of the crops; the whole view by default.
    """

    def __init__(
        self, views: FeatureViews, config: FinetuneConfig, device: torch.device
    ) -> None:
        self.views, self.device = views, device
        grid = views.maps.shape[-1]
        self.side = min(config.crop or grid, grid)
        self._random = np.random.default_rng(config.seed)
        self._queue: list[int] = []

    def draw(self, count: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Features, coarsest first, and maps of ``count`` crops."""
        rows = self.views.rows.numpy()
        while len(self._queue) < count:
            self._queue.extend(self._random.permutation(rows).tolist())
        taken, self._queue = self._queue[:count], self._queue[count:]
        depth = len(self.views.levels)
        room = (self.views.maps.shape[-1] - self.side) >> (depth - 1)
        corners = self._random.integers(room + 1, size=(count, 2))
        inputs = tuple(
            _crop(level, taken, corners << n, self.side >> (depth - 1 - n))
            for n, level in enumerate(self.views.levels)
        )
        maps = _crop(self.views.maps, taken, corners << (depth - 1), self.side)
        if room:
            inside = torch.zeros_like(maps[:, REVIEWED])
            inside[:, BORDER:-BORDER, BORDER:-BORDER] = 1
            maps[:, REVIEWED] *= inside
        return (
            tuple(x.to(self.device, torch.float32) for x in inputs),
            maps.to(self.device).float() / WHOLE,
        )


def _crop(
    stack: torch.Tensor, rows: Sequence[int], corners: np.ndarray, side: int
) -> torch.Tensor:
    return torch.stack(
        [
            stack[row, :, top : top + side, left : left + side]
            for row, (top, left) in zip(rows, corners.tolist(), strict=True)
        ]
    )
