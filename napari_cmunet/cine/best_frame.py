"""Which frame of a cine is best filled with contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 192
"""Frames are looked at with about so many pixels a side: a trunk is 4 wide there."""

_WIDTH = 1.2  # scale of the ridges that are looked for, in pixels of SIDE
_STRONG = 0.9  # a ridge counts if it is stronger than this part of all, in any frame
_FRAMES_OF_NOISE = 1.0  # the curve over time is smoothed by this SD, in frames


def best_filled_frame(
    frames: np.ndarray, should_stop: Callable[[], bool] = lambda: False
) -> int | None:
    """Find the frame in which most artery is filled.

    Dark ridges of about the width of an artery are counted. Bones and the catheter,
    which are there in every frame, change nothing.

    Parameters
    ----------
    frames : array (T, Y, X)
        Arteries dark. May be lazy; each frame is taken once.
    should_stop : callable
        Asked before each frame.

    Returns
    -------
    int or None
        None if it was stopped, or if there is no ridge.
    """
    filled = filling(frames, should_stop)
    if filled is None or not filled.any():
        return None
    return int(np.argmax(filled))


def filling(
    frames: np.ndarray, should_stop: Callable[[], bool] = lambda: False
) -> np.ndarray | None:
    """How much of each frame is filled, in arbitrary units; None if stopped.

    Returns
    -------
    float array (T,) or None
    """
    ridges = []
    for index in range(len(frames)):
        if should_stop():
            return None
        ridges.append(_ridges(_shrunk(frames[index])))
    strength = np.stack(ridges)
    # By their number, not their strength: a wide trunk says no more than a distal
    # branch does.
    area = (strength > np.quantile(strength, _STRONG)).mean(axis=(1, 2))
    return gaussian_filter1d(area, _FRAMES_OF_NOISE, mode="nearest")


def _shrunk(frame: np.ndarray) -> np.ndarray:
    step = max(1, round(min(frame.shape) / SIDE))
    height, width = (n // step * step for n in frame.shape)
    small = np.asarray(frame[:height, :width], np.float32)
    return small.reshape(height // step, step, width // step, step).mean(axis=(1, 3))


def _ridges(frame: np.ndarray) -> np.ndarray:
    """Strength of dark ridges: curved across, straight along (Hessian eigenvalues)."""
    down = gaussian_filter(frame, _WIDTH, order=(2, 0))
    right = gaussian_filter(frame, _WIDTH, order=(0, 2))
    both = gaussian_filter(frame, _WIDTH, order=(1, 1))
    mean = (down + right) / 2
    spread = np.hypot((down - right) / 2, both)
    return np.clip(mean + spread - np.abs(mean - spread), 0, None)
