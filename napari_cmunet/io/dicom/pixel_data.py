"""The pixel data of a DICOM image: how it is stored, and where its frames are.

pydicom's ``get_frame`` goes through all fragments for every frame, and allocates as
much memory as an offset table or fragment declares. Here the fragments are located
once and checked against the file's size; each frame is then read directly.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation as Photometric

from napari_cmunet.io.dicom.header import content, integer, text
from napari_cmunet.io.formats.raster import jpeg_frame_marker

if TYPE_CHECKING:
    from napari_cmunet.io.dicom.header import Header
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


@dataclass(frozen=True)
class PixelFormat:
    """Size and type of stored pixels."""

    rows: int
    columns: int
    samples: int
    #: allocated, stored: bits of a sample.
    allocated: int
    stored: int
    shift: int  # bits below the stored ones, according to HighBit
    signed: bool
    photometric: str
    planar: int
    frames: int | None  # the declared number; None if there is none
    vr: str  # OB or OW
    notes: tuple[str, ...] = ()

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame without compression."""
        pixels = self.rows * self.columns * self.allocated // 8
        if self.samples == 3 and self.photometric == Photometric.YBR_FULL_422:
            return 2 * pixels
        return self.samples * pixels

    def decoder_options(self, frames: int) -> dict[str, Any]:
        """Return the options of pydicom's decoders."""
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": frames,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "bits_allocated": self.allocated,
            "bits_stored": self.stored,
            "pixel_representation": int(self.signed),
            "pixel_keyword": "PixelData",
            "pixel_vr": self.vr,
        }
        if self.samples != 1:
            options["planar_configuration"] = self.planar
        return options


def pixel_format(file: SniffedFile, header: Header) -> PixelFormat:
    """Read the format from the header, with the usual defaults for what is missing.

    Raises
    ------
    ReadError
        If the format is not supported.
    """
    dataset = header.dataset
    notes: list[str] = []
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if rows is None or columns is None:
        raise file.error(
            "its header does not say how many rows and columns it has. Export it again."
        )
    samples = integer(dataset, "SamplesPerPixel") or 1
    default = Photometric.MONOCHROME2 if samples == 1 else Photometric.RGB
    photometric = text(dataset, "PhotometricInterpretation")
    photometric = photometric.replace("MONOCHROME ", "MONOCHROME") or str(default)
    if samples not in (1, 3) or photometric not in _GREY + _COLOUR:
        raise file.error("its kind of colour is none that is read. Export it in grey.")
    if photometric not in (_GREY if samples == 1 else _COLOUR):
        photometric = str(default)
        notes.append("its header contradicts itself on the colours of a pixel")
    frames = integer(dataset, "NumberOfFrames")
    full = 3 * rows * columns * max(frames or 1, 1)
    if photometric == Photometric.YBR_FULL_422 and full == header.data_bytes:
        photometric = Photometric.YBR_FULL
    stored = integer(dataset, "BitsStored")
    allocated = integer(dataset, "BitsAllocated")
    if allocated is None and stored is not None:
        allocated = 8 if stored <= 8 else 16
    if allocated is None:
        raise file.error(
            "its header does not say how many bits a pixel has. Export it again."
        )
    if allocated not in (8, 16) or stored == 1:
        raise file.error(
            f"it stores {stored or allocated} of {allocated} bits for each pixel; an "
            f"angiogram has 8 to 16. Export it again."
        )
    high = integer(dataset, "HighBit")
    if stored is not None and not 2 <= stored <= allocated:
        notes.append("its header contradicts itself on the bits of a pixel")
        stored = high = None
    stored = allocated if stored is None else stored
    shift = 0 if high is None else high + 1 - stored
    if shift:
        notes.append("its header contradicts itself on the bits of a pixel (HighBit)")
    return PixelFormat(
        rows,
        columns,
        samples,
        allocated,
        stored,
        shift if 0 < shift <= allocated - stored else 0,
        integer(dataset, "PixelRepresentation") == 1,
        photometric,
        integer(dataset, "PlanarConfiguration") or 0,
        frames if frames is not None and frames > 0 else None,
        header.pixel_vr,
        tuple(notes),
    )


Span = tuple[int, int]
"""Offset and length in bytes of one fragment's value."""

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_ITEM_HEADER = 8
_MOST_FRAGMENTS = 400_000
_HEAD_BYTES = 2**16
_JPEG_SYNTAXES = {0xC0: uid.JPEGBaseline8Bit, 0xC1: uid.JPEGExtended12Bit}
_JPEG_SYNTAXES |= {0xC3: uid.JPEGLossless, 0xF7: uid.JPEGLSLossless}
_HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_FAMILIES = (
    uid.JPEGTransferSyntaxes,
    uid.JPEGLSTransferSyntaxes,
    [*uid.JPEG2000TransferSyntaxes, *_HTJ2K],
    [uid.RLELossless],
)
_CONTRADICTION = "its header contradicts the way its pixels are stored"


@dataclass(frozen=True)
class FrameLocations:
    """Where the frames are and how they are compressed."""

    count: int
    syntax: uid.UID  # the transfer syntax of the pixel data
    #: Per frame; empty if the pixel data is not encapsulated.
    fragments: list[list[Span]]
    notes: tuple[str, ...] = ()


def locate_frames(
    file: SniffedFile, header: Header, pixels: PixelFormat
) -> FrameLocations:
    """Locate all frames of a file, whatever number of frames it declares.

    Raises
    ------
    ReadError
        If no frame is complete.
    """
    end = file.size
    if header.data_bytes is not None:
        end = min(end, header.data_start + header.data_bytes)
    there = end - header.data_start
    declared = header.transfer_syntax
    notes: tuple[str, ...] = ()
    file.handle.seek(header.data_start)
    head = file.handle.read(_ITEM_HEADER)
    expected = pixels.frame_bytes * (pixels.frames or 1)
    is_native = header.data_bytes is not None and (
        not declared.is_encapsulated or head[:4] != _ITEM
    )
    if is_native and head[:4] == _ITEM and there < expected:
        is_native = False  # encapsulated, with a defined length
    if is_native:
        if declared.is_encapsulated:
            if _sniff(head) and there < expected:
                fragments = [[(header.data_start, there)]]
                return _checked(file, pixels, declared, fragments, (_CONTRADICTION,))
            declared, notes = uid.ExplicitVRLittleEndian, (_CONTRADICTION,)
        count = there // pixels.frame_bytes if pixels.frame_bytes else 0
        return _counted(file, pixels, declared, count, [], notes)
    if head[:4] != _ITEM:
        raise file.error(f"{_CONTRADICTION}. Export it again.")
    spans, items, offsets = _scan(file, header, end)
    return _checked(
        file, pixels, declared, _group(file.handle, pixels, spans, items, offsets), ()
    )


def read_fragments(handle: BinaryIO, spans: list[Span]) -> bytes:
    """Read one frame's codestream."""
    parts = []
    for start, length in spans:
        handle.seek(start)
        parts.append(handle.read(length))
    return b"".join(parts)


def _checked(
    file: SniffedFile,
    pixels: PixelFormat,
    declared: uid.UID,
    fragments: list[list[Span]],
    notes: tuple[str, ...],
) -> FrameLocations:
    """Compare the declared transfer syntax with the first codestream."""
    if fragments:
        start, length = fragments[0][0]
        found = _sniff(read_fragments(file.handle, [(start, min(length, _HEAD_BYTES))]))
        alike = any(found in family and declared in family for family in _FAMILIES)
        known = not declared.is_encapsulated or any(declared in f for f in _FAMILIES)
        if found and not alike and known:
            declared, notes = found, (_CONTRADICTION,)
    if not declared.is_encapsulated:
        raise file.error(f"{_CONTRADICTION}. Export it again.")
    return _counted(file, pixels, declared, len(fragments), fragments, notes)


def _counted(
    file: SniffedFile,
    pixels: PixelFormat,
    syntax: uid.UID,
    count: int,
    fragments: list[list[Span]],
    notes: tuple[str, ...],
) -> FrameLocations:
    """Compare the declared number of frames with those that are there."""
    declared = pixels.frames
    if count == 0:
        raise file.error(
            f"it declares {declared or 1} frame(s) and holds 0: it is cut short or "
            f"damaged. Copy or export it again."
        )
    if declared is None and count > 1:
        notes += (f"it does not say how many frames it has; {count} were found",)
    elif declared is not None and count > declared:
        notes += (f"it declares {declared} frame(s) and holds {count}: all were read",)
    elif declared is not None and count < declared:
        notes += (
            f"it declares {declared} frame(s) and holds {count}: it may be cut short",
        )
    return FrameLocations(count, syntax, fragments, notes)


def _scan(
    file: SniffedFile, header: Header, end: int
) -> tuple[list[Span], list[int], list[int]]:
    """Return the fragments that are not empty, their items and the frame offsets.

    Items and offsets are relative to the first item after the offset table.
    """
    handle = file.handle
    table, at = _item(handle, header.data_start, end)
    offsets: list[int] = []
    if table is not None:
        length = min(table[1] // 4, _MOST_FRAGMENTS) * 4
        raw = read_fragments(handle, [(table[0], length)])
        offsets = np.frombuffer(raw, "<u4").tolist()
    extended, _, _ = content(header.dataset, "ExtendedOffsetTable")
    if extended and len(extended) % 8 == 0:
        offsets = np.frombuffer(extended, "<u8").tolist()
    base = at
    spans, items = [], []
    for _ in range(_MOST_FRAGMENTS):
        span, next_at = _item(handle, at, end)
        if span is None:
            break
        if span[1]:
            spans.append(span)
            items.append(span[0] - _ITEM_HEADER - base)
        at = next_at
    return spans, items, offsets


def _item(handle: BinaryIO, at: int, end: int) -> tuple[Span | None, int]:
    """Return the value of the item at an offset, and where the next one starts."""
    handle.seek(at)
    head = handle.read(_ITEM_HEADER + 1)
    if head[:1] != _ITEM[:1] and head[1:5] in (_ITEM, _DELIMITER):
        at, head = at + 1, head[1:] + handle.read(1)  # an odd fragment was padded
    length = int.from_bytes(head[4:8], "little")
    start = at + _ITEM_HEADER
    if len(head) < _ITEM_HEADER or head[:4] != _ITEM or start + length > end:
        return None, at
    return (start, length), start + length


def _group(
    handle: BinaryIO,
    pixels: PixelFormat,
    spans: list[Span],
    items: list[int],
    offsets: list[int],
) -> list[list[Span]]:
    """Group fragments to frames."""
    valid = (
        bool(offsets)
        and offsets[0] == 0
        and all(a < b for a, b in itertools.pairwise(offsets))
        and set(offsets) <= set(items)
    )
    if valid and (len(offsets) == pixels.frames or len(offsets) > 1):
        frames: list[list[Span]] = [[] for _ in offsets]
        for item, span in zip(items, spans, strict=True):
            frames[bisect.bisect_right(offsets, item) - 1].append(span)
        if len(spans) != pixels.frames or len(offsets) == pixels.frames:
            return frames
    if len(spans) == pixels.frames or len(spans) <= 1:
        return [[span] for span in spans]
    frames, starts = [], 0
    for start, length in spans:
        handle.seek(start)
        begins = bool(_sniff(handle.read(min(length, _ITEM_HEADER))))
        starts += begins
        if begins or not frames:
            frames.append([])
        frames[-1].append((start, length))
    return frames if starts else [spans]


def _sniff(head: bytes) -> uid.UID | None:
    """Return a transfer syntax of the codestream that starts so; None if unknown."""
    if head[:3] == b"\xff\xd8\xff":
        marker = jpeg_frame_marker(head)
        return _JPEG_SYNTAXES.get(marker or 0xC0, uid.JPEGBaseline8Bit)
    if head[:4] == b"\xff\x4f\xff\x51":
        size = int.from_bytes(head[4:6], "big")
        capability = head[4 + size : 6 + size] == b"\xff\x50"
        return uid.HTJ2K if capability else uid.JPEG2000
    if head[:8] == b"\0\0\0\x0cjP  ":
        return uid.JPEG2000
    segments = int.from_bytes(head[:4], "little")
    if 1 <= segments <= 15 and head[4:8] == b"\x40\0\0\0":
        return uid.RLELossless
    return None
