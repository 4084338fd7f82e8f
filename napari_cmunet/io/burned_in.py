"""Detect text that is burned into the borders of a frame.

Screen captures often show names and dates. The heuristic finds lines of several
characters in one bright or dark tone; its absence proves nothing.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import find_objects, label, maximum_filter, minimum_filter

BORDER = 0.25
"""Share of the frame's height and width at each side that is searched."""

_CHARACTERS = 4  # in a line
_STEP = 0.35  # least jump from a character to what is beside it, of the whole range
_SMALLEST, _LARGEST = 5, 0.09  # height: pixels, and part of the frame's


def has_text(frame: np.ndarray, other: np.ndarray | None = None) -> bool:
    """Whether a line of text seems to be near the border of a frame.

    Parameters
    ----------
    frame : array (Y, X)
    other : array (Y, X), optional
        Another frame of the cine: text stays where it is, vessels do not.
    """
    values = np.asarray(frame, np.float32)
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return False
    values = (values - low) / (high - low)
    still = np.ones(frame.shape, bool) if other is None else frame == other
    near = _near_border(frame.shape)
    for bright in (True, False):
        tone = values if bright else 1 - values
        # A character is of one tone: its brightest, and no noise in it.
        ink = (tone > 0.97) & still & near
        if not ink.any():
            continue
        ink &= tone - minimum_filter(tone, 5) > _STEP
        if ink.any() and _has_line(ink):
            return True
    return False


def _near_border(shape: tuple[int, int]) -> np.ndarray:
    near = np.ones(shape, bool)
    rows, columns = (max(1, round(n * BORDER)) for n in shape)
    near[rows:-rows, columns:-columns] = False
    return near


def _has_line(ink: np.ndarray) -> bool:
    """Whether enough character-like components form a line."""
    # Strokes of a character that barely touch belong together.
    pieces, count = label(maximum_filter(ink, (3, 1)), np.ones((3, 3)))
    if count > 5000:  # noise, not writing
        return False
    boxes: list[tuple[int, ...]] = []
    tallest = max(_SMALLEST, _LARGEST * ink.shape[0])
    for rows, columns in find_objects(pieces):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if _SMALLEST <= height <= tallest and width <= 2.5 * height:
            boxes.append((rows.start, rows.stop, columns.start, columns.stop))
    boxes.sort(key=lambda box: box[2])
    return any(_line_from(box, boxes) >= _CHARACTERS for box in boxes)


def _line_from(first: tuple[int, ...], boxes: list[tuple[int, ...]]) -> int:
    """Count the characters of the line that starts with this one."""
    line, last = 1, first
    for box in boxes:
        height = last[1] - last[0]
        same_line = abs(box[1] - last[1]) <= 0.35 * height
        alike = 0.5 <= (box[1] - box[0]) / height <= 2
        gap = box[2] - last[3]
        if same_line and alike and -1 <= gap <= 1.5 * height:
            line, last = line + 1, box
    return line
