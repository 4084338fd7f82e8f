"""Vesselness: where a frame looks like a dark ridge, whatever the network says."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SCALES = (1.4, 2.2, 3.5)
"""Gaussian widths in pixels of the working grid: lumens of about 2 to 12 pixels."""


def vesselness(grey: np.ndarray, scales: tuple[float, ...] = SCALES) -> np.ndarray:
    """How much each pixel looks like a dark tube, 0 to 1.

    The larger curvature of the grey values at the best of several scales, as in
    Sato et al. 1998 (doi 10.1016/S1361-8415(98)80009-1), less the curvature along the
    tube; set against the local noise, so that a faint branch counts as much as a
    dense one.

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
            gaussian_filter(grey, sigma, order=order, mode="nearest", truncate=3.0)
            for order in ((2, 0), (0, 2), (1, 1))
        )
        middle = (rows + columns) / 2
        spread = np.hypot((rows - columns) / 2, mixed)
        across, along = middle + spread, middle - spread
        np.maximum(best, sigma**2 * (across - np.abs(along)), out=best)
    # Of a typical place of this frame; the square root keeps faint ridges in play.
    typical = gaussian_filter(best, 32, mode="nearest", truncate=2.0)
    typical = np.maximum(typical, np.percentile(best, 50) + 1e-6)
    return np.clip(best / (6 * typical), 0, 1)
