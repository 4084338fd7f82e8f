"""Read a DICOM angiogram: check it now, decode its frames on access."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate

from napari_cmunet.errors import ReadError, printable
from napari_cmunet.io.dicom.codecs import PLUGIN, check_size, decoder_for
from napari_cmunet.io.dicom.header import number, numbers, read_header, text
from napari_cmunet.io.dicom.identity import shielded
from napari_cmunet.io.dicom.pixel_data import (
    PixelFormat,
    Span,
    locate_frames,
    pixel_format,
    read_fragments,
)
from napari_cmunet.io.dicom.voi_lut import (
    GreyscaleTransform,
    LookupTableError,
    colour_transform,
    greyscale_transform,
)
from napari_cmunet.io.formats.decoded import Declared, DecodedImage, ReadLimits, to_grey
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.io.pixel_size import pixel_size_of_dicom
from napari_cmunet.io.sniffing import open_sniffed

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset, uid
    from pydicom.pixels.decoders.base import Decoder

    from napari_cmunet.io.sniffing import SniffedFile


def decode_dicom(
    file: SniffedFile, limits: ReadLimits, *, keep_indices: bool = False
) -> DecodedImage:
    """Read a DICOM image as one frame or a cine.

    Checks that all frames are present and decodes the middle one.

    Raises
    ------
    ReadError
        If the file is not an image of this kind, or incomplete.
    """
    if keep_indices:
        raise file.error("it is a DICOM file; a mask is read from TIFF or PNG.")
    try:
        return _decode(file, limits)
    except (MemoryError, OSError):
        raise
    except ReadError as error:
        raise shielded(error) from None
    except Exception:  # noqa: BLE001
        # Exceptions of pydicom and codecs quote values of the file: drop them.
        raise shielded(
            file.error(
                "the DICOM file is damaged or cut short and could not be decoded. "
                "Copy or export it again."
            )
        ) from None


def _decode(file: SniffedFile, limits: ReadLimits) -> DecodedImage:
    header = read_header(file)
    dataset = header.dataset
    pixels = pixel_format(file, header)
    height, width = pixels.rows, pixels.columns
    Declared(1, height, width, 1).check(file, limits)
    declared = header.transfer_syntax
    if declared.is_private or not declared.is_transfer_syntax:
        raise _unsupported(file, declared)
    try:
        transform = (
            greyscale_transform(dataset, pixels)
            if pixels.samples == 1
            else colour_transform(pixels)
        )
    except LookupTableError:
        raise file.error(
            "its palette is missing or damaged. Export it again in grey."
        ) from None
    located = locate_frames(file, header, pixels)
    count = located.count
    item_bytes = pixels.samples * transform.dtype.itemsize
    Declared(count, height, width, item_bytes).check(file, limits)
    decoder = decoder_for(located.syntax)
    if decoder is None:
        raise _unsupported(file, located.syntax)
    stored = StoredFrames(
        file.path,
        file.size,
        header.data_start,
        decoder,
        pixels.decoder_options(count),
        located.fragments,
    )
    # Decode a frame now: it reports errors, and shows what the header leaves open.
    middle = count // 2
    stored, first = _with_true_bits(stored, pixels, _stored_frame(stored, middle))
    transform = transform.suited_to(first)
    decoded = {middle: first}
    lazy = LazyFrames(
        (count, height, width),
        transform.dtype,
        partial(_grey_frame, stored, transform, decoded),
    )
    lazy[middle]
    size = pixel_size_of_dicom(dataset)
    return DecodedImage(
        lazy,
        count > 1,
        size.mm,
        size.source,
        notes=pixels.notes + located.notes + transform.notes,
        window=transform.window,
        frames_per_second=_frames_per_second(dataset),
        burned_in=text(dataset, "BurnedInAnnotation") == "YES",
    )


@dataclass(frozen=True)
class StoredFrames:
    """The stored frames of a file, decoded one by one."""

    path: Path
    size: int  # of the file in bytes, when its header was read
    data_start: int
    decoder: Decoder
    options: dict[str, Any]
    fragments: list[list[Span]]  # per frame; empty if not encapsulated
    shift: int = 0  # bits below the pixels' own
    bits: int = 16  # the pixels' own bits, above ``shift``

    def read(self, index: int) -> np.ndarray:
        """Decode a frame, ``(Y, X)`` or ``(Y, X, 3)``; raises ReadError."""
        with open_sniffed(self.path) as file:
            if file.size != self.size:
                raise file.error("it has changed since it was opened. Open it again.")
            options = dict(self.options)
            if not self.fragments:
                file.handle.seek(self.data_start)
                array = self.decoder.as_array(
                    file.handle, index=index, validate=False, **options
                )[0]
                return _own_bits(array, self.shift, self.bits) if self.shift else array
            codestream = read_fragments(file.handle, self.fragments[index])
            shape = (self.options["rows"], self.options["columns"])
            check_size(codestream, self.decoder.UID, shape)
            options["number_of_frames"] = 1
            return self.decoder.as_array(
                encapsulate([codestream], has_bot=False),
                index=0,
                validate=False,
                decoding_plugin=PLUGIN,
                **options,
            )[0]


def _own_bits(array: np.ndarray, shift: int, bits: int) -> np.ndarray:
    """Take ``bits`` bits above the lowest ``shift``, with their sign."""
    unused = 8 * array.dtype.itemsize - bits
    return (array << (unused - shift)) >> unused


def _stored_frame(stored: StoredFrames, index: int) -> np.ndarray:
    """Decode a frame, colours already converted to grey."""
    try:
        pixels = stored.read(index)
        if pixels.ndim == 3:
            pixels = to_grey(stored.path, pixels[np.newaxis])[0][0]
        return pixels
    except ReadError as error:
        raise shielded(error) from None
    except Exception:  # noqa: BLE001 - a codec's errors are of every kind
        reason = (
            f"frame {index + 1} is damaged and could not be decoded. Copy or export "
            f"the file again."
        )
        raise shielded(ReadError(stored.path, reason)) from None


def _grey_frame(
    stored: StoredFrames,
    transform: GreyscaleTransform,
    decoded: dict[int, np.ndarray],
    index: int,
) -> np.ndarray:
    pixels = decoded.pop(index, None)
    if pixels is None:
        pixels = _stored_frame(stored, index)
    return np.ascontiguousarray(transform(pixels))


def _with_true_bits(
    stored: StoredFrames, pixels: PixelFormat, frame: np.ndarray
) -> tuple[StoredFrames, np.ndarray]:
    """Find out whether pixels begin above the lowest bit, as HighBit says.

    Headers are often wrong: only bits above the stored ones, counted from the lowest,
    confirm it.
    """
    if not pixels.shift or stored.fragments or pixels.samples != 1:
        return stored, frame
    middle = stored.options["number_of_frames"] // 2
    options = {**stored.options, "bits_stored": pixels.allocated}
    whole = _stored_frame(replace(stored, options=options), middle)
    unsigned = whole.view(whole.dtype.str.replace("i", "u"))
    if not (unsigned >> pixels.stored).any():
        return stored, frame
    shifted = replace(stored, options=options, shift=pixels.shift, bits=pixels.stored)
    return shifted, _stored_frame(shifted, middle)


def _unsupported(file: SniffedFile, syntax: uid.UID) -> ReadError:
    name = printable(syntax.name[:60])
    shown = "video" if "MPEG" in name or "HEVC" in name else f"'{name}'"
    return file.error(
        f"its pixels are stored as {shown}, which this version does not read. Export "
        f"it without compression."
    )


def _frames_per_second(dataset: Dataset) -> float | None:
    """Return the frame rate of the cine; None if unknown."""
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = number(dataset, keyword)
        if rate:
            return _sensible(rate)
    for keyword in ("FrameTime", "FrameTimeVector"):
        steps = [n for n in numbers(dataset, keyword) if n is not None and n > 0]
        if steps:
            return _sensible(1000 / float(np.median(steps)))
    return None


def _sensible(rate: float) -> float | None:
    return rate if 0.5 <= rate <= 120 else None
