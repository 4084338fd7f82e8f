"""Preprocessing: resample, flatten the background, standardise; and the inverse.

Every frame is brought to one grid (its longer side has ``grid`` pixels), so that
an artery covers as many pixels whatever the detector; its background is flattened
and its contrast standardised. :func:`restore` undoes the geometry.

Everything is torch, so that it runs on the device that the network runs on.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from napari_cmunet.model.network import STRIDE

if TYPE_CHECKING:
    from napari_cmunet.model.card import Preprocessing

# Beyond this, sums over a frame overflow float32; such values mark missing data.
_LARGEST = np.float64(1e30)


@dataclass(frozen=True)
class Geometry:
    """Where a prepared frame lies on its own grid.

    Parameters
    ----------
    shape : (Y, X)
        The frame's own size in pixels.
    inner : (h, w)
        The frame's size on the network's grid, before padding.
    padded : (H, W)
        Size fed to the network: ``inner`` padded at the bottom and the right to
        multiples of 16.
    """

    shape: tuple[int, int]
    inner: tuple[int, int]
    padded: tuple[int, int]


def geometry(shape: tuple[int, int], grid: int) -> Geometry:
    """Plan the resampling of a frame of ``shape`` (Y, X) to ``grid`` pixels."""
    scale = grid / max(shape)
    height, width = (max(STRIDE, round(side * scale)) for side in shape)
    padded = (
        math.ceil(height / STRIDE) * STRIDE,
        math.ceil(width / STRIDE) * STRIDE,
    )
    return Geometry((shape[0], shape[1]), (height, width), padded)


def prepare(
    frames: np.ndarray | torch.Tensor,
    preprocessing: Preprocessing,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, Geometry]:
    """Prepare frames for the network.

    Parameters
    ----------
    frames : array (Y, X) or (B, Y, X)
        Grey values of any real type and range; arteries dark. In an array, values
        that are not finite count as the median of their frame.
    preprocessing : Preprocessing
    device : torch device
        Where the work is done and the result lies.

    Returns
    -------
    x : float32 tensor (B, 1, H, W)
        Zero mean and unit variance over the exposed field.
    geometry : Geometry
        For :func:`restore`.
    """
    x = _as_float(frames, device)
    geo = geometry((x.shape[-2], x.shape[-1]), preprocessing.grid)
    x = resample(x[:, None], geo.inner)
    x = flatten(x, preprocessing)
    pad = (0, geo.padded[1] - geo.inner[1], 0, geo.padded[0] - geo.inner[0])
    return F.pad(x, pad), geo


def prepare_mask(mask: np.ndarray | torch.Tensor, geo: Geometry) -> torch.Tensor:
    """A mask (Y, X) or (B, Y, X) on the network's grid, ``(B, 1, H, W)``, 0 to 1."""
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(mask.astype(np.float32))
    x = mask.to(torch.float32)
    if x.ndim == 2:
        x = x[None]
    x = resample(x[:, None], geo.inner)
    pad = (0, geo.padded[1] - geo.inner[1], 0, geo.padded[0] - geo.inner[0])
    return F.pad(x, pad)


def restore(maps: torch.Tensor, geo: Geometry) -> torch.Tensor:
    """Bring maps on the network's grid back to the frame's own.

    Parameters
    ----------
    maps : tensor (B, C, H, W)
        As the network gives them.
    geo : Geometry
        What :func:`prepare` returned.

    Returns
    -------
    tensor (B, C, Y, X)
    """
    return resample(maps[..., : geo.inner[0], : geo.inner[1]], geo.shape)


def resample(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear resampling ``(B, C, Y, X)``, averaging over area when shrinking."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    shrinks = size[0] < x.shape[-2] or size[1] < x.shape[-1]
    return F.interpolate(
        x, size=tuple(size), mode="bilinear", align_corners=False, antialias=shrinks
    )


def flatten(x: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Flatten the background and standardise the contrast.

    An unsharp mask of wide radius, then zero mean and unit variance, as in the
    paper; here both see the exposed field alone, since a black collimator edge
    would otherwise set the blur beside it and the variance of the whole frame.

    Parameters
    ----------
    x : float tensor (B, 1, h, w)
    preprocessing : Preprocessing

    Returns
    -------
    float tensor (B, 1, h, w), 0 where nothing was exposed
    """
    field = exposed_field(x, preprocessing.border)
    area = _sum(field).clamp_min(1)
    # Centred and scaled first: 16-bit offsets would cost float32 its last digits.
    mean = _sum(x * field) / area
    x = (x - mean) * field
    largest = x.abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(largest > 0, largest, torch.ones_like(largest))
    sigma = preprocessing.radius * max(x.shape[-2:])
    background = _wide_blur(x, sigma) / _wide_blur(field, sigma).clamp_min(1e-3)
    x = (x + preprocessing.amount * (x - background)) * field
    mean = _sum(x * field) / area
    x = (x - mean) * field
    std = (_sum(x.square()) / area).sqrt()
    # A constant frame has no contrast to scale: it stays 0.
    return torch.where(std > 1e-6, x / std.clamp_min(1e-6), torch.zeros_like(x))


def _sum(x: torch.Tensor) -> torch.Tensor:
    # In float64 where there is such, so that it is the same with any number of threads.
    exact = torch.float64 if x.device.type == "cpu" else x.dtype
    return x.sum((-2, -1), keepdim=True, dtype=exact).to(x.dtype)


def exposed_field(x: torch.Tensor, border: float) -> torch.Tensor:
    """1 where X-rays fell, 0 behind the collimator; ``(B, 1, h, w)`` as ``x``.

    Rows and columns are taken away from the frame's edges as long as they are
    nearly all black: blades are straight, and a dark vessel that runs out of the
    frame is never mistaken for one. What is black and touches the rest of the
    edge (rounded corners) is taken away too.
    """
    lo = x.amin((-2, -1), keepdim=True)
    hi = x.amax((-2, -1), keepdim=True)
    lit = (x > lo + border * (hi - lo)).to(x.dtype)
    rows = (lit.mean(-1, keepdim=True) > 0.2).to(x.dtype)
    cols = (lit.mean(-2, keepdim=True) > 0.2).to(x.dtype)
    inside = _between_first_and_last(rows, -2) * _between_first_and_last(cols, -1)
    # How many of 9 x 9 pixels are lit, by rows and then by columns.
    corner = F.pad(lit, (4, 4, 4, 4), mode="replicate")
    for dim in (-2, -1):
        size = corner.shape[dim] - 8
        parts = [corner.narrow(dim, start, size) for start in range(9)]
        corner = functools.reduce(torch.add, parts)
    field = inside * (corner > 0.2 * 81).to(x.dtype)
    # Nothing or nearly nothing left: a dark frame, not a collimated one.
    enough = field.mean((-2, -1), keepdim=True) > 0.1
    return torch.where(enough, field, torch.ones_like(field))


def _between_first_and_last(lit: torch.Tensor, dim: int) -> torch.Tensor:
    """1 from the first to the last 1 along ``dim``."""
    after, before = lit.cumsum(dim) > 0, lit.flip(dim).cumsum(dim).flip(dim) > 0
    return (after & before).to(lit.dtype)


def _wide_blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur for large ``sigma``, computed on a coarser grid."""
    step = max(1, int(sigma / 4))
    height, width = x.shape[-2:]
    small = resample(x, (max(1, round(height / step)), max(1, round(width / step))))
    for dim in (-2, -1):
        s = sigma * small.shape[dim] / x.shape[dim]
        reach = max(1, math.ceil(3 * s))
        t = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (t / max(s, 1e-6)).square())
        kernel = kernel / kernel.sum()
        shape = [1, 1, 1, 1]
        shape[dim] = -1
        pad = [reach, reach, 0, 0] if dim == -1 else [0, 0, reach, reach]
        small = F.conv2d(F.pad(small, pad, mode="replicate"), kernel.view(shape))
    return resample(small, (height, width))


def _as_float(
    frames: np.ndarray | torch.Tensor, device: torch.device | str
) -> torch.Tensor:
    """Float32 ``(B, Y, X)`` on the device, each frame above its own minimum.

    The minimum goes before anything is rounded: differences of 16- to 64-bit values
    survive, and a constant frame is 0 and not the rounding errors of a resampling,
    which would be scaled up to unit variance.
    """
    if isinstance(frames, torch.Tensor):
        x = frames.to(device, torch.float32).reshape(-1, *frames.shape[-2:])
        return x - x.amin((-2, -1), keepdim=True)
    frames = np.asarray(frames)
    frames = frames.reshape(-1, *frames.shape[-2:])
    if frames.dtype == np.uint8:
        # Moved as bytes: a quarter of the memory.
        frames = np.require(frames, requirements=["C", "W"])
        x = torch.from_numpy(frames).to(device).float()
        return x.sub_(x.amin((-2, -1), keepdim=True))
    made = np.empty(frames.shape, np.float32)
    for frame, out in zip(frames, made, strict=True):
        if frame.dtype.kind == "f":
            frame = _finite(frame)
        lowest = np.asarray(frame.min(), np.float64)
        np.subtract(frame, lowest, out=out, dtype=np.float64, casting="unsafe")
    return torch.from_numpy(made).to(device)


def _finite(frame: np.ndarray) -> np.ndarray:
    """The frame, with what is no number or absurdly large set to its median."""
    with np.errstate(invalid="ignore"):
        if -_LARGEST < frame.min() and frame.max() < _LARGEST:  # False for NaN
            return frame
        good = np.abs(frame) < _LARGEST
    fill = np.median(frame[good].astype(np.float64)) if good.any() else 0.0
    return np.where(good, frame, fill)
