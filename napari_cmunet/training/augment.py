"""Random views of labelled frames, made on the device that trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augmentation:
    """How far random views may go.

    Parameters
    ----------
    rotation : float
        Degrees, either way.
    mirror : bool
        Also mirrored and upside down. No angiogram is: the catheter comes from above
        and the spine lies level, which helps to tell them from arteries.
    zoom : (float, float)
        Smallest and largest magnification.
    shift : float
        Share of the frame's side, either way.
    elastic : float
        Standard deviation of a smooth random displacement, as a share of the
        side.
    contrast, brightness : float
        Standard deviations of a random gain (log) and offset; the frames have
        unit variance.
    noise, blur : float
        Largest standard deviations of added noise, and of a blur in pixels.
    """

    rotation: float = 30.0
    mirror: bool = False
    zoom: tuple[float, float] = (0.75, 1.4)
    shift: float = 0.1
    elastic: float = 0.006
    contrast: float = 0.25
    brightness: float = 0.25
    noise: float = 0.25
    blur: float = 0.8


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
    how : Augmentation
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
    size = (crop, crop) if crop else tuple(frames.shape[-2:])
    grid = _random_grid(frames, how, generator, size)
    both = F.grid_sample(
        torch.cat([frames.float(), maps.float()], 1),
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    x, maps = both[:, :1], both[:, 1:].clamp(0, 1)
    return _random_intensity(x, how, generator), maps


def _uniform(n, low, high, like, generator):
    return torch.rand(n, generator=generator, device=like.device) * (high - low) + low


def _random_grid(frames, how, generator, size):
    b = frames.shape[0]
    angle = _uniform(b, -how.rotation, how.rotation, frames, generator)
    angle = angle * math.pi / 180
    low, high = math.log(how.zoom[0]), math.log(how.zoom[1])
    scale = torch.exp(-_uniform(b, low, high, frames, generator))
    stretch = torch.exp(_uniform(b, -0.1, 0.1, frames, generator))
    along_x, along_y = stretch, 1 / stretch
    if how.mirror:
        along_x = torch.sign(_uniform(b, -1, 1, frames, generator)) * along_x
        along_y = torch.sign(_uniform(b, -1, 1, frames, generator)) * along_y
    # What a view shows of the frame's height and width; its middle lies where it may.
    tall, wide = (v / f for v, f in zip(size, frames.shape[-2:], strict=True))
    along_x, along_y = along_x * wide, along_y * tall
    reach_x, reach_y = (2 * how.shift + 1 - share for share in (wide, tall))
    dx = _uniform(b, -reach_x, reach_x, frames, generator)
    dy = _uniform(b, -reach_y, reach_y, frames, generator)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    # Rows of the affine map from the view's coordinates to the frame's: stretched (and
    # mirrored) along the view's axes, then turned, so that nothing is sheared.
    theta = torch.stack(
        [
            torch.stack([cos * along_x, -sin * along_y, dx], -1),
            torch.stack([sin * along_x, cos * along_y, dy], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [b, 1, *size], align_corners=False)
    if how.elastic:
        coarse = torch.randn(b, 2, 8, 8, generator=generator, device=frames.device)
        bend = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
        grid = grid + 2 * how.elastic * bend.permute(0, 2, 3, 1)
    return grid


def _random_intensity(x, how, generator):
    b = (x.shape[0], 1, 1, 1)
    normal = lambda: torch.randn(b, generator=generator, device=x.device)  # noqa: E731
    uniform = lambda: torch.rand(b, generator=generator, device=x.device)  # noqa: E731
    if how.blur:
        # Between the frame and a blurred one: cheaper than a kernel for each.
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = torch.lerp(x, soft, (uniform() * 2 - 1).clamp_min(0) * min(how.blur, 1))
    x = x * torch.exp(how.contrast * normal()) + how.brightness * normal()
    amount = (uniform() * 2 - 1).clamp_min(0) * how.noise
    return x + amount * torch.randn(
        x.shape, generator=generator, device=x.device, dtype=x.dtype
    )
