"""Reading an angiogram, whatever the format, as frames of grey values."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError
from napari_cmunet.io.discovery import (
    InputFile,
    find_images,
    holds_images,
    is_folder,
    output_paths,
)
from napari_cmunet.io.formats.decoded import DEFAULT_LIMITS, Raw, ReadLimits
from napari_cmunet.io.formats.greyscale import make_finite, to_grey, to_plain_type
from napari_cmunet.io.formats.npy import decode_npy
from napari_cmunet.io.formats.raster import decode_raster
from napari_cmunet.io.formats.tiff import decode_tiff
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.io.sniffing import SUFFIXES, Source, open_source, read_reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy as np

__all__ = [
    "DEFAULT_LIMITS",
    "SUFFIXES",
    "Angiogram",
    "InputFile",
    "ReadLimits",
    "decode",
    "find_images",
    "output_paths",
    "read_angiogram",
]

_BURNT_IN = (
    "there may be text in its pixels, such as a name or a date. Masks do not show it; "
    "look before you share pictures of it"
)


def _decode_dicom(source: Source, limits: ReadLimits, **options: bool) -> Raw:
    # pydicom takes a moment to load.
    from napari_cmunet.io.dicom.read import decode_dicom

    return decode_dicom(source, limits, **options)


# By kind of content (see source.py). A further format is one entry here.
_DECODERS: dict[str, Callable[..., Raw]] = {
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
    """The frames of one image file."""

    # (T, Y, X), (u)int8..32 or float16..64, finite; of DICOM, decoded when needed
    frames: np.ndarray | LazyFrames
    is_cine: bool
    pixel_size_mm: tuple[float, float] | None  # (y, x)
    pixel_size_source: str  # where the size comes from, or "unknown…"
    sha256: str  # of the file's bytes; empty if not asked for
    notes: tuple[str, ...] = ()  # what was changed or is odd, for the user
    window: tuple[float, float] | None = None  # grey values to show as black, white
    frames_per_second: float | None = None
    burnt_in: bool = False  # text in its pixels, as the file says or as it looks

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's own grid: (Y, X), or (T, Y, X) for a cine."""
        return self.frames.shape if self.is_cine else self.frames.shape[1:]


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
        Held against the declared size before anything is decoded.
    hashed : bool
        Read the whole file for its hash, which takes a while for a long cine.

    Raises
    ------
    ReadError
        With one sentence on what is wrong and what to do.
    """
    path = Path(path)
    with _open(path) as source:
        raw = decode(source, limits)
        sha256 = source.sha256() if hashed else ""
    frames, notes = raw.array, raw.notes
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
    burnt_in = raw.burnt_in or _shows_text(frames)
    if burnt_in:
        notes += (_BURNT_IN,)
    return Angiogram(
        frames,
        raw.is_cine,
        raw.pixel_size_mm,
        raw.pixel_size_source,
        sha256,
        notes,
        raw.window,
        raw.frames_per_second,
        burnt_in,
    )


def _shows_text(frames: np.ndarray | LazyFrames) -> bool:
    from napari_cmunet.io.burned_in import has_text

    middle = frames[len(frames) // 2]
    return has_text(middle, frames[0] if len(frames) > 1 else None)


def _is_blank(frames: np.ndarray | LazyFrames) -> bool:
    # Of a cine that is yet to be decoded, the frame in the middle is.
    some = frames[len(frames) // 2][None] if isinstance(frames, LazyFrames) else frames
    return all(frame.min() == frame.max() == some[0, 0, 0] for frame in some)


def decode(source: Source, limits: ReadLimits, *, keep_indices: bool = False) -> Raw:
    """Decode an open file; whatever a decoder raises becomes a ReadError.

    Parameters
    ----------
    source : Source
        From ``open_source``.
    limits : ReadLimits
        Held against the declared size before anything is decoded.
    keep_indices : bool
        Take a palette picture's indices instead of its colours, as masks need.
    """
    decoder = _DECODERS.get(source.kind)
    if decoder is None:
        raise source.error(
            f"it is a {source.kind} file, which this version does not read. Export "
            f"its frames as PNG or TIFF."
        )
    options = {} if decoder is decode_npy else {"keep_indices": keep_indices}
    try:
        return decoder(source, limits, **options)
    except ReadError:
        raise
    except MemoryError as error:
        raise _no_memory(source.path) from error
    except Exception as error:
        # EINVAL comes of a damaged file that points outside itself.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise source.error(read_reason(source.path, error)) from error
        raise source.error(
            f"the {source.kind} file is damaged or cut short and could not be decoded. "
            f"Copy or export it again."
        ) from error


def _open(path: Path) -> AbstractContextManager[Source]:
    if is_folder(path) and not holds_images(path):
        endings = ", ".join(SUFFIXES)
        raise ReadError(
            path, f"no image was found in this folder. Images end in {endings}."
        )
    return open_source(path)


def _no_memory(path: Path) -> ReadError:
    return ReadError(
        path, "this computer has not enough free memory for it. Close other programs."
    )
