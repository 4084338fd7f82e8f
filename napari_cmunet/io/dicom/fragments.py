"""Locate the frames of encapsulated pixel data in a file.

pydicom's ``get_frame`` goes through all fragments for every frame, and allocates as
much memory as an offset table or fragment declares. Here the fragments are located
once and checked against the file's size; each frame is then read directly.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from pydicom.encaps import parse_basic_offsets, parse_fragments

if TYPE_CHECKING:
    from napari_cmunet.io.dicom.header import Header
    from napari_cmunet.io.sniffing import SniffedFile

Span = tuple[int, int]
"""Offset and length in bytes of one fragment's value."""

_END_OF_IMAGE = b"\xff\xd9"
_ITEM_HEADER = 8


def find_frames(file: SniffedFile, header: Header, count: int) -> list[list[Span]]:
    """Locate the fragments of each of ``count`` frames.

    Raises
    ------
    ReadError
        If a frame is missing or incomplete.
    """
    handle = file.handle
    # pydicom allocates the declared length of the table.
    start, length = _span(handle, header.data_start)
    if start + length > file.size:
        raise _cut_short(file)
    handle.seek(header.data_start)
    offsets = parse_basic_offsets(handle)
    base = handle.tell()
    _, items = parse_fragments(handle)
    spans = [_span(handle, item) for item in items]
    if any(start + length > file.size for start, length in spans):
        raise _cut_short(file)
    if "ExtendedOffsetTable" in header.dataset:
        table = header.dataset.ExtendedOffsetTable
        offsets = np.frombuffer(table, "<u8").tolist()
    if len(offsets) == count and len(spans) > count:
        frames = _by_offsets(items, spans, [base + offset for offset in offsets])
    elif len(spans) == count:
        frames = [[span] for span in spans]
    elif count == 1:
        frames = [spans]
    else:
        frames = _by_end_of_image(handle, spans)
    whole = sum(1 for frame in frames if frame and all(length for _, length in frame))
    if whole < count:
        raise file.error(
            f"it declares {count} frame(s) and holds {whole}: it is cut short or "
            f"damaged. Copy or export it again."
        )
    return frames[:count]


def read_fragments(handle: BinaryIO, spans: list[Span]) -> bytes:
    """Read one frame's codestream."""
    parts = []
    for start, length in spans:
        handle.seek(start)
        parts.append(handle.read(length))
    return b"".join(parts)


def _span(handle: BinaryIO, item: int) -> Span:
    handle.seek(item + 4)
    return item + _ITEM_HEADER, int.from_bytes(handle.read(4), "little")


def _by_offsets(
    items: list[int], spans: list[Span], starts: list[int]
) -> list[list[Span]]:
    frames: list[list[Span]] = [[] for _ in starts]
    if sorted(starts) != starts:
        return []
    for item, span in zip(items, spans, strict=True):
        frame = bisect.bisect_right(starts, item) - 1
        if frame >= 0:
            frames[frame].append(span)
    return frames


def _by_end_of_image(handle: BinaryIO, spans: list[Span]) -> list[list[Span]]:
    """Group fragments by the end-of-image marker, which padding may follow."""
    frames: list[list[Span]] = [[]]
    for start, length in spans:
        frames[-1].append((start, length))
        tail = min(length, 10)
        handle.seek(start + length - tail)
        if _END_OF_IMAGE in handle.read(tail):
            frames.append([])
    return frames[:-1] if not frames[-1] else frames


def _cut_short(file: SniffedFile) -> Exception:
    return file.error("the DICOM file is cut short. Copy or export it again.")
