"""What is known of one frame before anybody clicks: made once, off the GUI thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_cmunet.vessels.vesselness import vesselness

WORKING_SIDE = 640
"""Longer sides are worked on in steps of two or more pixels."""

_FLOOR = 0.4


@dataclass(frozen=True)
class Evidence:
    """A frame as the vessel tools see it.

    Parameters
    ----------
    grey : float32 array (Y, X)
        On the frame's own grid, 0 to 1 between its 1st and 99th percentile.
    probability : uint8 array (Y, X)
        Of the network, on the frame's own grid; zeros where nothing was predicted.
    step : int
        Pixels of the frame for one of the working grid.
    ridge : float32 array
        Vesselness on the working grid.
    pull : float32 array
        How much each pixel of the working grid looks like a vessel, to network and
        ridge together; 0 to 1.
    cost : float64 array
        What a path pays for each pixel of the working grid, from 1 on.
    """

    grey: np.ndarray
    probability: np.ndarray
    step: int
    ridge: np.ndarray
    pull: np.ndarray
    cost: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Of the frame."""
        return self.grey.shape


def gather(frame: np.ndarray, probability: np.ndarray | None = None) -> Evidence:
    """Prepare a frame for the tools; a tenth of a second, so off the GUI thread.

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
    small = coarse(grey, step, np.mean)
    sure = coarse(probability, step, np.max).astype(np.float32) / 255
    ridge = vesselness(small)
    # The network knows arteries from ribs; the ridge knows where the middle is, and
    # reaches on where the network lost the vessel.
    pull = sure + (1 - sure) * ridge
    pull = np.maximum(gaussian_filter(pull, 0.5), 0)
    cost = (1 + _FLOOR) / (pull + _FLOOR)
    return Evidence(grey, probability, step, ridge, pull, cost.astype(np.float64))


def coarse(pixels: np.ndarray, step: int, how) -> np.ndarray:
    """Bring an array (Y, X) to the working grid, block by block."""
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
