"""Pictures of a frame with its mask in colour, and a frame's grey levels as shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_cmunet.util.atomic import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

# Orange that lets the vessel through and suits every kind of colour vision.
COLOUR, _OPACITY = (255, 140, 0), 0.45


def write_overlay(
    path: Path,
    frame: np.ndarray,
    mask: np.ndarray,
    window: tuple[float, float] | None = None,
) -> None:
    """Write a PNG of a frame (Y, X) with its mask (Y, X, bool) in orange.

    Parameters
    ----------
    window : (low, high), optional
        Grey values to show as black and white; nearly all of the frame's by default.

    Raises
    ------
    WriteError
    """
    colour = np.repeat(grey_levels(frame, window)[..., None], 3, axis=-1)
    mixed = (1 - _OPACITY) * colour + _OPACITY * np.array(COLOUR)
    colour[mask] = mixed[mask]
    with atomic_write(path) as handle:
        Image.fromarray(colour.round().astype(np.uint8)).save(handle, "PNG")


def grey_levels(
    frame: np.ndarray, window: tuple[float, float] | None = None
) -> np.ndarray:
    """Return a frame (Y, X) as it is shown, float64 from 0 to 255.

    Parameters
    ----------
    window : (low, high), optional
        Grey values to show as black and white; nearly all of the frame's by default.
    """
    low, high = window or np.percentile(frame, (0.5, 99.5))
    scale = 255 / max(high - low, 1e-9)
    return np.clip((frame.astype(np.float64) - low) * scale, 0, 255)
