"""Decode PNG, WebP, JPEG and BMP with Pillow."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from napari_cmunet.io.formats.decoded import Declared, DecodedImage, ReadLimits
from napari_cmunet.util.safe_files import Bounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    from napari_cmunet.io.sniffing import SniffedFile


def jpeg_header(data: bytes) -> tuple[int, int, int]:
    """Return bits per sample, rows and columns of a JPEG or JPEG-LS stream.

    Raises
    ------
    ValueError
        If there is no size in it.
    """
    at = _jpeg_frame_header(data)
    if at is None:
        raise ValueError("no frame header in the JPEG stream")
    return struct.unpack_from(">BHH", data, at + 4)


def jpeg_frame_marker(data: bytes) -> int | None:
    """Return the second byte of the start-of-frame marker, which tells the process."""
    at = _jpeg_frame_header(data)
    return None if at is None else data[at + 1]


def _jpeg_frame_header(data: bytes) -> int | None:
    at = 2
    while at + 9 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] == marker == 0xFF:  # a fill byte
            at += 1
            continue
        if data[at] != 0xFF or length < 2:
            break
        # SOF0 to SOF15, and SOF55 of JPEG-LS; C4, C8 and CC are other things.
        if marker == 0xF7 or (
            0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        ):
            return at
        at += 2 + length
    return None


def jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Return rows and columns of a JPEG 2000 codestream, bare or in a JP2 box.

    Raises
    ------
    ValueError
        If there is no size in it.
    """
    start = data.index(b"\xff\x4f\xff\x51") + 8
    try:
        right, bottom, left, top = struct.unpack_from(">4I", data, start)
    except struct.error as error:
        raise ValueError("no size in the JPEG 2000 stream") from error
    return bottom - top, right - left


_FORMATS: dict[str, Callable[[Any], ImageFile]] = {
    "BMP": BmpImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WebP": WebPImageFile,
}
# Modes taken as they are; all others are converted to RGB(A).
_PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L")
_DEEP_COLOUR_NOTE = "16-bit colour was read with 8 bits a channel"


def decode_raster(
    file: SniffedFile, limits: ReadLimits, *, keep_indices: bool = False
) -> DecodedImage:
    """Read a single image.

    Parameters
    ----------
    file : SniffedFile
        An open PNG, WebP, JPEG or BMP file.
    limits : ReadLimits
        Checked against the declared size before decoding.
    keep_indices : bool
        Return the indices of a palette image, not its colours; for masks.
    """
    with _open(file, file.kind) as image:
        # A JPEG may carry previews as further frames; they are no cine.
        count = 1 if file.kind == "JPEG" else getattr(image, "n_frames", 1)
        if count > 1:
            raise file.error(
                f"it is an animation of {count} pictures. Save the cine as a TIFF with "
                f"several pages."
            )
        _declare(image, 1).check(file, limits)
        array = _pixels(image, keep_indices)[np.newaxis]
    notes = (_DEEP_COLOUR_NOTE,) if _is_deep_colour_png(file) else ()
    return DecodedImage(array, is_cine=False, notes=notes)


def image_mode(file: SniffedFile) -> str:
    """Return Pillow's name of a file's pixel format, such as ``L`` or ``RGBA``."""
    with _open(file, file.kind) as image:
        return str(image.mode)


def decode_tiff_pages(file: SniffedFile, limits: ReadLimits) -> np.ndarray:
    """Read all pages of a TIFF as (T, Y, X, S): for codecs that tifffile lacks."""
    file.handle.seek(0)
    with _open(file, "TIFF") as image:
        count = getattr(image, "n_frames", 1)
        _declare(image, count).check(file, limits)
        pages = []
        for index in range(count):
            image.seek(index)
            pages.append(_pixels(image, keep_indices=False))
            if pages[-1].shape != pages[0].shape:
                raise file.error(
                    "its pages differ in size. Save each as a file of its own."
                )
    return np.stack(pages)


def _open(file: SniffedFile, kind: str) -> ImageFile:
    # Not Image.open, which tries all formats and applies a global size limit.
    # Use "with": it leaves the handle open, which belongs to ``file``.
    return _FORMATS[kind](Bounded(file.handle, file.size))


def _declare(image: Image, frames: int) -> Declared:
    mode = image.mode
    samples = 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4
    return Declared(frames, image.height, image.width, samples)


def _pixels(image: Image, keep_indices: bool) -> np.ndarray:
    """Decode to (Y, X, S)."""
    has_alpha = image.mode in ("PA", "La", "RGBa") or "transparency" in image.info
    if image.mode == "P" and keep_indices:
        array = np.array(image)
    elif image.mode in _PLAIN_MODES:
        array = np.array(image)
    else:
        array = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    return array if array.ndim == 3 else array[..., np.newaxis]


def _is_deep_colour_png(file: SniffedFile) -> bool:
    """Whether a PNG stores 16-bit samples together, which Pillow cuts to 8 bits."""
    bits, colour_type = file.header[24:25], file.header[25:26]
    return file.kind == "PNG" and bits == b"\x10" and colour_type not in (b"\0", b"")
