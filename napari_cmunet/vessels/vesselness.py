"""Where a frame looks like a vessel: vesselness, and the cost map of a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Callable

SCALES = (1.4, 2.2, 3.5)
"""Gaussian widths in pixels of the working grid: lumens of about 2 to 12 pixels."""

WORKING_SIDE = 640
"""Longer frames are processed on a grid of steps of two or more pixels."""

_FLOOR = 0.4


@dataclass(frozen=True)
class FrameFeatures:
    """What the vessel tools compute from a frame, whatever its mask."""

    #: float32 array (Y, X); on the frame's own grid, 0 to 1 between its 1st and
    #: 99th percentile.
    grey: np.ndarray
    #: uint8 array (Y, X); of the network, on the frame's own grid; zeros where
    #: nothing was predicted.
    probability: np.ndarray
    step: int  # pixels of the frame per pixel of the working grid
    vesselness: np.ndarray  # float32 array; on the working grid, 0 to 1
    #: float32 array; vesselness and probability combined, on the working grid, 0 to
    #: 1.
    vessel_map: np.ndarray
    #: float64 array; cost of each pixel of the working grid for a path, 1 or more.
    cost: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frame."""
        return self.grey.shape


def vesselness(grey: np.ndarray, scales: tuple[float, ...] = SCALES) -> np.ndarray:
    """Response to dark tubes, 0 to 1.

    The largest over several scales of the curvature across less that along the tube
    (Sato et al. 1998, doi 10.1016/S1361-8415(98)80009-1), normalised by its local
    level, so that a faint branch counts as much as a dense one.

    Parameters
    ----------
    grey : float array (Y, X)
        Arteries dark.
    scales : tuple of float
        Gaussian widths in pixels.

    Returns
    -------
    float32 array (Y, X)
    """
    best = np.zeros(grey.shape, np.float32)
    for sigma in scales:
        rows, columns, mixed = (
            scipy.ndimage.gaussian_filter(
                grey, sigma, order=order, mode="nearest", truncate=3.0
            )
            for order in ((2, 0), (0, 2), (1, 1))
        )
        middle = (rows + columns) / 2
        spread = np.hypot((rows - columns) / 2, mixed)
        across, along = middle + spread, middle - spread
        np.maximum(best, sigma**2 * (across - np.abs(along)), out=best)
    typical = scipy.ndimage.gaussian_filter(best, 32, mode="nearest", truncate=2.0)
    typical = np.maximum(typical, np.percentile(best, 50) + 1e-6)
    return np.clip(best / (6 * typical), 0, 1)


def compute_features(
    frame: np.ndarray, probability: np.ndarray | None = None
) -> FrameFeatures:
    """Compute the features of a frame.

    Parameters
    ----------
    frame : array (Y, X)
        Grey values of any real type, arteries dark.
    probability : uint8 array (Y, X), optional
    """
    grey = _grey(frame)
    if probability is None:
        probability = np.zeros(grey.shape, np.uint8)
    step = max(1, round(max(grey.shape) / WORKING_SIDE + 0.25))
    small = reduce_to_grid(grey, step, np.mean)
    confidence = reduce_to_grid(probability, step, np.max).astype(np.float32) / 255
    ridges = vesselness(small)
    # The network tells arteries from ribs; vesselness finds the centreline and
    # continues where the network lost the vessel.
    vessel_map = confidence + (1 - confidence) * ridges
    vessel_map = np.maximum(scipy.ndimage.gaussian_filter(vessel_map, 0.5), 0)
    cost = (1 + _FLOOR) / (vessel_map + _FLOOR)
    return FrameFeatures(
        grey, probability, step, ridges, vessel_map, cost.astype(np.float64)
    )


def reduce_to_grid(
    pixels: np.ndarray, step: int, how: Callable[..., np.ndarray]
) -> np.ndarray:
    """Reduce an array (Y, X) to the working grid, block by block."""
    if step == 1:
        return pixels
    rows, columns = (-(-n // step) for n in pixels.shape)
    padded = np.pad(
        pixels,
        ((0, rows * step - pixels.shape[0]), (0, columns * step - pixels.shape[1])),
        mode="edge",
    )
    return how(padded.reshape(rows, step, columns, step), axis=(1, 3))


def _grey(frame: np.ndarray) -> np.ndarray:
    grey = np.nan_to_num(np.asarray(frame, np.float32), posinf=0, neginf=0)
    low, high = np.percentile(grey[::3, ::3], (1, 99))
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
