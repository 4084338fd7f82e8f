"""Label TIFFs: the corrected mask of one frame, and which part was reviewed.

The first page is the mask; a second page, 255 where reviewed, exists if only a part
was reviewed. Both are in one file so that they are always consistent. Otherwise a
label is a mask TIFF; its record holds a ``note`` beside the provenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.masks.files import (
    provenance_of,
    read_pixels,
    record_of,
    write_pixels,
)
from napari_cmunet.vessels.naming import SegmentName
from napari_cmunet.vessels.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.io.provenance import Provenance

LARGE_ON_PURPOSE = "large_on_purpose"
"""Key of a note: the user confirmed that so much of the frame is artery."""

MEASUREMENT = "measurement"
"""Key of a note: the stenosis as the model's mask has it, and the corrected one."""

NAMES = "names"
"""Key of a note: the SYNTAX segments of its vessels."""

_LIMITS = ReadLimits(min_side=1, max_decoded_bytes=2**29, max_frames=2)
_LARGEST = 2**31  # row or column of a point


@dataclass(frozen=True)
class Label:
    """The content of a label file."""

    #: bool array (Y, X); true for artery, also outside the reviewed part.
    mask: np.ndarray
    #: bool array (Y, X) or None; None if the whole frame was reviewed.
    reviewed: np.ndarray | None
    provenance: Provenance
    pixel_size_mm: tuple[float, float] | None = None
    #: Further JSON values of the writer.
    note: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[SegmentName, ...]:
        """The SYNTAX segments of its vessels."""
        return names_from_json(self.note.get(NAMES))


def write_label(path: Path | str, label: Label) -> None:
    """Write a label, atomically, and verify it by reading back.

    Raises
    ------
    WriteError
        If it could not be written; an existing file is left untouched.
    """
    _check(label)
    pixels = label.mask.view(np.uint8) * np.uint8(255)
    meaning: dict[str, Any] = {
        "content": "artery mask",
        "background": 0,
        "artery": 255,
        "pages": ["artery"],
        "note": label.note,
    }
    if label.reviewed is not None:
        pixels = np.stack([pixels, label.reviewed.view(np.uint8) * np.uint8(255)])
        meaning |= {"axes": "QYX", "pages": ["artery", "reviewed"]}
    write_pixels(Path(path), pixels, meaning, label.provenance, label.pixel_size_mm)


def read_label(path: Path | str) -> Label:
    """Read a label written by :func:`write_label`.

    Raises
    ------
    ReadError
        If the file is damaged or not a label of this program.
    """
    path = Path(path)
    decoded = read_pixels(path, _LIMITS)
    pixels = decoded.array[..., 0]
    record = record_of(decoded.description)
    if not record:
        raise ReadError(path, "it is not a label of this program: it has no record.")
    provenance = provenance_of(path, record)
    pages = record.get("pages")
    if pages not in (["artery"], ["artery", "reviewed"]) or len(pages) != len(pixels):
        raise ReadError(path, "it is not a label of this program: its pages differ.")
    if decoded.array.shape[-1] != 1 or pixels.dtype != np.uint8:
        raise ReadError(path, "it is not a label of this program: its pixels differ.")
    if not all(map(_is_mask, pixels)):
        raise ReadError(path, "it is damaged: a label holds 0 and 255 alone.")
    note = record.get("note")
    # In place, to save memory for a large label.
    marked = pixels if pixels.flags.writeable else pixels.copy()
    marked = np.minimum(marked, 1, out=marked).view(bool)
    return Label(
        marked[0],
        marked[1] if len(marked) == 2 else None,
        provenance,
        decoded.pixel_size_mm,
        note if isinstance(note, dict) else {},
    )


def names_to_json(names: Iterable[SegmentName]) -> list[dict[str, Any]]:
    """Names of vessels as plain JSON types, for a note."""
    return [
        {"segment": name.segment, "points": [list(point) for point in name.points]}
        | ({"doubt": round(name.doubt, 3)} if name.doubt else {})
        for name in names
    ]


def names_from_json(values: object) -> tuple[SegmentName, ...]:
    """Names of vessels from JSON values; what does not fit is left out."""
    names = []
    for value in values if isinstance(values, list) else []:
        try:
            points = tuple((int(row), int(column)) for row, column in value["points"])
            doubt = float(value.get("doubt", 0.0))
            segment = value["segment"]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue
        known = isinstance(segment, str) and segment in {"", *SEGMENTS}
        inside = all(0 <= place < _LARGEST for point in points for place in point)
        if points and known and inside and 0 <= doubt <= 1:
            names.append(SegmentName(segment, points, doubt))
    return tuple(names)


def _is_mask(page: np.ndarray) -> bool:
    pieces = np.array_split(page, max(1, len(page) // 256))
    return all(((rows == 0) | (rows == 255)).all() for rows in pieces)


def _check(label: Label) -> None:
    if label.mask.dtype != bool or label.mask.ndim != 2:
        raise TypeError("a label's mask is bool (Y, X)")
    seen = label.reviewed
    if seen is not None and (seen.dtype != bool or seen.shape != label.mask.shape):
        raise TypeError("the reviewed part is bool, of the mask's shape")
