"""Best frame: the frame of a cine that is best filled with contrast agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 192
"""Side, in pixels, to which frames are reduced: a main artery is about 4 wide then."""

_WIDTH = 1.2  # scale of the ridges, in reduced pixels
_STRONG = 0.9  # quantile over all frames above which a ridge counts
_SMOOTHING = 1.0  # SD in frames of the smoothing over time


class Frames(Protocol):
    """Frames of a cine, an array or read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


def find_best_frame(
    frames: Frames, should_stop: Callable[[], bool] = lambda: False
) -> int | None:
    """Find the frame in which most artery is filled.

    Counts pixels on dark ridges of about the width of an artery. Bones and catheter are
    in every frame and make no difference.

    Parameters
    ----------
    frames : array (T, Y, X)
        Arteries dark. May be lazy; each frame is read once.
    should_stop : callable
        Called before each frame.

    Returns
    -------
    int or None
        None if stopped, or if there is no ridge.
    """
    filled = fill_curve(frames, should_stop)
    if filled is None or not filled.any():
        return None
    return int(np.argmax(filled))


def fill_curve(
    frames: Frames, should_stop: Callable[[], bool] = lambda: False
) -> np.ndarray | None:
    """Filling of each frame in arbitrary units; None if stopped.

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
    # Their number, not their strength: a main artery counts no more than a branch.
    area = (strength > np.quantile(strength, _STRONG)).mean(axis=(1, 2))
    return gaussian_filter1d(area, _SMOOTHING, mode="nearest")


def _shrunk(frame: np.ndarray) -> np.ndarray:
    step = max(1, round(min(frame.shape) / SIDE))
    height, width = (n // step * step for n in frame.shape)
    small = np.asarray(frame[:height, :width], np.float32)
    return small.reshape(height // step, step, width // step, step).mean(axis=(1, 3))


def _ridges(frame: np.ndarray) -> np.ndarray:
    """Strength of dark ridges from the eigenvalues of the Hessian."""
    down = gaussian_filter(frame, _WIDTH, order=(2, 0))
    right = gaussian_filter(frame, _WIDTH, order=(0, 2))
    both = gaussian_filter(frame, _WIDTH, order=(1, 1))
    mean = (down + right) / 2
    spread = np.hypot((down - right) / 2, both)
    return np.clip(mean + spread - np.abs(mean - spread), 0, None)
