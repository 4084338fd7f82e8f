"""Patch masking and the reconstruction loss of masked patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def patch_mask(
    noise: torch.Tensor,
    sides: tuple[int, int],
    ratio: float,
    vessels: torch.Tensor | None = None,
    guidance: float = 0.0,
) -> torch.Tensor:
    """Draw the masked patches of each frame.

    Parameters
    ----------
    noise : float tensor (B, rows * columns)
        Uniform random numbers, one for each patch.
    sides : (int, int)
        Rows and columns of patches.
    ratio : float
        Share of the patches that is masked; the same number in every frame.
    vessels : tensor (B, 1, rows, columns), optional
        How much of a vessel each patch holds, from :func:`vesselness`.
    guidance : float
        Share of the masked patches that is drawn by ``vessels`` and not uniformly
        (after VasoMIM, arXiv 2508.10794).

    Returns
    -------
    bool tensor (B, 1, rows, columns), True where masked
    """
    n = noise.shape[1]
    hidden = max(1, min(n - 1, round(ratio * n)))
    odds = torch.full_like(noise, 1 / n)
    if vessels is not None and guidance > 0:
        v = vessels.reshape(noise.shape).clamp_min(0)
        total = v.sum(1, keepdim=True)
        by_vessels = torch.where(total > 0, v / total.clamp_min(1e-12), odds)
        odds = (1 - guidance) * odds + guidance * by_vessels
    # The largest of log-odds plus Gumbel noise: a draw without replacement.
    gumbel = -torch.log(-torch.log(noise.clamp(1e-7, 1 - 1e-7)))
    chosen = (torch.log(odds.clamp_min(1e-12)) + gumbel).topk(hidden, 1).indices
    mask = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device)
    return mask.scatter_(1, chosen, True).view(-1, 1, *sides)


def to_pixels(mask: torch.Tensor, patch: int) -> torch.Tensor:
    """Patches ``(B, 1, rows, columns)`` to pixels, ``patch`` a side."""
    return mask.repeat_interleave(patch, -2).repeat_interleave(patch, -1)


def to_patches(x: torch.Tensor, patch: int) -> torch.Tensor:
    """``(B, 1, H, W)`` to ``(B, H / patch * W / patch, patch * patch)``."""
    return F.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def from_patches(x: torch.Tensor, patch: int, sides: tuple[int, int]) -> torch.Tensor:
    """Inverse of :func:`to_patches`."""
    return F.pixel_shuffle(x.transpose(1, 2).unflatten(2, sides), patch)


def patch_statistics(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each patch, broadcastable to ``patches``."""
    mean = patches.mean(-1, keepdim=True)
    var = patches.var(-1, keepdim=True, unbiased=False)
    # A patch below 0.01 holds nothing but the rounding of float16.
    return mean, (var + 1e-4).sqrt()


def reconstruction_loss(
    predicted: torch.Tensor, frames: torch.Tensor, mask: torch.Tensor, patch: int
) -> torch.Tensor:
    """Mean squared error over masked patches, each patch of the frame normalised.

    A prediction of 0 everywhere scores 1 where all patches have contrast.

    Parameters
    ----------
    predicted, frames : tensors (B, 1, H, W)
    mask : bool tensor (B, 1, H / patch, W / patch)
    """
    wanted = to_patches(frames.float(), patch)
    mean, std = patch_statistics(wanted)
    error = to_patches(predicted.float(), patch) - (wanted - mean) / std
    each = error.square().mean(-1)
    hidden = mask.flatten(1).to(each.dtype)
    return (each * hidden).sum() / hidden.sum().clamp_min(1)


def vesselness(
    frames: torch.Tensor, sigmas: tuple[float, ...] = (1.0, 2.0, 3.5)
) -> torch.Tensor:
    """How much each pixel looks like a point of a dark tube; ``(B, 1, H, W)``.

    The largest eigenvalue of the Hessian, less the size of the other one, so that
    round blobs do not count; the largest over scales (after Frangi and Sato).
    """
    best = torch.zeros_like(frames)
    for sigma in sigmas:
        reach = math.ceil(3 * sigma)
        t = torch.arange(-reach, reach + 1, device=frames.device, dtype=frames.dtype)
        g = torch.exp(-0.5 * (t / sigma) ** 2)
        g = g / g.sum()
        first = -t / sigma**2 * g
        second = (t**2 / sigma**4 - 1 / sigma**2) * g
        padded = F.pad(frames, (reach,) * 4, mode="replicate")
        # Along x with each derivative, then along y.
        x0, x1, x2 = (F.conv2d(padded, k.view(1, 1, 1, -1)) for k in (g, first, second))
        xx = F.conv2d(x2, g.view(1, 1, -1, 1))
        yy = F.conv2d(x0, second.view(1, 1, -1, 1))
        xy = F.conv2d(x1, first.view(1, 1, -1, 1))
        half = (xx + yy) / 2
        root = (((xx - yy) / 2).square() + xy.square()).sqrt()
        across, along = half + root, half - root
        best = torch.maximum(best, sigma**2 * (across - along.abs()).clamp_min(0))
    return best
