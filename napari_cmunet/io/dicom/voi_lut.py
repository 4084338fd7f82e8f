"""Apply modality LUT, VOI LUT and MONOCHROME1 inversion.

They are combined into one table over the at most 65,536 stored values. A linear
window changes no value; it becomes the display range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydicom import uid

from napari_cmunet.io.dicom.header import content, items, number, numbers, text

if TYPE_CHECKING:
    from pydicom import Dataset

    from napari_cmunet.io.dicom.pixel_data import PixelFormat

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


_PROJECTIONS = (
    uid.XRayAngiographicImageStorage,
    uid.EnhancedXAImageStorage,
    uid.XRayRadiofluoroscopicImageStorage,
    uid.EnhancedXRFImageStorage,
    "1.2.840.10008.5.1.4.1.1.12.3",  # XA biplane, retired
)
_LUMINANCE = (0.299, 0.587, 0.114)
_FEW_VALUES = 2


@dataclass(frozen=True)
class GreyscaleTransform:
    """Mapping of stored values to grey values."""

    #: array or None; grey value of each stored value from ``lowest`` on; None for
    #: identity.
    table: np.ndarray | None
    lowest: int  # the smallest value that can be stored
    dtype: np.dtype  # of the grey values
    window: tuple[float, float] | None = None  # range of grey values to display
    notes: tuple[str, ...] = ()
    #: The transform without its LUTs, for images that lose their contrast in them.
    plain: GreyscaleTransform | None = None

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Convert the stored values of a frame to grey values."""
        if self.table is None:
            return stored.astype(self.dtype, copy=False)
        # A damaged stream may decode to values beyond the declared bits.
        return self.table.take(stored.astype(np.int32) - self.lowest, mode="clip")

    def suited_to(self, stored: np.ndarray) -> GreyscaleTransform:
        """Return the transform without LUTs if they leave a frame one or two values."""
        if self.plain is None or stored.min() == stored.max():
            return self
        if _distinct(self(stored)) > _FEW_VALUES or _distinct(stored) <= _FEW_VALUES:
            return self
        note = (
            "its look-up tables leave one or two grey values and were left out; the "
            "stored values are shown"
        )
        return replace(self.plain, notes=(*self.notes, note))


def greyscale_transform(dataset: Dataset, pixels: PixelFormat) -> GreyscaleTransform:
    """Combine the LUTs of a header.

    Raises
    ------
    LookupTableError
        If a palette cannot be used, without which stored values mean nothing.
    """
    bits = pixels.stored
    lowest = -(2 ** (bits - 1)) if pixels.signed else 0
    stored = np.arange(lowest, lowest + 2**bits, dtype=np.int32)
    plain = np.dtype(("i" if pixels.signed else "u") + ("1" if bits <= 8 else "2"))
    if pixels.photometric == "PALETTE COLOR":
        return _palette_transform(dataset, stored, lowest)
    is_inverted = (
        pixels.photometric == "MONOCHROME1"
        or text(dataset, "PresentationLUTShape") == "INVERSE"
    )
    notes: list[str] = []
    seen = _apply_modality(dataset, stored, notes)
    if not np.abs(seen).max() <= np.finfo(np.float32).max:
        notes.append("its rescaling gives no usable numbers and was left out")
        seen = stored
    seen, window = _apply_voi(dataset, stored, seen, notes)
    without = _finished(stored, stored, lowest, plain, is_inverted, None, ())
    made = _finished(seen, stored, lowest, plain, is_inverted, window, tuple(notes))
    return made if made.table is None else replace(made, plain=without)


def colour_transform(pixels: PixelFormat) -> GreyscaleTransform:
    """Return the transform of a colour image after conversion to grey."""
    return GreyscaleTransform(None, 0, np.dtype("u1" if pixels.stored <= 8 else "u2"))


def _apply_modality(
    dataset: Dataset, stored: np.ndarray, notes: list[str]
) -> np.ndarray:
    if _is_display_ready(dataset):
        return stored
    for item in items(dataset, "ModalityLUTSequence")[:1]:
        table = _table_of(item, float(stored[0]), "modality", notes)
        if table is not None:
            return table(stored)
    slope = number(dataset, "RescaleSlope")
    intercept = number(dataset, "RescaleIntercept")
    if slope == 0:
        notes.append("its rescale slope is 0 and was left out")
        slope = None
    if (slope is None or slope == 1) and not intercept:
        return stored
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _is_display_ready(dataset: Dataset) -> bool:
    """Whether the modality LUT of a projection is for measurement only.

    That of log or display values leads back to the intensity of the beam: DICOM PS3.3
    C.8.7.1.1.2.
    """
    kind = text(dataset, "SOPClassUID")
    is_projection = kind in _PROJECTIONS or text(dataset, "Modality") in ("XA", "RF")
    relation = text(dataset, "PixelIntensityRelationship")
    return is_projection and relation in ("LOG", "DISP")


def _apply_voi(
    dataset: Dataset, stored: np.ndarray, seen: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, tuple[float, float] | None]:
    for item in items(dataset, "VOILUTSequence")[:1]:
        table = _table_of(item, float(seen.min()), "VOI", notes)
        if table is not None:
            return table(_overlapping(table, stored, seen)), None
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if centre is None or width is None:
        return seen, None
    function = text(dataset, "VOILUTFunction")
    if function == "SIGMOID" and width > 0:
        low, high = float(seen.min()), float(seen.max())
        with np.errstate(over="ignore"):
            curve = 1 / (1 + np.exp(-4 * (seen - centre) / width))
        return low + (high - low) * curve, None
    if not width > 1:  # no grey values between black and white
        return seen, None
    if function == "LINEAR_EXACT":
        window = centre - width / 2, centre + width / 2
    else:  # DICOM PS3.3 C.11.2.1.2.1
        window = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return seen, _window_in_grey_values(window, stored, seen)


def _overlapping(
    table: LookupTable, stored: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Return the values that a VOI LUT is meant for: stored ones, if only they fit."""
    first, last = table.first, table.first + len(table.entries) - 1
    fits = seen.max() >= first and seen.min() <= last
    return seen if fits else stored


def _window_in_grey_values(
    window: tuple[float, float], stored: np.ndarray, seen: np.ndarray
) -> tuple[float, float]:
    """Convert a window that can only be one of stored values."""
    low, high = window
    if seen is stored or (high > seen.min() and low < seen.max()):
        return window
    if not (high > stored[0] and low < stored[-1]):
        return window
    ends = np.interp([low, high], stored, seen)
    return float(ends.min()), float(ends.max())


def _table_of(
    item: Dataset, lowest: float, name: str, notes: list[str]
) -> LookupTable | None:
    try:
        return read_lookup_table(item, "LUTDescriptor", "LUTData", lowest=lowest)
    except LookupTableError:
        notes.append(f"its {name} look-up table is incomplete and was left out")
        return None


def _finished(
    seen: np.ndarray,
    stored: np.ndarray,
    lowest: int,
    plain: np.dtype,
    is_inverted: bool,
    window: tuple[float, float] | None,
    notes: tuple[str, ...],
) -> GreyscaleTransform:
    if is_inverted:
        seen = seen.astype(np.float64)
        both = float(seen.max() + seen.min())
        seen = both - seen
        if window is not None:
            window = (both - window[1], both - window[0])
    if np.array_equal(seen, stored):
        return GreyscaleTransform(None, lowest, plain, window, notes)
    table = _smallest(seen)
    return GreyscaleTransform(table, lowest, table.dtype, window, notes)


def _palette_transform(
    dataset: Dataset, stored: np.ndarray, lowest: int
) -> GreyscaleTransform:
    channels = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        table = read_lookup_table(
            dataset, f"{name}Descriptor", f"{name}Data", lowest=lowest
        ) or read_segmented_table(
            dataset, f"{name}Descriptor", f"Segmented{name}Data", lowest=lowest
        )
        if table is None:
            raise LookupTableError("no palette")
        channels.append(table(stored).astype(np.float64))
    colours = np.stack(channels, axis=1)
    table_of_grey = _smallest(np.rint(colours @ _LUMINANCE))
    is_grey = (colours.max(axis=1) == colours.min(axis=1)).all()
    notes = () if is_grey else ("its palette was converted to grey",)
    return GreyscaleTransform(table_of_grey, lowest, table_of_grey.dtype, None, notes)


def _distinct(values: np.ndarray) -> int:
    """Count distinct values, up to three."""
    low, high = values.min(), values.max()
    if low == high:
        return 1
    return 3 if ((values != low) & (values != high)).any() else 2


def _smallest(table: np.ndarray) -> np.ndarray:
    """Convert to the smallest integer type that holds the table, else float32."""
    if np.array_equal(table, np.rint(table)):
        for kind in (np.uint8, np.uint16, np.int16, np.int32):
            info = np.iinfo(kind)
            if info.min <= table.min() and table.max() <= info.max:
                return table.astype(kind)
    return table.astype(np.float32)
