"""Pictures of a frame: its grey levels, its mask in colour, its measured lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from napari_cmunet.io.measured_lesion import tree_lesions
from napari_cmunet.util.safe_files import atomic_write
from napari_cmunet.vessels.qca import Calibration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_cmunet.io.measured_lesion import MeasuredLesion
    from napari_cmunet.vessels.borders import Borders
    from napari_cmunet.vessels.qca import Analysis

# Orange that lets the vessel through and suits every kind of colour vision.
COLOUR, _OPACITY = (255, 140, 0), 0.45
_BORDER, _LESION = (86, 180, 233), (230, 159, 0)


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


def draw_lesions(
    frame: np.ndarray,
    window: tuple[float, float] | None,
    borders: Iterable[Borders],
    lesions: Iterable[MeasuredLesion],
) -> Image.Image:
    """Draw a frame, twice as large, with borders and numbered lesions."""
    grey = Image.fromarray(grey_levels(frame, window).astype(np.uint8))
    picture = grey.convert("RGB").resize((2 * grey.width, 2 * grey.height))
    draw = ImageDraw.Draw(picture)
    for part in borders:
        for curve in part.curves():
            draw.line(_points(curve), fill=_BORDER)
    for number, lesion in enumerate(lesions, 1):
        if lesion.stretch is not None:
            inside = slice(lesion.stretch.start, lesion.stretch.end + 1)
            for curve in lesion.stretch.borders.curves():
                draw.line(_points(curve[inside]), fill=_LESION, width=3)
        percent = lesion.number("diameter_stenosis_percent")
        if lesion.place is None or percent is None:
            continue
        row, column = lesion.place
        draw.text(
            (2 * column + 14, 2 * row - 12),
            f"{number}: {percent:.0f} %",
            fill=_LESION,
            font_size=20,
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )
    return picture


def write_picture(
    path: Path,
    frame: np.ndarray,
    segments: dict[int, Analysis],
    window: tuple[float, float] | None = None,
) -> None:
    """Write a PNG of the frame, with all borders and ranked lesions.

    Raises
    ------
    WriteError
    """
    borders = [analysis.borders for analysis in segments.values()]
    lesions = tree_lesions(segments, Calibration())
    with atomic_write(path) as handle:
        draw_lesions(frame, window, borders, lesions).save(handle, "PNG")


def _points(curve: np.ndarray) -> list[tuple[float, float]]:
    return [(2 * column + 0.5, 2 * row + 0.5) for row, column in curve]
