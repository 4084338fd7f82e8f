"""Decode TIFF: plain, ImageJ, OME and shaped, single or multi-page."""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_cmunet.errors import printable
from napari_cmunet.io.formats.decoded import (
    Declared,
    DecodedImage,
    ReadLimits,
    shape_words,
)
from napari_cmunet.io.formats.raster import (
    decode_tiff_pages,
    jpeg2000_size,
    jpeg_header,
)
from napari_cmunet.io.pixel_size import pixel_size_of_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.io.sniffing import SniffedFile

_MIN_IS_WHITE, _PALETTE, _CMYK = 0, 3, 5
_NOT_AN_IMAGE = 1 | 4  # NewSubfileType: reduced resolution, transparency mask
_THUMBNAIL_SIDE = 256
# None, CCITT, LZW, Deflate, PackBits, LZMA, Zstandard: output size is bounded.
_BOUNDED = (1, 2, 3, 4, 5, 8, 32773, 32771, 32946, 34925, 50000, 34926)
_JPEG, _JPEG_2000 = (6, 7, 33007), (33003, 33004, 33005, 34712)
_MOST_HEADER_BYTES = 2**18


def decode_tiff(
    file: SniffedFile, limits: ReadLimits, *, keep_indices: bool = False
) -> DecodedImage:
    """Read the first image series of a TIFF as one frame or a cine."""
    _check_pages(file, limits)
    with (
        _quiet_tifffile(),
        _open(file) as tif,
    ):
        series = _main_series(tif)
        named = _named_axes(series)
        axes, is_cine = _axes(file, named, series.shape)
        page = series.keyframe
        _check_declared(file, limits, series, axes)
        _check_complete(file, series)
        _check_codestreams(file, series)
        try:
            array = np.asarray(series.asarray(maxworkers=1))
        except (KeyError, ValueError) as error:
            if "imagecodecs" not in str(error):
                raise
            array = decode_tiff_pages(file, limits)
        else:
            array = _arrange(array, named, axes)
            array = _displayed(file, page, array, keep_indices)
        description = page.description or ""
        size = pixel_size_of_tiff(tif, page, description)
        notes: tuple[str, ...] = ()
        if len(tif.series) > 1:
            which = "first" if series is tif.series[0] else "largest"
            notes = (f"the {which} of {len(tif.series)} images in the file was read",)
    return DecodedImage(array, is_cine, size.mm, size.source, description, notes)


def _open(file: SniffedFile) -> tifffile.TiffFile:
    # Some kinds of TIFF refer to further files; do not open those.
    return tifffile.TiffFile(
        file.handle,
        name=file.path.name,
        _multifile=False,
        is_mmstack=False,
        is_ndtiff=False,
    )


def _main_series(tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Return the first series that is not a thumbnail, a reduced copy or a mask."""
    full = [s for s in tif.series if not s.keyframe.subfiletype & _NOT_AN_IMAGE]
    if not full:
        return tif.series[0]
    first = full[0]
    height, width = first.keyframe.imagelength, first.keyframe.imagewidth
    for series in full[1:]:
        page = series.keyframe
        # Unmarked thumbnails: a small single page before a larger one.
        if len(first.pages) == 1 and min(height, width) <= _THUMBNAIL_SIDE:
            if page.imagelength >= 2 * height and page.imagewidth >= 2 * width:
                return series
    return first


def _check_pages(file: SniffedFile, limits: ReadLimits) -> None:
    """Follow the chain of pages to its end.

    tifffile only logs a truncated or circular chain, and the cine would seem shorter.
    """
    handle = file.handle
    order = "<" if file.header[:1] == b"I" else ">"
    big = file.header[2:4] in (b"+\0", b"\0+")
    start, count_format, pointer_format, entry_bytes = (
        (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    )
    count_bytes, pointer_bytes = (8, 8) if big else (2, 4)
    if len(file.header) < start + pointer_bytes:
        raise _cut_short(file)
    (offset,) = struct.unpack_from(order + pointer_format, file.header, start)
    if offset == 0:
        raise file.error("it is a TIFF file without an image. Export it again.")
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise file.error("its pages form a circle. Export it again.")
        seen.add(offset)
        if len(seen) > limits.max_frames:
            raise file.error(
                f"it holds more than {limits.max_frames} pages, the limit. Split it "
                f"into shorter pieces."
            )
        if offset + count_bytes > file.size:
            raise _cut_short(file)
        handle.seek(offset)
        start_of_page = handle.read(count_bytes)
        (entries,) = struct.unpack(order + count_format, start_of_page)
        end = offset + count_bytes + entries * entry_bytes
        if end + pointer_bytes > file.size:
            raise _cut_short(file)
        handle.seek(end)
        (offset,) = struct.unpack(order + pointer_format, handle.read(pointer_bytes))
    handle.seek(0)


def _cut_short(file: SniffedFile) -> Exception:
    return file.error("the TIFF file is cut short. Copy or export it again.")


def _named_axes(series: tifffile.TiffPageSeries) -> str:
    """Return the axes of a series; "-" for those of length 1, which may be alike."""
    pairs = zip(series.axes, series.shape, strict=True)
    return "".join("-" if n == 1 and a not in "YX" else a for a, n in pairs)


def _axes(file: SniffedFile, axes: str, shape: tuple[int, ...]) -> tuple[str, bool]:
    """Find frame and sample axes: axes in the order T, Y, X, S, and if it is a cine.

    Slices of a stack (Z) and unnamed pages (I, Q) are taken for frames too.
    """
    longer = [a for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
    samples = [a for a in longer if a == "S"]
    frames = [a for a in longer if a not in "YXS"]
    if "C" in frames and not samples and shape[axes.index("C")] in (3, 4):
        samples, frames = ["C"], [a for a in frames if a != "C"]
    if "Y" not in longer or "X" not in longer or len(frames) > 1 or "C" in frames:
        raise file.error(
            f"its shape is {shape_words(shape)} (axes {printable(axes)}); a frame has "
            f"rows and columns, a cine has frames, rows and columns. Save one frame or "
            f"cine a file."
        )
    return "".join([*frames, "Y", "X", *samples]), bool(frames)


def _check_declared(
    file: SniffedFile, limits: ReadLimits, series: tifffile.TiffPageSeries, axes: str
) -> None:
    length = dict(zip(_named_axes(series), series.shape, strict=True))
    page = series.keyframe
    if series.dtype is None or series.dtype.kind not in "biuf":
        kind = "complex numbers" if series.dtype is not None else "an unknown type"
        raise file.error(
            f"its pixels are {kind}, not grey values. Export it with 8 or 16 bits."
        )
    if page.photometric == _CMYK:
        raise file.error("it holds printing colours (CMYK). Export it in grey.")
    if length["Y"] != page.imagelength or length["X"] != page.imagewidth:
        raise file.error("its axes contradict its size. Export it again.")
    samples = length[axes[-1]] if axes[-1] in "SC" else 1
    frames = length[axes[0]] if axes[0] != "Y" else 1
    if samples > 4:
        raise file.error(
            f"it has {samples} values for each pixel, not one grey value. Export it in "
            f"grey."
        )
    if page.photometric == _PALETTE:
        samples = 6  # becomes 3 colours of 16 bits
    itemsize = series.dtype.itemsize
    Declared(frames, length["Y"], length["X"], samples * itemsize).check(file, limits)
    if math.prod(page.chunks) * itemsize > limits.max_decoded_bytes:
        raise file.error("its tiles are absurdly large. Export it again.")


def _check_complete(file: SniffedFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse missing strips and tiles, which tifffile fills with zeros."""
    if series.dataoffset is not None:
        if series.dataoffset + series.nbytes > file.size:
            raise _cut_short(file)
        return
    for page in series.pages:
        if page is None:
            raise file.error(
                "some of its frames are in other files. Export the cine as one file."
            )
        offsets, counts = page.dataoffsets, page.databytecounts
        if not offsets or len(offsets) != len(counts) or 0 in counts:
            raise file.error("parts of its picture are missing. Export it again.")
        if max(map(sum, zip(offsets, counts, strict=True))) > file.size:
            raise _cut_short(file)


def _check_codestreams(file: SniffedFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse strips and tiles that decode to more than their place in the image.

    JPEG and JPEG 2000 streams decode to the size that they declare themselves, which
    may be terabytes.
    """
    for page in series.pages:
        assert page is not None  # checked by _check_complete
        how: Any = page.keyframe  # a later page is decoded as the first one of its kind
        if how.compression in _BOUNDED:
            continue
        if how.compression in _JPEG_2000:
            declared = jpeg2000_size
        elif how.compression in _JPEG:
            declared = _jpeg_size
        else:
            raise file.error(
                f"its pixels are compressed as {_compression_name(how)}, which this "
                f"version does not read. Export it without compression."
            )
        height, width = _piece(how)
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.handle.seek(offset)
            size = declared(file.handle.read(min(count, _MOST_HEADER_BYTES)))
            if size[0] > height or size[1] > width:
                raise file.error(
                    "its pieces are larger than the picture. Export it again."
                )


def _piece(page: tifffile.TiffPage) -> tuple[int, int]:
    """Rows and columns of one strip or tile."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return page.rowsperstrip, page.imagewidth


def _jpeg_size(data: bytes) -> tuple[int, int]:
    return jpeg_header(data)[1:]


def _compression_name(page: tifffile.TiffPage) -> str:
    name = getattr(page.compression, "name", "")
    return name.replace("_", " ") if name else f"number {int(page.compression)}"


def _arrange(array: np.ndarray, from_axes: str, to_axes: str) -> np.ndarray:
    """Reorder to (T, Y, X, S)."""
    dropped = tuple(i for i, a in enumerate(from_axes) if a not in to_axes)
    kept = [a for a in from_axes if a in to_axes]
    array = array.squeeze(dropped).transpose([kept.index(a) for a in to_axes])
    if to_axes[0] == "Y":
        array = array[np.newaxis]
    return array if to_axes[-1] in "SC" else array[..., np.newaxis]


def _displayed(
    file: SniffedFile, page: tifffile.TiffPage, array: np.ndarray, keep_indices: bool
) -> np.ndarray:
    """Apply the palette, or invert where zero is white; not if stored values count."""
    if page.photometric == _PALETTE and page.colormap is not None and not keep_indices:
        if array.max(initial=0) >= page.colormap.shape[1]:
            raise file.error("its palette is too short. Export it in grey.")
        return np.moveaxis(page.colormap[:, array[..., 0]], 0, -1)
    if keep_indices:
        return array
    if page.photometric == _MIN_IS_WHITE and array.dtype.kind in "bu":
        bits = 1 if array.dtype == bool else page.bitspersample
        if array.dtype == bool:
            return ~array
        return array.dtype.type(2**bits - 1) - array
    return array


@contextlib.contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Mute tifffile's log records of this thread, which hold file names."""
    logger = logging.getLogger("tifffile")
    here = threading.get_ident()

    def is_other_thread(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(is_other_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_other_thread)
