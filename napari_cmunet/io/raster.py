"""Decoding PNG, WebP, JPEG and BMP with Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from napari_cmunet.io.raw import Declared, Raw, ReadLimits
from napari_cmunet.plain_files import Bounded

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    from napari_cmunet.io.source import Source

_FORMATS = {
    "BMP": BmpImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WebP": WebPImageFile,
}
# Modes whose pixels are taken as they are; every other is converted to RGB(A).
_PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L")
_DEEP_COLOUR_NOTE = "16-bit colour was read with 8 bits a channel"


def decode_raster(
    source: Source, limits: ReadLimits, *, keep_indices: bool = False
) -> Raw:
    """Read a single picture.

    Parameters
    ----------
    source : Source
        An open PNG, WebP, JPEG or BMP file.
    limits : ReadLimits
        Held against the declared size before decoding.
    keep_indices : bool
        Return the indices of a palette picture (what a mask means by its palette)
        rather than the colours.
    """
    with _open(source, source.kind) as image:
        # A JPEG may carry previews as further frames; they are no cine.
        count = 1 if source.kind == "JPEG" else getattr(image, "n_frames", 1)
        if count > 1:
            raise source.error(
                f"it is an animation of {count} pictures. Save the cine as a TIFF with "
                f"several pages."
            )
        _declare(image, 1).check(source, limits)
        array = _pixels(image, keep_indices)[np.newaxis]
    notes = (_DEEP_COLOUR_NOTE,) if _is_deep_colour_png(source) else ()
    return Raw(array, is_cine=False, notes=notes)


def decode_tiff_pages(source: Source, limits: ReadLimits) -> np.ndarray:
    """Read all pages of a TIFF as (T, Y, X, S): for codecs that tifffile lacks."""
    source.handle.seek(0)
    with _open(source, "TIFF") as image:
        count = getattr(image, "n_frames", 1)
        _declare(image, count).check(source, limits)
        pages = []
        for index in range(count):
            image.seek(index)
            pages.append(_pixels(image, keep_indices=False))
            if pages[-1].shape != pages[0].shape:
                raise source.error(
                    "its pages differ in size. Save each as a file of its own."
                )
    return np.stack(pages)


def _open(source: Source, kind: str) -> ImageFile:
    # Not Image.open: it tries formats by itself, and warns of large pictures or refuses
    # them by a limit that any other plugin may have set. Ours is checked instead.
    # To be used with "with", which leaves the file open: it belongs to the source.
    return _FORMATS[kind](Bounded(source.handle, source.size))


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


def _is_deep_colour_png(source: Source) -> bool:
    """Whether a PNG stores 16-bit samples together, which Pillow cuts to 8 bits."""
    bits, colour_type = source.header[24:25], source.header[25:26]
    return source.kind == "PNG" and bits == b"\x10" and colour_type not in (b"\0", b"")
