"""Read a DICOM angiogram: check it now, decode its frames on access."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.common import PhotometricInterpretation as Photometric

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.codecs import PLUGIN, check_size, decoder_for
from napari_cmunet.io.dicom.fragments import Span, find_frames, read_fragments
from napari_cmunet.io.dicom.header import Header, read_header
from napari_cmunet.io.dicom.identity import shielded
from napari_cmunet.io.dicom.voi_lut import (
    GreyscaleTransform,
    colour_transform,
    greyscale_transform,
)
from napari_cmunet.io.formats.decoded import Declared, DecodedImage, ReadLimits
from napari_cmunet.io.formats.greyscale import to_grey
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.io.pixel_size import pixel_size_of_dicom
from napari_cmunet.io.sniffing import open_sniffed

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

    from napari_cmunet.io.sniffing import SniffedFile

_GREY = (
    Photometric.MONOCHROME1,
    Photometric.MONOCHROME2,
    Photometric.PALETTE_COLOR,
)
_COLOUR = (
    Photometric.RGB,
    Photometric.YBR_FULL,
    Photometric.YBR_FULL_422,
    Photometric.YBR_ICT,
    Photometric.YBR_RCT,
)


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
    count = _frame_count(file, dataset)
    _check_pixels(file, dataset)
    height, width = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.SamplesPerPixel)
    transform = (
        greyscale_transform(dataset) if samples == 1 else colour_transform(dataset)
    )
    declared = Declared(count, height, width, samples * transform.dtype.itemsize)
    declared.check(file, limits)
    decoder = decoder_for(header.transfer_syntax)
    if decoder is None:
        raise file.error(
            f"its pixels are stored as {_syntax_name(header)}, which this version "
            f"does not read. Export it without compression."
        )
    if (header.data_bytes is None) != decoder.is_encapsulated:
        raise file.error(
            "its header contradicts the way its pixels are stored. Export it again."
        )
    if decoder.is_encapsulated:
        frames = find_frames(file, header, count)
    else:
        _check_length(file, header, count)
        frames = []
    stored = StoredFrames(
        file.path, file.size, header.data_start, decoder, _options(header), frames
    )
    lazy = LazyFrames(
        (count, height, width), transform.dtype, partial(_grey_frame, stored, transform)
    )
    lazy[count // 2]  # report a decoding error now
    size = pixel_size_of_dicom(dataset)
    return DecodedImage(
        lazy,
        count > 1,
        size.mm,
        size.source,
        notes=transform.notes,
        window=transform.window,
        frames_per_second=_frames_per_second(dataset),
        burned_in=str(dataset.get("BurnedInAnnotation", "")).upper() == "YES",
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

    def read(self, index: int) -> np.ndarray:
        """Decode a frame, ``(Y, X)`` or ``(Y, X, 3)``; raises ReadError."""
        with open_sniffed(self.path) as file:
            if file.size != self.size:
                raise file.error("it has changed since it was opened. Open it again.")
            options = dict(self.options)
            if not self.fragments:
                file.handle.seek(self.data_start)
                return self.decoder.as_array(
                    file.handle, index=index, validate=False, **options
                )[0]
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


def _grey_frame(
    stored: StoredFrames, transform: GreyscaleTransform, index: int
) -> np.ndarray:
    try:
        pixels = stored.read(index)
        if pixels.ndim == 3:
            pixels = to_grey(stored.path, pixels[np.newaxis])[0][0]
        return np.ascontiguousarray(transform(pixels))
    except MemoryError:
        raise
    except ReadError as error:
        raise shielded(error) from None
    except Exception:  # noqa: BLE001
        reason = (
            f"frame {index + 1} is damaged and could not be decoded. Copy or export "
            f"the file again."
        )
        raise shielded(ReadError(stored.path, reason)) from None


def _frame_count(file: SniffedFile, dataset: Dataset) -> int:
    value = dataset.get("NumberOfFrames")
    count = 1 if value in (None, "") else int(value)
    if count < 1:
        raise file.error("it declares no frames. Export it again.")
    return count


def _check_pixels(file: SniffedFile, dataset: Dataset) -> None:
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    samples = int(dataset.SamplesPerPixel)
    kinds = {1: _GREY, 3: _COLOUR}.get(samples, ())
    if dataset.PhotometricInterpretation not in kinds:
        raise file.error("its kind of colour is none that is read. Export it in grey.")
    if allocated not in (8, 16) or not 2 <= stored <= allocated:
        raise file.error(
            f"it stores {stored} of {allocated} bits for each pixel; an angiogram has "
            f"8 to 16. Export it again."
        )
    if int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise file.error(
            "its pixels do not begin at their lowest bit, as very old files do. "
            "Export it again from the system that holds it."
        )


def _check_length(file: SniffedFile, header: Header, count: int) -> None:
    """Refuse missing pixels before memory is allocated for them."""
    dataset = header.dataset
    samples = int(dataset.SamplesPerPixel)
    halves = 2 if dataset.PhotometricInterpretation == Photometric.YBR_FULL_422 else 3
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
    frame = bits * samples // 8 if samples == 1 else bits * halves // 8
    there = min(header.data_bytes or 0, file.size - header.data_start)
    if there < frame * count:
        raise file.error(
            f"it declares {count} frame(s) and holds {there // frame}: it is cut short "
            f"or damaged. Copy or export it again."
        )


def _options(header: Header) -> dict[str, Any]:
    dataset = header.dataset
    options: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "number_of_frames": int(dataset.get("NumberOfFrames") or 1),
        "samples_per_pixel": int(dataset.SamplesPerPixel),
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "pixel_representation": int(dataset.PixelRepresentation),
        "pixel_keyword": "PixelData",
        "pixel_vr": header.pixel_vr,
    }
    if options["samples_per_pixel"] != 1:
        options["planar_configuration"] = int(dataset.get("PlanarConfiguration") or 0)
    return options


def _syntax_name(header: Header) -> str:
    name = header.transfer_syntax.name
    return "video" if "MPEG" in name or "HEVC" in name else f"'{name[:60]}'"


def _frames_per_second(dataset: Dataset) -> float | None:
    """Return the frame rate of the cine; None if unknown."""
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = dataset.get(keyword)
        if rate:
            return _sensible(float(rate))
    times = dataset.get("FrameTime") or dataset.get("FrameTimeVector")
    if times is None:
        return None
    steps = np.atleast_1d(np.array(times, np.float64))
    steps = steps[steps > 0]
    return _sensible(1000 / float(np.median(steps))) if len(steps) else None


def _sensible(rate: float) -> float | None:
    return rate if 0.5 <= rate <= 120 else None
