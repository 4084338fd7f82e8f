"""Mask propagation from one frame of a cine to a nearby one, by optical flow."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from skimage.registration import optical_flow_ilk

SIDE = 256
"""Side, in pixels, to which frames are reduced for the optical flow."""

_FINE, _COARSE = 1.0, 12.0  # scales of a band-pass, in reduced pixels
_RADIUS, _WARPS = 7, 10


def propagate_mask(mask: np.ndarray, *frames: np.ndarray) -> np.ndarray:
    """Move the mask of a frame with the vessels to a nearby frame.

    Parameters
    ----------
    mask : bool array (Y, X)
        Of the first of ``frames``.
    *frames : array (Y, X)
        The frame of the mask, those between, and the target frame last.

    Returns
    -------
    bool array (Y, X)
        Mask for the last frame. Vessels filled since then are missing.

    Notes
    -----
    Iterative Lucas-Kanade optical flow [1]_ on band-passed frames, from frame to frame:
    over several at once the heart moves too far.

    References
    ----------
    .. [1] G. Le Besnerais and F. Champagnat, "Dense optical flow by iterative local
       window registration", ICIP 2005.
    """
    flow = np.zeros((2, *mask.shape), np.float32)
    # Composed from the last frame backwards.
    for later, earlier in zip(frames[:0:-1], frames[-2::-1], strict=True):
        step = estimate_motion(earlier, later)
        flow += (
            step if not flow.any() else np.stack([warp(part, flow) for part in step])
        )
    return warp(mask.astype(np.float32), flow) > 0.5


def estimate_motion(frame: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Offsets (2, Y, X) of pixels of ``neighbour`` to their place in ``frame``."""
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
    """Sample an image (Y, X) at the positions given by a flow."""
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
