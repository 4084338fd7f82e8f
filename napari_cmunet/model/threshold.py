"""Threshold: from artery probability to mask, keeping manual corrections."""

from __future__ import annotations

import math

import numpy as np

DEFAULT_THRESHOLD = 0.5


def threshold_byte(threshold: float) -> int:
    """Smallest probability byte (0 to 255) that counts as artery."""
    return int(np.clip(np.ceil(threshold * 255), 1, 255))


def log_odds(probability: float) -> float:
    """Logit of a probability between 0 and 1."""
    return math.log(probability / (1 - probability))


def mask_at(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Artery where the probability reaches the threshold.

    Parameters
    ----------
    probability : uint8 array, any shape
        Artery probability in steps of 1/255.
    threshold : float
        0 to 1.

    Returns
    -------
    bool array of the same shape
    """
    return probability >= threshold_byte(threshold)


def threshold_change(
    mask: np.ndarray, probability: np.ndarray, old: float, new: float
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Pixels that a new threshold changes in a mask that may have been corrected.

    A pixel that differs from the old threshold's mask was set by hand and stays.

    Parameters
    ----------
    mask : integer or bool array
        The mask as it is; above 0 is artery.
    old, new : float
        Thresholds, 0 to 1.

    Returns
    -------
    indices : tuple of integer arrays
        Of the pixels to set, as ``Labels.data_setitem`` takes them.
    values : uint8 array
        1 artery, 0 background, one for each pixel.
    """
    low, high = sorted((threshold_byte(old), threshold_byte(new)))
    band = (probability >= low) & (probability < high)
    was_artery = threshold_byte(old) == low
    band &= (mask > 0) == was_artery
    indices = np.nonzero(band)
    return indices, np.full(len(indices[0]), not was_artery, np.uint8)
