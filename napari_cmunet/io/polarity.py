"""Whether arteries are dark, as the network needs them; inversion of grey values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from napari_cmunet.io.lazy_frames import LazyFrames

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

BRIGHT_NOTE = (
    "its arteries seem to be bright, and the model expects dark ones: invert the image"
)
_SIDE = 256  # pixels of the reduced frame
_SMALLEST = 128
_WIDTH = 1.5  # Gaussian width on the reduced frame
_MARGIN = 8
_BRIGHT = -0.35


def polarity(frame: np.ndarray) -> float:
    """Return a score above 0 for dark arteries and below 0 for bright ones.

    It compares the strongest dark ridges of a width of fine vessels with the
    strongest bright ones, each at its local level of contrast. Inverting the frame
    changes its sign. Figures: ``benchmarks/results/polarity.md``.

    Parameters
    ----------
    frame : array (Y, X)
        Finite grey values.

    Returns
    -------
    float
        0 if the frame is too small or has no structure.
    """
    if min(frame.shape) < _SMALLEST:
        return 0.0
    grey = _reduced(frame)
    low, high = map(float, np.percentile(grey[::2, ::2], (1, 99)))
    if not high > low:
        return 0.0
    # Centred on 0, since the truncated filters do not sum to exactly 0.
    grey = np.clip((grey - low) / (high - low), 0, 1) - 0.5
    inner = scipy.ndimage.minimum_filter(np.abs(grey) < 0.48, 11)
    middle = np.zeros_like(inner)
    middle[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    inner &= middle
    dark, bright = _ridges(grey, inner if inner.mean() > 0.03 else middle)
    return float(np.log((dark + 1e-6) / (bright + 1e-6)))


def has_bright_vessels(frame: np.ndarray) -> bool:
    """Whether the arteries of a frame are very likely bright."""
    return polarity(frame) < _BRIGHT


def invert(
    frames: np.ndarray | LazyFrames,
) -> np.ndarray | LazyFrames:
    """Invert grey values; twice gives the same values back.

    Integers are complemented within their type, floating-point numbers negated.
    """
    if isinstance(frames, LazyFrames):
        return frames.mapped(invert_array)
    return invert_array(np.asarray(frames))


def invert_window(window: tuple[float, float], dtype: DTypeLike) -> tuple[float, float]:
    """Return the window of inverted grey values."""
    kind = np.dtype(dtype)
    both = float(np.iinfo(kind).max) if kind.kind == "u" else -1.0
    if kind.kind == "f":
        both = 0.0
    return both - window[1], both - window[0]


def invert_array(frames: np.ndarray) -> np.ndarray:
    """Invert grey values of an array in memory, as :func:`invert` does."""
    return -frames if frames.dtype.kind == "f" else ~frames


def _reduced(frame: np.ndarray) -> np.ndarray:
    step = max(1, round(max(frame.shape) / _SIDE))
    rows, columns = (n // step for n in frame.shape)
    cropped = frame[: rows * step, : columns * step].astype(np.float32)
    if step == 1:
        return cropped
    by_rows = np.stack([cropped[i::step] for i in range(step)]).sum(axis=0)
    blocks = np.stack([by_rows[:, i::step] for i in range(step)]).sum(axis=0)
    return blocks / step**2


def _ridges(grey: np.ndarray, inner: np.ndarray) -> tuple[float, float]:
    """Return how strong the dark and the bright ridges are."""
    rows, columns, mixed = (
        scipy.ndimage.gaussian_filter(
            grey, _WIDTH, order=order, mode="nearest", truncate=5.0
        )
        for order in ((2, 0), (0, 2), (1, 1))
    )
    middle = (rows + columns) / 2
    spread = np.hypot((rows - columns) / 2, mixed)
    upper, lower = middle + spread, middle - spread
    dark = np.maximum(upper - np.abs(lower), 0)
    bright = np.maximum(-lower - np.abs(upper), 0)
    level = scipy.ndimage.uniform_filter(dark**2 + bright**2, 49)
    level = np.sqrt(np.maximum(level, 0)) + 5e-5
    strongest = []
    for ridges in (dark, bright):
        strengths = (ridges / level)[inner]
        strengths *= strengths
        strengths *= strengths
        strongest.append(float(strengths.mean()))
    return strongest[0], strongest[1]
