"""Label TIFFs: a reader's mask of one frame, and which part of it was reviewed.

One page, the mask, if the whole frame was reviewed; a second page, 255 where reviewed,
if only a part was. Both are in one file so that no crash can part them. Otherwise a
label is like any mask TIFF; its record holds a ``note`` beside the provenance.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.masks import read_pixels, write_pixels
from napari_cmunet.io.provenance import Provenance

_LIMITS = ReadLimits(min_side=1, max_decoded_bytes=2**29, max_frames=2)


@dataclass(frozen=True)
class Label:
    """A label as its file holds it.

    Parameters
    ----------
    mask : bool array (Y, X)
        True where artery, also outside the reviewed part.
    reviewed : bool array (Y, X) or None
        None if the whole frame was reviewed.
    provenance : Provenance
    pixel_size_mm : (y, x) or None
    note : dict
        Whatever plain JSON values the writer added.
    """

    mask: np.ndarray
    reviewed: np.ndarray | None
    provenance: Provenance
    pixel_size_mm: tuple[float, float] | None = None
    note: dict[str, Any] = field(default_factory=dict)


def write_label(path: Path | str, label: Label) -> None:
    """Write a label, whole or not at all, and compare it with what was meant.

    Raises
    ------
    WriteError
        If it could not be written; what was at ``path`` before is still there.
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
    """Read what :func:`write_label` wrote.

    Raises
    ------
    ReadError
        If the file is damaged or no label of this program.
    """
    path = Path(path)
    raw = read_pixels(path, _LIMITS)
    pixels = raw.array[..., 0]
    record = _record(path, raw.description)
    try:
        provenance = Provenance.from_dict(record)
    except ValueError as error:
        raise ReadError(
            path, f"its record of origin cannot be used: {error}."
        ) from error
    pages = record.get("pages")
    if pages not in (["artery"], ["artery", "reviewed"]) or len(pages) != len(pixels):
        raise ReadError(path, "it is not a label of this program: its pages differ.")
    if raw.array.shape[-1] != 1 or pixels.dtype != np.uint8:
        raise ReadError(path, "it is not a label of this program: its pixels differ.")
    if not all(map(_is_mask, pixels)):
        raise ReadError(path, "it is damaged: a label holds 0 and 255 alone.")
    note = record.get("note")
    # In their own place: a large label is not held twice.
    marked = pixels if pixels.flags.writeable else pixels.copy()
    marked = np.minimum(marked, 1, out=marked).view(bool)
    return Label(
        marked[0],
        marked[1] if len(marked) == 2 else None,
        provenance,
        raw.pixel_size_mm,
        note if isinstance(note, dict) else {},
    )


def _is_mask(page: np.ndarray) -> bool:
    pieces = np.array_split(page, max(1, len(page) // 256))
    return all(((rows == 0) | (rows == 255)).all() for rows in pieces)


def _check(label: Label) -> None:
    if label.mask.dtype != bool or label.mask.ndim != 2:
        raise TypeError("a label's mask is bool (Y, X)")
    seen = label.reviewed
    if seen is not None and (seen.dtype != bool or seen.shape != label.mask.shape):
        raise TypeError("the reviewed part is bool, of the mask's shape")


def _record(path: Path, description: str) -> dict[str, Any]:
    try:
        record = json.loads(description)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ReadError(path, "it is not a label of this program: it has no record.")
    return record
