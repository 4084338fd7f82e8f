"""Whether a mask lies on its image as it should, or mirrored or turned."""

from __future__ import annotations

import numpy as np
import scipy

_FINE, _COARSE = 1.0, 12.0  # standard deviations, in pixels of 512
_CLEARLY = 0.1
"""Correlation that another orientation must have more than the mask's own."""
_TURNS = {
    "upside down": lambda mask: mask[::-1],
    "mirrored": lambda mask: mask[:, ::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
    "with rows and columns exchanged": lambda mask: mask.T,
    "turned by 90 degrees": lambda mask: np.rot90(mask),
    "turned by 270 degrees": lambda mask: np.rot90(mask, 3),
    "exchanged along the other diagonal": lambda mask: mask[::-1, ::-1].T,
}


def better_orientation(frame: np.ndarray, mask: np.ndarray) -> str:
    """Return how a mask seems to lie wrongly on its frame; empty if it does not.

    Arteries differ from what is around them, so that the mask correlates with the local
    contrast. Of a mask that was mirrored or turned, another orientation does.

    Parameters
    ----------
    frame : array (Y, X)
    mask : bool array (Y, X)
    """
    if not mask.any() or mask.all():
        return ""
    contrast = _local_contrast(frame)
    own = _correlation(contrast, mask)
    found = {
        name: _correlation(contrast, turned)
        for name, turn in _TURNS.items()
        if (turned := turn(mask)).shape == mask.shape
    }
    name = max(found, key=lambda n: found[n])
    return name if found[name] > max(2 * own, own + _CLEARLY) else ""


def _local_contrast(frame: np.ndarray) -> np.ndarray:
    scale = max(frame.shape) / 512
    grey = frame.astype(np.float32)
    difference = scipy.ndimage.gaussian_filter(
        grey, _FINE * scale
    ) - scipy.ndimage.gaussian_filter(grey, _COARSE * scale)
    # Robust against devices and letters.
    limit = 3 * float(np.std(difference)) or 1.0
    return np.clip(difference, -limit, limit)


def _correlation(contrast: np.ndarray, mask: np.ndarray) -> float:
    spread, share = float(contrast.std()), float(mask.mean())
    if not spread:
        return 0.0
    inside = float(contrast[mask].mean() - contrast.mean())
    return abs(inside) / spread * (share / (1 - share)) ** 0.5
