"""Decoding TIFF: plain, ImageJ, OME and tifffile's own, one page or many."""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import threading
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from napari_cmunet.errors import printable
from napari_cmunet.io.formats.decoded import Declared, Raw, ReadLimits, shape_words
from napari_cmunet.io.formats.raster import (
    decode_tiff_pages,
    jpeg2000_size,
    jpeg_header,
)
from napari_cmunet.io.pixel_size import pixel_size_of_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.io.sniffing import Source

_MIN_IS_WHITE, _PALETTE, _CMYK = 0, 3, 5
# None, CCITT, LZW, Deflate, PackBits, LZMA, Zstandard: never more than is asked for.
_BOUNDED = (1, 2, 3, 4, 5, 8, 32773, 32771, 32946, 34925, 50000, 34926)
_JPEG, _JPEG_2000 = (6, 7, 33007), (33003, 33004, 33005, 34712)
_MOST_HEADER_BYTES = 2**18


def decode_tiff(
    source: Source, limits: ReadLimits, *, keep_indices: bool = False
) -> Raw:
    """Read the first image series of a TIFF as one frame or a cine."""
    _check_pages(source, limits)
    with (
        _quiet_tifffile(),
        _open(source) as tif,
    ):
        series = tif.series[0]
        axes, is_cine = _axes(source, series.axes, series.shape)
        page = series.keyframe
        _check_declared(source, limits, series, axes)
        _check_complete(source, series)
        _check_codestreams(source, series)
        try:
            array = np.asarray(series.asarray(maxworkers=1))
        except (KeyError, ValueError) as error:
            if "imagecodecs" not in str(error):
                raise
            array = decode_tiff_pages(source, limits)
        else:
            array = _arrange(array, series.axes, axes)
            array = _displayed(source, page, array, keep_indices)
        description = page.description or ""
        size = pixel_size_of_tiff(tif, page, description)
        notes = ()
        if len(tif.series) > 1:
            notes = (f"the first of {len(tif.series)} images in the file was read",)
    return Raw(array, is_cine, size.mm, size.source, description, notes)


def _open(source: Source) -> tifffile.TiffFile:
    # Some kinds of TIFF name further files or look for them in the folder; nobody chose
    # to open those.
    return tifffile.TiffFile(
        source.handle,
        name=source.path.name,
        _multifile=False,
        is_mmstack=False,
        is_ndtiff=False,
    )


def _check_pages(source: Source, limits: ReadLimits) -> None:
    """Follow the chain of pages to its end.

    tifffile only logs a chain that leaves the file or runs in a circle, and a cine cut
    short would pass for a shorter one.
    """
    handle = source.handle
    order = "<" if source.header[:1] == b"I" else ">"
    big = source.header[2:4] in (b"+\0", b"\0+")
    start, count_format, pointer_format, entry_bytes = (
        (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    )
    count_bytes, pointer_bytes = (8, 8) if big else (2, 4)
    if len(source.header) < start + pointer_bytes:
        raise _cut_short(source)
    (offset,) = struct.unpack_from(order + pointer_format, source.header, start)
    if offset == 0:
        raise source.error("it is a TIFF file without an image. Export it again.")
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise source.error("its pages form a circle. Export it again.")
        seen.add(offset)
        if len(seen) > limits.max_frames:
            raise source.error(
                f"it holds more than {limits.max_frames} pages, the limit. Split it "
                f"into shorter pieces."
            )
        if offset + count_bytes > source.size:
            raise _cut_short(source)
        handle.seek(offset)
        start_of_page = handle.read(count_bytes)
        (entries,) = struct.unpack(order + count_format, start_of_page)
        end = offset + count_bytes + entries * entry_bytes
        if end + pointer_bytes > source.size:
            raise _cut_short(source)
        handle.seek(end)
        (offset,) = struct.unpack(order + pointer_format, handle.read(pointer_bytes))
    handle.seek(0)


def _cut_short(source: Source) -> Exception:
    return source.error("the TIFF file is cut short. Copy or export it again.")


def _axes(source: Source, axes: str, shape: tuple[int, ...]) -> tuple[str, bool]:
    """Find frame and sample axes: axes in the order T, Y, X, S, and if it is a cine.

    Slices of a stack (Z) and unnamed pages (I, Q) are taken for frames too.
    """
    longer = [a for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
    samples = [a for a in longer if a == "S"]
    frames = [a for a in longer if a not in "YXS"]
    if "C" in frames and not samples and shape[axes.index("C")] in (3, 4):
        samples, frames = ["C"], [a for a in frames if a != "C"]
    if "Y" not in longer or "X" not in longer or len(frames) > 1 or "C" in frames:
        raise source.error(
            f"its shape is {shape_words(shape)} (axes {printable(axes)}); a frame has "
            f"rows and columns, a cine has frames, rows and columns. Save one frame or "
            f"cine a file."
        )
    return "".join([*frames, "Y", "X", *samples]), bool(frames)


def _check_declared(
    source: Source, limits: ReadLimits, series: tifffile.TiffPageSeries, axes: str
) -> None:
    length = dict(zip(series.axes, series.shape, strict=True))
    page = series.keyframe
    if series.dtype is None or series.dtype.kind not in "biuf":
        kind = "complex numbers" if series.dtype is not None else "an unknown type"
        raise source.error(
            f"its pixels are {kind}, not grey values. Export it with 8 or 16 bits."
        )
    if page.photometric == _CMYK:
        raise source.error("it holds printing colours (CMYK). Export it in grey.")
    if length["Y"] != page.imagelength or length["X"] != page.imagewidth:
        raise source.error("its axes contradict its size. Export it again.")
    samples = length[axes[-1]] if axes[-1] in "SC" else 1
    frames = length[axes[0]] if axes[0] != "Y" else 1
    if samples > 4:
        raise source.error(
            f"it has {samples} values for each pixel, not one grey value. Export it in "
            f"grey."
        )
    if page.photometric == _PALETTE:
        samples = 6  # becomes 3 colours of 16 bits
    itemsize = series.dtype.itemsize
    Declared(frames, length["Y"], length["X"], samples * itemsize).check(source, limits)
    if math.prod(page.chunks) * itemsize > limits.max_decoded_bytes:
        raise source.error("its tiles are absurdly large. Export it again.")


def _check_complete(source: Source, series: tifffile.TiffPageSeries) -> None:
    """Refuse missing parts, which tifffile would fill with zeros."""
    if series.dataoffset is not None:
        if series.dataoffset + series.nbytes > source.size:
            raise _cut_short(source)
        return
    for page in series.pages:
        if page is None:
            raise source.error(
                "some of its frames are in other files. Export the cine as one file."
            )
        offsets, counts = page.dataoffsets, page.databytecounts
        if not offsets or len(offsets) != len(counts) or 0 in counts:
            raise source.error("parts of its picture are missing. Export it again.")
        if max(map(sum, zip(offsets, counts, strict=True))) > source.size:
            raise _cut_short(source)


def _check_codestreams(source: Source, series: tifffile.TiffPageSeries) -> None:
    """Refuse pieces that decode to more than their place in the picture.

    What most kinds of compression give is cut off at that; an image within the image
    is decoded to its own size, and a hundred bytes can declare terabytes.
    """
    for page in series.pages:
        how = page.keyframe  # a later page is decoded as the first one of its kind
        if how.compression in _BOUNDED:
            continue
        if how.compression in _JPEG_2000:
            declared = jpeg2000_size
        elif how.compression in _JPEG:
            declared = _jpeg_size
        else:
            raise source.error(
                f"its pixels are compressed as {_compression_name(how)}, which this "
                f"version does not read. Export it without compression."
            )
        height, width = _piece(how)
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            source.handle.seek(offset)
            size = declared(source.handle.read(min(count, _MOST_HEADER_BYTES)))
            if size[0] > height or size[1] > width:
                raise source.error(
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
    source: Source, page: tifffile.TiffPage, array: np.ndarray, keep_indices: bool
) -> np.ndarray:
    """Turn stored values into brightness where the file says that they differ."""
    if page.photometric == _PALETTE and page.colormap is not None and not keep_indices:
        if array.max(initial=0) >= page.colormap.shape[1]:
            raise source.error("its palette is too short. Export it in grey.")
        return np.moveaxis(page.colormap[:, array[..., 0]], 0, -1)
    if page.photometric == _MIN_IS_WHITE and array.dtype.kind in "bu":
        bits = 1 if array.dtype == bool else page.bitspersample
        if array.dtype == bool:
            return ~array
        return array.dtype.type(2**bits - 1) - array
    return array


@contextlib.contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's log lines, which hold file names, off this thread's output."""
    logger = logging.getLogger("tifffile")
    here = threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)
