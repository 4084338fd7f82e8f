"""Masks of some frames of an image, a bit a pixel."""

from __future__ import annotations

import numpy as np


class FrameMasks:
    """Bool masks (Y, X) by frame; a frame without one is empty.

    Parameters
    ----------
    shape : (Y, X)
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._packed: dict[int, np.ndarray] = {}

    def __setitem__(self, frame: int, mask: np.ndarray) -> None:
        self.clear(frame)
        if mask.any():
            self._packed[frame] = np.packbits(mask)

    def clear(self, frame: int) -> None:
        """Forget the mask of a frame."""
        self._packed.pop(frame, None)

    def __contains__(self, frame: int) -> bool:
        return frame in self._packed

    def __getitem__(self, frame: int) -> np.ndarray:
        packed = self._packed.get(frame)
        if packed is None:
            return np.zeros(self._shape, bool)
        count = self._shape[0] * self._shape[1]
        return np.unpackbits(packed, count=count).view(bool).reshape(self._shape)

    def drawn(self, frame: int, found: np.ndarray, value: int) -> np.ndarray:
        """Values uint8 (Y, X): 1 where found, ``value`` where the mask is besides."""
        pixels = found.astype(np.uint8)
        if frame in self:
            pixels[self[frame] & ~found] = value
        return pixels
