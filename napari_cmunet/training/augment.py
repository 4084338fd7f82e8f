"""Augmentation: random views of frames, for fine-tuning and for pre-training.

Fine-tuning draws the random numbers of a whole batch from one generator
(:func:`augment`), pre-training those of each frame from its own seed
(:mod:`napari_cmunet.pretraining.augment`); the transforms are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transforms."""

    rotation: float = 30.0  # degrees, either way
    #: Also flip horizontally and vertically. No angiogram is flipped: the catheter
    #: comes from above and the spine lies level, which tells them from arteries.
    mirror: bool = False
    zoom: tuple[float, float] = (0.75, 1.4)  # smallest and largest magnification
    shift: float = 0.1  # share of the frame's side, either way
    #: Standard deviation of a smooth random displacement, as a share of the side.
    elastic: float = 0.006
    #: contrast, brightness: standard deviations of a random gain (log) and offset;
    #: the frames have unit variance.
    contrast: float = 0.25
    brightness: float = 0.25
    #: noise, blur: largest standard deviations of added noise, and of a blur in
    #: pixels.
    noise: float = 0.25
    blur: float = 0.8


NO_AUGMENTATION = Augmentation(0.0, False, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def augment(
    frames: torch.Tensor,
    maps: torch.Tensor,
    how: Augmentation,
    generator: torch.Generator | None = None,
    crop: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one random view of each frame and of the maps that lie over it.

    Parameters
    ----------
    frames : float tensor (B, 1, H, W)
        Prepared frames, zero mean and unit variance.
    maps : float tensor (B, C, H, W)
        Label, reviewed part and the like, 0 to 1; outside the frame they are 0,
        that is: not reviewed.
    generator : torch.Generator, optional
        Of the frames' device.
    crop : int, optional
        Side of the views in pixels of the frame, from anywhere in it; views are as
        large as the frame by default.

    Returns
    -------
    frames : tensor (B, 1, h, w)
    maps : tensor (B, C, h, w)
        As large as the frame, or ``crop`` on both sides.
    """
    height, width = (crop, crop) if crop else frames.shape[-2:]
    grid = _random_grid(frames, how, generator, (height, width))
    both = warp(torch.cat([frames.float(), maps.float()], 1), grid)
    x, maps = both[:, :1], both[:, 1:].clamp(0, 1)
    return _random_intensity(x, how, generator), maps


def affine_maps(
    angle: torch.Tensor,
    scale: torch.Tensor,
    stretch: tuple[torch.Tensor | float, torch.Tensor | float],
    centre: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Affine maps from the views' coordinates to the frames', ``(B, 2, 3)``.

    Stretched along the view's axes, then rotated, so that nothing is sheared.

    Parameters
    ----------
    angle, scale : tensors (B,)
        In radians; share of the frame that a view shows.
    stretch, centre : pairs of tensors (B,)
        Along x and y; a negative stretch mirrors.
    """
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    (along_x, along_y), (dx, dy) = stretch, centre
    rows = [
        [cos * along_x, -sin * along_y, dx],
        [sin * along_x, cos * along_y, dy],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def warp(stack: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample a stack ``(B, C, H, W)`` bilinearly at a grid; 0 outside it."""
    return F.grid_sample(
        stack.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def jitter(
    x: torch.Tensor,
    how: Augmentation,
    contrast: torch.Tensor,
    brightness: torch.Tensor,
) -> torch.Tensor:
    """Change contrast and brightness by normal random numbers, one per frame."""
    return x * torch.exp(how.contrast * contrast) + how.brightness * brightness


def noise_amount(uniform: torch.Tensor, how: Augmentation) -> torch.Tensor:
    """Standard deviations of added noise, by uniform random numbers; half are 0."""
    return (uniform * 2 - 1).clamp_min(0) * how.noise


def _random_grid(
    frames: torch.Tensor,
    how: Augmentation,
    generator: torch.Generator | None,
    size: tuple[int, int],
) -> torch.Tensor:
    n = len(frames)

    def uniform(low: float, high: float) -> torch.Tensor:
        drawn = torch.rand(n, generator=generator, device=frames.device)
        return drawn * (high - low) + low

    angle = uniform(-how.rotation, how.rotation) * math.pi / 180
    low, high = math.log(how.zoom[0]), math.log(how.zoom[1])
    scale = torch.exp(-uniform(low, high))
    stretch = torch.exp(uniform(-0.1, 0.1))
    along_x, along_y = stretch, 1 / stretch
    if how.mirror:
        along_x = torch.sign(uniform(-1, 1)) * along_x
        along_y = torch.sign(uniform(-1, 1)) * along_y
    # The share of the frame's height and width that a view shows.
    tall, wide = (v / f for v, f in zip(size, frames.shape[-2:], strict=True))
    reach_x, reach_y = (2 * how.shift + 1 - share for share in (wide, tall))
    dx, dy = uniform(-reach_x, reach_x), uniform(-reach_y, reach_y)
    theta = affine_maps(angle, scale, (along_x * wide, along_y * tall), (dx, dy))
    grid = F.affine_grid(theta, [n, 1, *size], align_corners=False)
    if how.elastic:
        coarse = torch.randn(n, 2, 8, 8, generator=generator, device=frames.device)
        bend = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
        grid = grid + 2 * how.elastic * bend.permute(0, 2, 3, 1)
    return grid


def _random_intensity(
    x: torch.Tensor, how: Augmentation, generator: torch.Generator | None
) -> torch.Tensor:
    each = (x.shape[0], 1, 1, 1)

    def normal() -> torch.Tensor:
        return torch.randn(each, generator=generator, device=x.device)

    def uniform() -> torch.Tensor:
        return torch.rand(each, generator=generator, device=x.device)

    if how.blur:
        # Interpolated between the frame and a blurred one: cheaper than a kernel each.
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = torch.lerp(x, soft, (uniform() * 2 - 1).clamp_min(0) * min(how.blur, 1))
    x = jitter(x, how, normal(), normal())
    amount = noise_amount(uniform(), how)
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + amount * noise
