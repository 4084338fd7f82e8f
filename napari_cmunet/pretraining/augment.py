"""Random views of frames, each drawn from its own random numbers.

What is drawn depends on the seed, the epoch and the frame, and on nothing else: not
on the other frames of the batch, not on how many processes share it, not on where a
run was interrupted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class ViewRange:
    """How far random views may go.

    Parameters
    ----------
    zoom : (float, float)
        Smallest and largest magnification.
    rotation : float
        Degrees, either way.
    contrast, brightness : float
        Standard deviations of a random gain (log) and offset.
    noise : float
        Largest standard deviation of added noise; half of the views have none.
    shift : float
        Pixels of the view, either way, of a second view (see :func:`sample`).
    """

    zoom: tuple[float, float] = (0.85, 1.3)
    rotation: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True)
class Draws:
    """Random numbers of some views, one row each.

    Parameters
    ----------
    uniform, normal : float64 arrays (B, 7) and (B, 2)
    patches : float32 array (B, patches)
        Uniform, for the choice of hidden patches.
    noise_seeds : int64 array (B,)
    """

    uniform: np.ndarray
    normal: np.ndarray
    patches: np.ndarray
    noise_seeds: np.ndarray


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


def placement(
    draws: Draws, how: ViewRange, frame_side: int, view_side: int
) -> torch.Tensor:
    """Affine maps from the views' coordinates to the frames', ``(B, 2, 3)``.

    A view lies within its frame where it is smaller, and the other way round. None is
    mirrored: what is above stays above, such as the catheter.
    """
    u = draws.uniform
    low, high = np.log(how.zoom[0]), np.log(how.zoom[1])
    window = view_side / np.exp(low + (high - low) * u[:, 0])  # in frame pixels
    first = np.minimum(window, 2 * frame_side - window) / 2
    last = frame_side - first
    first, last = np.minimum(first, last), np.maximum(first, last)
    centre = [first + (last - first) * u[:, i] for i in (1, 2)]
    angle = (2 * u[:, 3] - 1) * how.rotation * math.pi / 180
    scale = window / frame_side
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    rows = [
        [cos, -sin, 2 * centre[0] / frame_side - 1],
        [sin, cos, 2 * centre[1] / frame_side - 1],
    ]
    return torch.from_numpy(np.stack([np.stack(r, -1) for r in rows], 1)).float()


def shifted(
    theta: torch.Tensor, draws: Draws, how: ViewRange, view_side: int
) -> torch.Tensor:
    """The same views, moved by a few whole pixels of the view."""
    pixels = _moves(draws, how, view_side)
    move = torch.from_numpy(2 * pixels / view_side).to(theta.dtype)
    centre = theta[:, :, 2] + (theta[:, :, :2] @ move[:, :, None])[:, :, 0]
    return torch.cat([theta[:, :, :2], centre[:, :, None]], 2)


def shifted_back(
    maps: torch.Tensor, draws: Draws, how: ViewRange
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay maps of the moved views over the views again.

    Parameters
    ----------
    maps : tensor (B, C, H, W)
        On the grid of what :func:`shifted` gave.

    Returns
    -------
    maps : tensor (B, C, H, W)
    seen : float tensor (B, 1, H, W)
        1 where the moved view showed that place.
    """
    side = maps.shape[-1]
    back, seen = torch.zeros_like(maps), torch.zeros_like(maps[:, :1])
    for i, (dx, dy) in enumerate(_moves(draws, how, side).astype(int).tolist()):
        here = [slice(max(0, d), side + min(0, d)) for d in (dy, dx)]
        there = [slice(max(0, -d), side + min(0, -d)) for d in (dy, dx)]
        back[(i, slice(None), *here)] = maps[(i, slice(None), *there)]
        seen[(i, 0, *here)] = 1
    return back, seen


def _moves(draws: Draws, how: ViewRange, side: int) -> np.ndarray:
    """Whole pixels (x, y) that each moved view is off, ``(B, 2)``."""
    reach = min(how.shift, side / 8)
    return np.round((2 * draws.uniform[:, 4:6] - 1) * reach)


def sample(
    stack: torch.Tensor, theta: torch.Tensor, side: int, channels: int = 1
) -> torch.Tensor:
    """Views ``(B, C, side, side)`` of a stack ``(B, C, G, G)``; 0 outside it."""
    grid = F.affine_grid(
        theta.to(stack.device), [len(stack), channels, side, side], align_corners=False
    )
    return F.grid_sample(
        stack.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def disturb(x: torch.Tensor, draws: Draws, how: ViewRange) -> torch.Tensor:
    """Change contrast and brightness, and add noise; each frame by its own draw."""
    if how.contrast or how.brightness:
        normal = torch.from_numpy(draws.normal).float().to(x.device)
        gain = torch.exp(how.contrast * normal[:, 0]).view(-1, 1, 1, 1)
        x = x * gain + how.brightness * normal[:, 1].view(-1, 1, 1, 1)
    if how.noise:
        amount = np.maximum(2 * draws.uniform[:, 6] - 1, 0) * how.noise
        noise = torch.empty_like(x, memory_format=torch.contiguous_format)
        random = torch.Generator(x.device)
        for i, seed in enumerate(draws.noise_seeds):
            if amount[i] > 0:
                noise[i].normal_(generator=random.manual_seed(int(seed)))
            else:
                noise[i].zero_()
        scale = torch.from_numpy(amount).float().to(x.device).view(-1, 1, 1, 1)
        x = x + scale * noise
    return x
