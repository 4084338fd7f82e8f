"""Read an angiogram of any supported format as frames of grey values."""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy

from napari_cmunet.errors import ReadError
from napari_cmunet.io.discovery import holds_images
from napari_cmunet.io.formats.decoded import (
    DEFAULT_LIMITS,
    DecodedImage,
    ReadLimits,
    make_finite,
    to_grey,
    to_plain_type,
)
from napari_cmunet.io.formats.npy import decode_npy
from napari_cmunet.io.formats.raster import decode_raster
from napari_cmunet.io.formats.tiff import decode_tiff
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.io.polarity import has_bright_vessels, invert, invert_window
from napari_cmunet.io.sniffing import SUFFIXES, SniffedFile, open_sniffed, read_reason
from napari_cmunet.util.safe_files import is_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_BURNED_IN = (
    "there may be text in its pixels, such as a name or a date. Masks do not show it; "
    "look before you share pictures of it"
)


def _decode_dicom(
    file: SniffedFile, limits: ReadLimits, **options: bool
) -> DecodedImage:
    # Deferred: importing pydicom is slow.
    from napari_cmunet.io.dicom.read import decode_dicom

    return decode_dicom(file, limits, **options)


# By detected format. A new format is one entry here and a signature in sniffing.py.
_DECODERS: dict[str, Callable[..., DecodedImage]] = {
    "BMP": decode_raster,
    "DICOM": _decode_dicom,
    "JPEG": decode_raster,
    "NPY": decode_npy,
    "PNG": decode_raster,
    "TIFF": decode_tiff,
    "WebP": decode_raster,
}


@dataclass(frozen=True)
class Angiogram:
    """Frames and metadata of one image file."""

    # (T, Y, X), (u)int8..32 or float16..64, finite; of DICOM, decoded when needed
    frames: np.ndarray | LazyFrames
    is_cine: bool
    pixel_size_mm: tuple[float, float] | None  # (y, x)
    pixel_size_source: str  # origin of the size, or "unknown…"
    sha256: str  # of the file; empty if not requested
    notes: tuple[str, ...] = ()  # conversions and oddities, for the user
    window: tuple[float, float] | None = None  # grey values to show as black, white
    frames_per_second: float | None = None
    burned_in: bool = False  # text in the pixels: declared or detected
    is_inverted: bool = False  # grey values are those of the file, inverted
    pixel_size_error: float | None = None  # standard error, as a share; if measured

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's own grid: (Y, X), or (T, Y, X) for a cine."""
        return self.frames.shape if self.is_cine else self.frames.shape[1:]

    def has_bright_vessels(self) -> bool:
        """Whether the arteries of the middle frame are very likely bright.

        Opening an image does not wait for this: it takes some milliseconds.
        """
        return has_bright_vessels(self.frames[len(self.frames) // 2])

    def inverted(self) -> Angiogram:
        """Return the image with inverted grey values; twice gives the same back."""
        window = self.window
        return dataclasses.replace(
            self,
            frames=invert(self.frames),
            window=window and invert_window(window, self.frames.dtype),
            is_inverted=not self.is_inverted,
        )


def read_angiogram(
    path: Path | str, limits: ReadLimits = DEFAULT_LIMITS, *, hashed: bool = True
) -> Angiogram:
    """Read a frame or a cine.

    Parameters
    ----------
    path : Path or str
        A DICOM, NPY, TIFF, PNG, WebP, JPEG or BMP file; the content decides, not the
        suffix.
    limits : ReadLimits
        Checked against the declared size before anything is decoded.
    hashed : bool
        Hash the whole file, which is slow for a long cine.

    Raises
    ------
    ReadError
        With a message on what is wrong and what to do.
    """
    path = Path(path)
    with _open(path) as file:
        decoded = decode(file, limits)
        sha256 = file.sha256() if hashed else ""
    frames, notes = decoded.array, decoded.notes
    if not isinstance(frames, LazyFrames):
        try:
            frames, grey_notes = to_grey(path, frames)
            frames = to_plain_type(frames)
            value_notes = make_finite(path, frames)
        except MemoryError as error:
            raise _no_memory(path) from error
        notes = (*notes, *grey_notes, *value_notes)
    if _is_blank(frames):
        notes += ("all its pixels have the same value: there is nothing to find",)
    burned_in = decoded.burned_in or _shows_text(frames)
    if burned_in:
        notes += (_BURNED_IN,)
    return Angiogram(
        frames,
        decoded.is_cine,
        decoded.pixel_size_mm,
        decoded.pixel_size_source,
        sha256,
        notes,
        decoded.window,
        decoded.frames_per_second,
        burned_in,
    )


def _shows_text(frames: np.ndarray | LazyFrames) -> bool:
    middle = frames[len(frames) // 2]
    return has_text(middle, frames[0] if len(frames) > 1 else None)


def _is_blank(frames: np.ndarray | LazyFrames) -> bool:
    # Of a lazy cine, only the middle frame is checked.
    some = frames[len(frames) // 2][None] if isinstance(frames, LazyFrames) else frames
    return all(frame.min() == frame.max() == some[0, 0, 0] for frame in some)


def decode(
    file: SniffedFile, limits: ReadLimits, *, keep_indices: bool = False
) -> DecodedImage:
    """Decode an open file; any exception of a decoder becomes a ReadError.

    Parameters
    ----------
    file : SniffedFile
        From ``open_sniffed``.
    limits : ReadLimits
        Checked against the declared size before anything is decoded.
    keep_indices : bool
        Return the stored values: indices of a palette image, not its colours, and
        nothing inverted; for masks.
    """
    decoder = _DECODERS.get(file.kind)
    if decoder is None:
        raise file.error(
            f"it is a {file.kind} file, which this version does not read. Export "
            f"its frames as PNG or TIFF."
        )
    options = {} if decoder is decode_npy else {"keep_indices": keep_indices}
    try:
        return decoder(file, limits, **options)
    except ReadError:
        raise
    except MemoryError as error:
        raise _no_memory(file.path) from error
    except Exception as error:
        # EINVAL: a damaged file that points outside itself.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise file.error(read_reason(file.path, error)) from error
        raise file.error(
            f"the {file.kind} file is damaged or cut short and could not be decoded. "
            f"Copy or export it again."
        ) from error


def _open(path: Path) -> AbstractContextManager[SniffedFile]:
    if is_folder(path) and not holds_images(path):
        endings = ", ".join(SUFFIXES)
        raise ReadError(
            path, f"no image was found in this folder. Images end in {endings}."
        )
    return open_sniffed(path)


def _no_memory(path: Path) -> ReadError:
    return ReadError(
        path, "this computer has not enough free memory for it. Close other programs."
    )


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
        ink &= tone - scipy.ndimage.minimum_filter(tone, 5) > _STEP
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
    pieces, count = scipy.ndimage.label(
        scipy.ndimage.maximum_filter(ink, (3, 1)), np.ones((3, 3))
    )
    if count > 5000:  # noise, not writing
        return False
    boxes: list[tuple[int, ...]] = []
    tallest = max(_SMALLEST, _LARGEST * ink.shape[0])
    for rows, columns in scipy.ndimage.find_objects(pieces):
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
