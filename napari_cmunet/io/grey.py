"""From stored pixels to what the network can take: one grey, finite value a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ReadError

if TYPE_CHECKING:
    from pathlib import Path

# A pixel is coloured where its channels differ by more than this part of the range.
# The slight tints of WebP, JPEG and scanners stay below it.
_COLOURED = 1 / 16
# An annotation in colour covers less than this part of a frame; a photograph, more.
_MOST_COLOURED = 0.01
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# Beyond this, float32 arithmetic overflows; such values only ever mark missing data.
_LARGEST = np.float64(1e30)


def to_grey(
    path: Path, array: np.ndarray, *, allow_tint: bool = True
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reduce (T, Y, X, S) to (T, Y, X) and say what was lost.

    Equal channels become one. Slight colour is converted to luminance. Alpha is
    ignored.

    Raises
    ------
    ReadError
        For a picture that is really in colour; for any colour at all where
        ``allow_tint`` is False.
    """
    samples = array.shape[-1]
    notes: list[str] = []
    if samples in (2, 4):
        alpha = array[..., -1]
        if (alpha != alpha.flat[0]).any():
            notes.append("its transparency was ignored")
    if samples < 3:
        return np.ascontiguousarray(array[..., 0]), tuple(notes)
    full = 255.0 if array.dtype == np.uint8 else _largest_of(array)
    grey = np.empty(array.shape[:3], array.dtype)
    coloured = 0
    for index, frame in enumerate(array):
        grey[index], count = _frame_to_grey(frame, full, allow_tint)
        coloured += count
    part = coloured / grey.size
    if part > (_MOST_COLOURED if allow_tint else 0):
        percent = max(1, round(100 * part))
        raise ReadError(
            path,
            f"it is a colour picture ({percent} % of its pixels are coloured), and an "
            f"angiogram is grey. Export it in grey.",
        )
    if coloured:
        notes.append("coloured marks in it were converted to grey")
    return grey, tuple(notes)


def _largest_of(array: np.ndarray) -> float:
    largest = max(float(np.nanmax(np.abs(frame), initial=0)) for frame in array)
    return largest if 0 < largest < _LARGEST else 1.0


def _frame_to_grey(
    frame: np.ndarray, full: float, allow_tint: bool
) -> tuple[np.ndarray, int]:
    """Return one frame (Y, X) and its number of coloured pixels."""
    grey = np.array(frame[..., 0])
    coloured = 0
    step = max(1, 2_000_000 // frame.shape[1])
    for top in range(0, len(frame), step):  # in bands, to keep memory small
        rows = slice(top, top + step)
        band = frame[rows, :, :3].astype(np.float64)
        spread = band.max(-1) - band.min(-1)
        if not (spread > 0).any():
            continue
        limit = _COLOURED * full if allow_tint else 0.0
        coloured += int((spread > limit).sum())
        luminance = band @ _LUMINANCE
        if grey.dtype.kind != "f":
            luminance = np.rint(luminance)
        grey[rows] = luminance.astype(grey.dtype)
    return grey, coloured


def to_plain_type(array: np.ndarray) -> np.ndarray:
    """Convert to a native (u)int8..32 or float16..64 array; bool becomes 0 and 1."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.view(np.uint8)
    if kind in "iu" and size == 8:
        for smaller in (np.int32, np.uint32):
            info = np.iinfo(smaller)
            if array.min() >= info.min and array.max() <= info.max:
                return array.astype(smaller)
        return array.astype(np.float64)
    if kind == "f" and size > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def make_finite(path: Path, frames: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Replace NaN, infinities and absurd values by the median of their frame.

    The median disturbs flattening and standardisation least.
    """
    if frames.dtype.kind != "f":
        return frames, ()
    result = frames
    bad = 0
    hopeless: list[int] = []
    for index, frame in enumerate(frames):
        good = np.abs(frame) < _LARGEST  # False for NaN
        if good.all():
            continue
        if result is frames:
            result = frames.copy()
        bad += good.size - int(good.sum())
        if good.any():
            result[index][~good] = np.median(frame[good].astype(np.float64))
        else:
            hopeless.append(index)
    if len(hopeless) == len(frames):
        raise ReadError(
            path,
            "none of its values is a usable number (all are NaN or infinite). Export "
            "it again.",
        )
    usable = [i for i in range(len(frames)) if i not in set(hopeless)]
    for index in hopeless:
        nearest = min(usable, key=lambda i: abs(i - index))
        result[index] = np.median(result[nearest])
    if not bad:
        return frames, ()
    values = "1 value" if bad == 1 else f"{bad} values"
    return result, (f"{values} (NaN or infinite) replaced by the median of the frame",)
