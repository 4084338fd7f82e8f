"""Reading a DICOM angiogram: checked now, decoded frame by frame when needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.common import PhotometricInterpretation as Photometric

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.codecs import PLUGIN, check_size, decoder_for
from napari_cmunet.io.dicom.fragments import Span, find_frames, read_fragments
from napari_cmunet.io.dicom.header import Header, read_header
from napari_cmunet.io.dicom.identity import shielded
from napari_cmunet.io.dicom.pixel_size import pixel_size_of_dicom
from napari_cmunet.io.dicom.voi_lut import Tones, of_colour, tones_of
from napari_cmunet.io.formats.decoded import Declared, Raw, ReadLimits
from napari_cmunet.io.formats.greyscale import to_grey
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.io.sniffing import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

    from napari_cmunet.io.sniffing import Source

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
    source: Source, limits: ReadLimits, *, keep_indices: bool = False
) -> Raw:
    """Read a DICOM image as one frame or a cine.

    Every frame is checked to be there; one is decoded, the others when asked for.

    Raises
    ------
    ReadError
        If the file is no image of this kind, or not whole.
    """
    if keep_indices:
        raise source.error("it is a DICOM file; a mask is read from TIFF or PNG.")
    try:
        return _decode(source, limits)
    except (MemoryError, OSError):
        raise
    except ReadError as error:
        raise shielded(error) from None
    except Exception:  # noqa: BLE001
        # Whatever pydicom or a codec says quotes the file's values: it goes no further.
        raise shielded(
            source.error(
                "the DICOM file is damaged or cut short and could not be decoded. "
                "Copy or export it again."
            )
        ) from None


def _decode(source: Source, limits: ReadLimits) -> Raw:
    header = read_header(source)
    dataset = header.dataset
    count = _frame_count(source, dataset)
    _check_pixels(source, dataset)
    height, width = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.SamplesPerPixel)
    tones = tones_of(dataset) if samples == 1 else of_colour(dataset)
    declared = Declared(count, height, width, samples * tones.dtype.itemsize)
    declared.check(source, limits)
    decoder = decoder_for(header.transfer_syntax)
    if decoder is None:
        raise source.error(
            f"its pixels are stored as {_syntax_name(header)}, which this version "
            f"does not read. Export it without compression."
        )
    if (header.data_bytes is None) != decoder.is_encapsulated:
        raise source.error(
            "its header contradicts the way its pixels are stored. Export it again."
        )
    if decoder.is_encapsulated:
        frames = find_frames(source, header, count)
    else:
        _check_length(source, header, count)
        frames = []
    stored = StoredFrames(
        source.path, source.size, header.data_start, decoder, _options(header), frames
    )
    lazy = LazyFrames(
        (count, height, width), tones.dtype, partial(_grey_frame, stored, tones)
    )
    lazy[count // 2]  # what cannot be decoded is said now
    size = pixel_size_of_dicom(dataset)
    return Raw(
        lazy,
        count > 1,
        size.mm,
        size.source,
        notes=tones.notes,
        window=tones.window,
        frames_per_second=_frames_per_second(dataset),
        burnt_in=str(dataset.get("BurnedInAnnotation", "")).upper() == "YES",
    )


@dataclass(frozen=True)
class StoredFrames:
    """The frames of a file as they are stored, to be decoded one by one."""

    path: Path
    size: int  # bytes of the file when it was looked through
    data_start: int
    decoder: Decoder
    options: dict[str, object]
    fragments: list[list[Span]]  # of each frame; empty if not encapsulated

    def read(self, index: int) -> np.ndarray:
        """Decode a frame, ``(Y, X)`` or ``(Y, X, 3)``; raises ReadError."""
        with open_source(self.path) as source:
            if source.size != self.size:
                raise source.error("it has changed since it was opened. Open it again.")
            options = dict(self.options)
            if not self.fragments:
                source.handle.seek(self.data_start)
                return self.decoder.as_array(
                    source.handle, index=index, validate=False, **options
                )[0]
            codestream = read_fragments(source.handle, self.fragments[index])
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


def _grey_frame(stored: StoredFrames, tones: Tones, index: int) -> np.ndarray:
    try:
        pixels = stored.read(index)
        if pixels.ndim == 3:
            pixels = to_grey(stored.path, pixels[np.newaxis])[0][0]
        return np.ascontiguousarray(tones(pixels))
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


def _frame_count(source: Source, dataset: Dataset) -> int:
    value = dataset.get("NumberOfFrames")
    count = 1 if value in (None, "") else int(value)
    if count < 1:
        raise source.error("it declares no frames. Export it again.")
    return count


def _check_pixels(source: Source, dataset: Dataset) -> None:
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    samples = int(dataset.SamplesPerPixel)
    kinds = {1: _GREY, 3: _COLOUR}.get(samples, ())
    if dataset.PhotometricInterpretation not in kinds:
        raise source.error(
            "its kind of colour is none that is read. Export it in grey."
        )
    if allocated not in (8, 16) or not 2 <= stored <= allocated:
        raise source.error(
            f"it stores {stored} of {allocated} bits for each pixel; an angiogram has "
            f"8 to 16. Export it again."
        )
    if int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise source.error(
            "its pixels do not begin at their lowest bit, as very old files do. "
            "Export it again from the system that holds it."
        )


def _check_length(source: Source, header: Header, count: int) -> None:
    """Refuse missing pixels before memory is taken for them."""
    dataset = header.dataset
    samples = int(dataset.SamplesPerPixel)
    halves = 2 if dataset.PhotometricInterpretation == Photometric.YBR_FULL_422 else 3
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
    frame = bits * samples // 8 if samples == 1 else bits * halves // 8
    there = min(header.data_bytes or 0, source.size - header.data_start)
    if there < frame * count:
        raise source.error(
            f"it declares {count} frame(s) and holds {there // frame}: it is cut short "
            f"or damaged. Copy or export it again."
        )


def _options(header: Header) -> dict[str, object]:
    dataset = header.dataset
    options: dict[str, object] = {
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
    """The rate that the cine was taken at, as far as the file says."""
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
