"""Carrying a mask from one frame of a cine to a nearby one, as a proposal."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from skimage.registration import optical_flow_ilk

SIDE = 256
"""The motion is found on frames of about so many pixels a side."""

_FINE, _COARSE = 1.0, 12.0  # what moves is between these scales, in pixels of SIDE
_RADIUS, _WARPS = 7, 10


def carry_mask(mask: np.ndarray, *frames: np.ndarray) -> np.ndarray:
    """Move a frame's mask along with the vessels to a nearby frame.

    Parameters
    ----------
    mask : bool array (Y, X)
        Of the first of ``frames``.
    *frames : array (Y, X)
        Of one cine: the mask's own frame, those between, and last the wanted one.

    Returns
    -------
    bool array (Y, X)
        A proposal for the last frame: what moved out of sight or was filled since is
        not known to it.

    Notes
    -----
    Iterative Lucas-Kanade optical flow [1]_ on frames without their slow shading, from
    frame to frame: over several at once a beating heart moves too far for it. How well
    it does is told in ``docs/dicom.md`` (``benchmarks/cine_table.py``).

    References
    ----------
    .. [1] G. Le Besnerais and F. Champagnat, "Dense optical flow by iterative local
       window registration", ICIP 2005.
    """
    way = np.zeros((2, *mask.shape), np.float32)
    # From the last frame back: where was each of its pixels, one frame earlier?
    for later, earlier in zip(frames[:0:-1], frames[-2::-1], strict=True):
        step = motion(earlier, later)
        way += step if not way.any() else np.stack([warp(part, way) for part in step])
    return warp(mask.astype(np.float32), way) > 0.5


def motion(frame: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Where each pixel of ``neighbour`` was in ``frame``: offsets (2, Y, X), pixels."""
    height, width = frame.shape
    shrink = min(1.0, SIDE / max(height, width))
    moved = optical_flow_ilk(
        _detail(neighbour, shrink),
        _detail(frame, shrink),
        radius=_RADIUS,
        num_warp=_WARPS,
    )
    back = (height / moved.shape[1], width / moved.shape[2])
    return np.stack(
        [
            zoom(part, back, order=1) * factor
            for part, factor in zip(moved, back, strict=True)
        ]
    )


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Take an image's values (Y, X) from where the flow says that they were."""
    rows, columns = np.indices(image.shape, np.float32)
    return map_coordinates(
        image, [rows + flow[0], columns + flow[1]], order=1, mode="constant"
    )


def _detail(frame: np.ndarray, shrink: float) -> np.ndarray:
    small = np.asarray(frame, np.float32)
    if shrink < 1:
        small = zoom(gaussian_filter(small, 0.5 / shrink), shrink, order=1)
    detail = gaussian_filter(small, _FINE) - gaussian_filter(small, _COARSE)
    return detail / max(float(detail.std()), 1e-6)
