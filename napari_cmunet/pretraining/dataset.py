"""Frames without labels, prepared once and held as tensors for pre-training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import TrainingError

if TYPE_CHECKING:
    import torch

    from napari_cmunet.pretraining.config import PretrainConfig

MOST_HELD_OUT = 64
"""More held-out images than this only cost time."""


@dataclass(frozen=True)
class UnlabelledFrames:
    """Prepared frames on a common square grid.

    Parameters
    ----------
    frames : float16 tensor (N, 1, G, G)
        Zero where the square reaches beyond the frame.
    groups : int64 tensor (N,)
        Frames of one image file share a number.
    digest : str
        Of the files that they came from: resuming asks for the same ones.
    """

    frames: torch.Tensor
    groups: torch.Tensor
    digest: str = ""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def side(self) -> int:
        """Pixels of a side."""
        return self.frames.shape[-1]


def digest(parts: list[str]) -> str:
    """One hash over many, whatever their order."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def split(frames: UnlabelledFrames, config: PretrainConfig) -> tuple[list, list]:
    """Indices to learn from and indices held out, by image file.

    Raises
    ------
    TrainingError
        If fewer frames than a batch are left to learn from, or the batch is too
        small for contrast.
    """
    if config.batch_frames < 2:
        raise TrainingError(
            f"A batch of {config.batch} with {config.batch_phantoms} phantoms leaves "
            f"{config.batch_frames} frame: contrast needs at least two. Choose a "
            "larger --batch."
        )
    groups = frames.groups.numpy()
    files = np.unique(groups)
    count = max(1, min(MOST_HELD_OUT, round(config.held_out * len(files))))
    chosen = np.random.default_rng([config.seed, 0]).permutation(files)[:count]
    outside = np.isin(groups, chosen)
    learn, held = np.flatnonzero(~outside), np.flatnonzero(outside)
    if len(learn) < config.batch_frames:
        raise TrainingError(
            f"{len(frames)} frames from {len(files)} images are too few: {count} "
            f"image is held out and each step takes {config.batch_frames} frames. "
            "Give more images or choose a smaller --batch."
        )
    return learn.tolist(), held.tolist()
