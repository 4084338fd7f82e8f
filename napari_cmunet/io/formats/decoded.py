"""The result of every decoder: limits checked before, grey values made of it after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ReadError
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.io.lazy_frames import LazyFrames
    from napari_cmunet.io.sniffing import SniffedFile

UNKNOWN_PIXEL_SIZE = "unknown"


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, not yet converted to finite grey values."""

    # (T, Y, X, S): S is 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA. Or grey and lazy.
    array: np.ndarray | LazyFrames
    is_cine: bool
    pixel_size_mm: tuple[float, float] | None = None  # (y, x)
    pixel_size_source: str = UNKNOWN_PIXEL_SIZE
    description: str = ""  # a TIFF's ImageDescription
    notes: tuple[str, ...] = ()
    window: tuple[float, float] | None = None  # grey values to show as black, white
    frames_per_second: float | None = None
    burned_in: bool = False  # the file declares text in its pixels


@dataclass(frozen=True)
class ReadLimits:
    """The largest and smallest images that are read.

    Checked against the declared sizes before decoding, so that a small file cannot
    claim all memory.
    """

    min_side: int = 32  # pixels; below that there is no vessel to be seen
    max_frame_pixels: int = 10_000 * 10_000
    max_decoded_bytes: int = 4 * 1024**3  # all frames together
    max_frames: int = 100_000


DEFAULT_LIMITS = ReadLimits()


@dataclass(frozen=True)
class Declared:
    """Size of an image according to its header."""

    frames: int
    height: int
    width: int
    bytes_per_pixel: int = 1  # all samples together, decoded

    def check(self, file: SniffedFile, limits: ReadLimits) -> None:
        """Raise ReadError where the size is outside the limits."""
        size = f"{self.height} x {self.width}"
        if self.frames < 1 or min(self.height, self.width) < 1:
            raise file.error("it holds no pixels. Export it again.")
        if min(self.height, self.width) < limits.min_side:
            raise file.error(
                f"its frames are {size} pixels, too small for an angiogram; at least "
                f"{limits.min_side} x {limits.min_side} are needed."
            )
        if self.height * self.width > limits.max_frame_pixels:
            side = math.isqrt(limits.max_frame_pixels)
            raise file.error(
                f"its frames are {size} pixels, more than the limit of {side} x "
                f"{side}. Crop it or reduce its size."
            )
        if self.frames > limits.max_frames:
            count = self.frames if self.frames < 10**9 else "a billion or more"
            raise file.error(
                f"it holds {count} frames, more than the limit of "
                f"{limits.max_frames}. Split it into shorter pieces."
            )
        decoded = self.frames * self.height * self.width * self.bytes_per_pixel
        if decoded > limits.max_decoded_bytes:
            raise file.error(
                f"its {self.frames} x {size} pixels need {decoded / 1024**3:.1f} GB of "
                f"memory, more than the limit of "
                f"{limits.max_decoded_bytes / 1024**3:.1f} GB. Split it into shorter "
                f"pieces or reduce its size."
            )


def shape_words(shape: tuple[int, ...]) -> str:
    """Format a shape as ``3 x 512 x 512``."""
    return " x ".join(str(n) for n in shape) if shape else "a single number"


# A pixel is coloured if its channels differ by more than this share of the range;
# tints of WebP, JPEG and scanners differ by less.
_COLOURED = 1 / 16
# Coloured annotations cover a smaller share of a frame than this.
_MOST_COLOURED = 0.01
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # luminance
# Beyond this, float32 arithmetic overflows; such values only ever mark missing data.
_LARGEST = np.float64(1e30)


def to_grey(
    path: Path, array: np.ndarray, *, allow_tint: bool = True
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reduce (T, Y, X, S) to (T, Y, X), with notes on what was lost.

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


@np.errstate(invalid="ignore", over="ignore")  # NaN is replaced later
def _frame_to_grey(
    frame: np.ndarray, full: float, allow_tint: bool
) -> tuple[np.ndarray, int]:
    """Return one frame (Y, X) and its number of coloured pixels."""
    grey = np.array(frame[..., 0])
    limit = _COLOURED * full if allow_tint else 0.0
    coloured = 0
    step = max(1, 1_000_000 // frame.shape[1])
    for top in range(0, len(frame), step):  # in bands, to keep memory small
        rows = slice(top, top + step)
        red, green, blue = (frame[rows, :, i] for i in range(3))
        if np.array_equal(red, green) and np.array_equal(red, blue):
            continue
        red, green, blue = (c.astype(np.float64) for c in (red, green, blue))
        spread = np.maximum(np.maximum(red, green), blue)
        spread -= np.minimum(np.minimum(red, green), blue)
        coloured += int((spread > limit).sum())
        luminance = _RED * red + _GREEN * green + _BLUE * blue
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


def make_finite(path: Path, frames: np.ndarray) -> tuple[str, ...]:
    """Replace NaN, infinities and absurd values in place; return notes on it.

    They become the median of the frame, which disturbs preprocessing least.
    """
    if frames.dtype.kind != "f":
        return ()
    bad = 0
    medians: dict[int, float] = {}
    hopeless: list[int] = []
    for index, frame in enumerate(frames):
        good = (frame < _LARGEST) & (frame > -_LARGEST)  # False for NaN
        if good.all():
            continue
        bad += good.size - int(good.sum())
        if good.any():
            medians[index] = _median(frame, good)
            frame[~good] = medians[index]
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
        if nearest not in medians:
            everywhere = np.ones(frames[nearest].shape, bool)
            medians[nearest] = _median(frames[nearest], everywhere)
        frames[index] = medians[nearest]
    if not bad:
        return ()
    values = counted(bad, "value")
    return (f"{values} (NaN or infinite) replaced by the median of the frame",)


def _median(frame: np.ndarray, good: np.ndarray) -> float:
    """Median of the good values; of some of them where the frame is large."""
    step = 1 + frame.size // 2_000_000
    some = frame.ravel()[::step][good.ravel()[::step]]
    if not some.size:
        some = frame[good]
    return float(np.median(some.astype(np.float64)))
