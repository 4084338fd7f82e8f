"""Augmentation for pre-training, each frame from its own random numbers.

They depend on the seed, the epoch and the frame alone: not on the other frames of the
batch, not on how many processes share it, not on where a run was interrupted. Also
copy-paste augmentation: synthetic arteries drawn into real frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from napari_cmunet.training.augment import (
    Augmentation,
    affine_maps,
    jitter,
    noise_amount,
)
from napari_cmunet.training.augment import warp as warp_by_grid

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Draws:
    """Random numbers of some views, one row each."""

    uniform: np.ndarray
    normal: np.ndarray
    #: float32 array (B, patches); uniform, for the choice of hidden patches.
    patches: np.ndarray
    noise_seeds: np.ndarray  # int64 array (B,)


def draw(keys: Iterable[tuple[int, ...]], patches: int = 0) -> Draws:
    """Draw the random numbers of one view for each key (seed, epoch, frame...)."""
    rows = []
    for key in keys:
        random = np.random.default_rng(key)
        rows.append(
            (
                random.random(7),
                random.standard_normal(2),
                random.random(patches, np.float32),
                random.integers(2**62),
            )
        )
    return Draws(*(np.stack(part) for part in zip(*rows, strict=True)))


def view_affine(
    draws: Draws, how: Augmentation, frame_side: int, view_side: int
) -> torch.Tensor:
    """Affine maps from the views' coordinates to the frames', ``(B, 2, 3)``.

    A view lies within its frame where it is smaller, and the other way round.
    """
    u = draws.uniform
    low, high = np.log(how.zoom[0]), np.log(how.zoom[1])
    window = view_side / np.exp(low + (high - low) * u[:, 0])  # in frame pixels
    first = np.minimum(window, 2 * frame_side - window) / 2
    last = frame_side - first
    first, last = np.minimum(first, last), np.maximum(first, last)
    dx, dy = (
        torch.from_numpy(2 * (first + (last - first) * u[:, i]) / frame_side - 1)
        for i in (1, 2)
    )
    angle = torch.from_numpy((2 * u[:, 3] - 1) * how.rotation * math.pi / 180)
    scale = torch.from_numpy(window / frame_side)
    return affine_maps(angle, scale, (1.0, 1.0), (dx, dy)).float()


def shift_affine(
    theta: torch.Tensor, draws: Draws, reach: float, view_side: int
) -> torch.Tensor:
    """Move views by a few whole pixels of the view, ``reach`` at most."""
    pixels = _shifts(draws, reach, view_side)
    move = torch.from_numpy(2 * pixels / view_side).to(theta.dtype)
    centre = theta[:, :, 2] + (theta[:, :, :2] @ move[:, :, None])[:, :, 0]
    return torch.cat([theta[:, :, :2], centre[:, :, None]], 2)


def unshift_maps(
    maps: torch.Tensor, draws: Draws, reach: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay maps of the shifted views over the views again.

    Parameters
    ----------
    maps : tensor (B, C, H, W)
        On the grid of :func:`shift_affine`.

    Returns
    -------
    maps : tensor (B, C, H, W)
    seen : float tensor (B, 1, H, W)
        1 where the shifted view showed that place.
    """
    side = maps.shape[-1]
    back, seen = torch.zeros_like(maps), torch.zeros_like(maps[:, :1])
    for i, (dx, dy) in enumerate(_shifts(draws, reach, side).astype(int).tolist()):
        rows, columns = (slice(max(0, d), side + min(0, d)) for d in (dy, dx))
        from_rows, from_columns = (
            slice(max(0, -d), side + min(0, -d)) for d in (dy, dx)
        )
        back[i, :, rows, columns] = maps[i, :, from_rows, from_columns]
        seen[i, 0, rows, columns] = 1
    return back, seen


def _shifts(draws: Draws, reach: float, side: int) -> np.ndarray:
    """Whole pixels (x, y) that each shifted view is off, ``(B, 2)``."""
    return np.round((2 * draws.uniform[:, 4:6] - 1) * min(reach, side / 8))


def warp(stack: torch.Tensor, theta: torch.Tensor, side: int) -> torch.Tensor:
    """Views ``(B, C, side, side)`` of a stack ``(B, C, G, G)``; 0 outside it."""
    size = [len(stack), 1, side, side]
    grid = F.affine_grid(theta.to(stack.device), size, align_corners=False)
    return warp_by_grid(stack, grid)


def jitter_intensity(x: torch.Tensor, draws: Draws, how: Augmentation) -> torch.Tensor:
    """Change contrast and brightness, and add noise."""
    if how.contrast or how.brightness:
        normal = torch.from_numpy(draws.normal).float().to(x.device)
        contrast, brightness = normal.T.reshape(2, -1, 1, 1, 1)
        x = jitter(x, how, contrast, brightness)
    if how.noise:
        amount = noise_amount(torch.from_numpy(draws.uniform[:, 6]), how)
        noise = torch.empty_like(x, memory_format=torch.contiguous_format)
        random = torch.Generator(x.device)
        for i, seed in enumerate(draws.noise_seeds):
            if amount[i] > 0:
                noise[i].normal_(generator=random.manual_seed(int(seed)))
            else:
                noise[i].zero_()
        x = x + amount.float().to(x.device).view(-1, 1, 1, 1) * noise
    return x


DEPTH = (1.5, 3.8)
"""How much darker wide arteries are drawn, in standard deviations of a frame."""

WIDE = 7
"""Width in pixels from which an artery is drawn at its full depth."""


class CopyPastePairs(NamedTuple):
    """Which of a process's phantoms are pasted into which of its frames.

    Parameters
    ----------
    phantoms, frames : int arrays (N,)
        Indices within what the process has of a batch.
    """

    phantoms: np.ndarray
    frames: np.ndarray


def copy_paste_pairs(
    share: float, phantoms: slice, of: int, frames: int, step: int = 0
) -> CopyPastePairs:
    """Spread the pasted phantoms evenly over a batch, and over the steps.

    Depends on the step and the position in the whole batch, not on the processes.

    Parameters
    ----------
    share : float
        Of the phantoms.
    phantoms : slice
        The process's part of the batch's phantoms.
    of, frames : int
        Phantoms and frames in the whole batch.
    step : int
        Of the run, from 0.
    """
    slots = np.arange(phantoms.start, phantoms.stop)
    count = step * of + slots
    slots = slots[np.floor((count + 1) * share) > np.floor(count * share)]
    first = phantoms.start * frames // of
    return CopyPastePairs(slots - phantoms.start, slots * frames // of - first)


def paste_arteries(
    frames: torch.Tensor, trees: torch.Tensor, chance: torch.Tensor
) -> torch.Tensor:
    """Darken frames along arteries; thin ones less than wide ones.

    Parameters
    ----------
    frames : float tensor (B, 1, H, W)
        Prepared frames, unit variance.
    trees : float tensor (B, 1, H, W)
        Share of each pixel that is artery.
    chance : float tensor (B,)
        0 to 1; how dark, from the faintest to the darkest.

    Returns
    -------
    float tensor (B, 1, H, W)
    """
    low, high = (math.log(d) for d in DEPTH)
    depth = torch.exp(low + (high - low) * chance).view(-1, 1, 1, 1)
    thickness = trees * (0.4 + 0.6 * F.avg_pool2d(trees, WIDE, 1, WIDE // 2))
    # Half sharp and half blurred, like the edge of a round tube on a detector.
    soft = (thickness + F.avg_pool2d(thickness, 3, 1, 1)) / 2
    return frames - depth * soft
