"""The result of every decoder, and the limits checked before decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

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
