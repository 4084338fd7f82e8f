"""Look-up tables of a DICOM header: modality, VOI and palette, of any entry size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.io.dicom.values import content, numbers

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_ENTRIES = 2**16
_MOST_SEGMENTS = 2**17


class LookupTableError(ValueError):
    """A look-up table that cannot be used."""


@dataclass(frozen=True)
class LookupTable:
    """A table of grey values."""

    first: int  # the input value of the first entry
    entries: np.ndarray  # int array

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map input values; values beyond the table get its first or last entry."""
        index = np.rint(values) - self.first
        index = np.clip(index, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)]


def read_lookup_table(
    dataset: Dataset, descriptor: str, data: str, *, lowest: float
) -> LookupTable | None:
    """Read a table; None if it is blank.

    Parameters
    ----------
    dataset : Dataset
        The header, or the item of a sequence.
    descriptor, data : str
        Keywords of its elements.
    lowest : float
        The least input value; if it is negative, the first input value is signed.

    Raises
    ------
    LookupTableError
        If the table is not complete.
    """
    described = _descriptor(dataset, descriptor, lowest)
    if described is None:
        return None
    count, first, bits = described
    raw, little_endian, vr = content(dataset, data)
    if raw:
        entries = _entries(raw, count, bits, "<" if little_endian else ">", vr)
    else:
        found = [v for v in numbers(dataset, data) if v is not None]
        entries = np.array(found[:count], np.int64)
    if not len(entries):
        return None
    if len(entries) < count:
        raise LookupTableError("fewer entries than declared")
    return LookupTable(first, entries[:count])


def read_segmented_table(
    dataset: Dataset, descriptor: str, data: str, *, lowest: float
) -> LookupTable | None:
    """Read a segmented palette (DICOM PS3.3 C.7.9.2); None if it is blank."""
    described = _descriptor(dataset, descriptor, lowest)
    raw, little_endian, vr = content(dataset, data)
    if described is None or not raw:
        return None
    count, first, bits = described
    order = "<" if little_endian else ">"
    if bits <= 8:
        if order == ">" and vr != "OB":
            raw = _swapped(raw)
        words = np.frombuffer(raw, np.uint8)
    else:
        words = np.frombuffer(raw[: len(raw) // 2 * 2], f"{order}u2")
    entries: list[int] = []
    _expand(words.tolist(), 0, _MOST_SEGMENTS, entries, count, 1 if bits <= 8 else 2)
    if len(entries) < count:
        raise LookupTableError("fewer entries than declared")
    return LookupTable(first, np.array(entries[:count], np.int64))


def _descriptor(
    dataset: Dataset, keyword: str, lowest: float
) -> tuple[int, int, int] | None:
    """Return the number of entries, the first input value and the bits."""
    raw, little_endian, _ = content(dataset, keyword)
    if len(raw) == 6:  # US or SS, which implicit VR does not tell
        order = "<" if little_endian else ">"
        values = np.frombuffer(raw, f"{order}u2").tolist()
    else:
        found = [v for v in numbers(dataset, keyword) if v is not None]
        if len(found) != 3:
            return None
        values = [int(v) & 0xFFFF for v in found]
    count, first, bits = values
    if lowest < 0 and first >= 2**15:
        first -= 2**16
    return count or _MOST_ENTRIES, first, bits


def _entries(raw: bytes, count: int, bits: int, order: str, vr: str) -> np.ndarray:
    """Unpack entries of 16 bits, or of 8 bits where there are only as many bytes."""
    if len(raw) >= 2 * count:
        return np.frombuffer(raw[: 2 * count], f"{order}u2").astype(np.int64)
    if bits > 8 and not count <= len(raw) <= count + 1:
        raise LookupTableError("fewer entries than declared")
    if order == ">" and vr != "OB":
        raw = _swapped(raw)
    return np.frombuffer(raw, np.uint8).astype(np.int64)


def _swapped(raw: bytes) -> bytes:
    return np.frombuffer(raw[: len(raw) // 2 * 2], ">u2").astype("<u2").tobytes()


def _expand(
    words: list[int],
    at: int,
    segments: int,
    entries: list[int],
    count: int,
    word_bytes: int,
    *,
    nested: bool = False,
) -> None:
    """Expand the segments from a word on, to at most ``count`` entries."""
    while at + 2 < len(words) and len(entries) < count and segments > 0:
        kind, length = words[at], words[at + 1]
        at += 2
        if kind == 0:
            entries += words[at : at + length]
            at += length
        elif kind == 1 and entries:
            start, end = entries[-1], words[at]
            steps = np.linspace(start, end, length + 1)[1:]
            entries += np.around(steps).astype(int).tolist()
            at += 1
        elif kind == 2 and entries and not nested:
            size = 4 // word_bytes  # the offset has 32 bits, least significant first
            offset = sum(
                word << (8 * word_bytes * i)
                for i, word in enumerate(words[at : at + size])
            )
            at += size
            target = offset // word_bytes
            before = len(entries)
            _expand(words, target, length, entries, count, word_bytes, nested=True)
            if len(entries) == before:
                raise LookupTableError("an empty segment")
        else:
            raise LookupTableError("an unknown segment")
        segments -= 1
