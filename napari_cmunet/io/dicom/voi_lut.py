"""Apply modality LUT, VOI LUT and MONOCHROME1 inversion.

They are combined into one table over the at most 65,536 stored values. A linear
window changes no value; it becomes the display range.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class GreyscaleTransform:
    """Mapping of stored values to grey values.

    Parameters
    ----------
    table : array or None
        Grey value of each stored value from ``lowest`` on; None for identity.
    lowest : int
        The smallest value that can be stored.
    dtype : dtype
        Of the grey values.
    window : (low, high) or None
        Range of grey values to display.
    notes : tuple of str
    """

    table: np.ndarray | None
    lowest: int
    dtype: np.dtype
    window: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Convert the stored values of a frame to grey values."""
        if self.table is None:
            return stored.astype(self.dtype, copy=False)
        # A damaged stream may decode to values beyond the declared bits.
        return self.table.take(stored.astype(np.int32) - self.lowest, mode="clip")


def greyscale_transform(dataset: Dataset) -> GreyscaleTransform:
    """Combine the LUTs of a header; raise whatever pydicom does."""
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    lowest = -(2 ** (bits - 1)) if signed else 0
    stored = np.arange(lowest, lowest + 2**bits, dtype=np.int32)
    plain = np.dtype(("i" if signed else "u") + ("1" if bits <= 8 else "2"))
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _of_palette(stored, lowest, dataset)
    seen: np.ndarray = apply_modality_lut(stored, dataset)
    notes: tuple[str, ...] = ()
    window = None
    if dataset.get("VOILUTSequence"):
        seen = apply_voi_lut(seen, dataset, prefer_lut=True)
    elif dataset.get("WindowWidth") is not None:
        if dataset.get("VOILUTFunction") == "SIGMOID":
            seen = apply_voi_lut(seen, dataset, prefer_lut=False)
        else:
            window = _window(dataset)
    if _is_inverted(dataset):
        seen = seen.astype(np.float64)
        both = float(seen.max() + seen.min())
        seen = both - seen
        if window is not None:
            window = (both - window[1], both - window[0])
    if np.array_equal(seen, stored):
        return GreyscaleTransform(None, lowest, plain, window, notes)
    if not np.abs(seen).max() <= np.finfo(np.float32).max:  # not a number, too
        note = "its rescaling gives no usable numbers and was left out"
        return GreyscaleTransform(None, lowest, plain, None, (note,))
    table = _smallest(seen)
    return GreyscaleTransform(table, lowest, table.dtype, window, notes)


def colour_transform(dataset: Dataset) -> GreyscaleTransform:
    """Return the transform of a colour image after conversion to grey."""
    return GreyscaleTransform(
        None, 0, np.dtype("u1" if int(dataset.BitsStored) <= 8 else "u2")
    )


def _of_palette(
    stored: np.ndarray, lowest: int, dataset: Dataset
) -> GreyscaleTransform:
    colours = apply_color_lut(stored, dataset).astype(np.float64)
    grey = np.rint(colours[:, :3] @ (0.299, 0.587, 0.114))
    table = _smallest(grey)
    transform = GreyscaleTransform(table, lowest, table.dtype)
    if (colours.max(axis=1) == colours.min(axis=1)).all():
        return transform
    return dataclasses.replace(transform, notes=("its palette was converted to grey",))


def _is_inverted(dataset: Dataset) -> bool:
    return (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    )


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """Return the first window of the file, in grey values."""
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.WindowWidth)
    if centre is None or width is None or not width >= 1:
        return None
    if dataset.get("VOILUTFunction") == "LINEAR_EXACT":
        return centre - width / 2, centre + width / 2
    # DICOM PS3.3 C.11.2.1.2.1
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _first(value: object) -> float | None:
    if isinstance(value, (list, tuple)) or hasattr(value, "__getitem__"):
        value = value[0] if len(value) else None  # type: ignore[arg-type]
    return None if value is None else float(value)  # type: ignore[arg-type]


def _smallest(table: np.ndarray) -> np.ndarray:
    """Convert to the smallest integer type that holds the table, else float32."""
    if np.array_equal(table, np.rint(table)):
        for kind in (np.uint8, np.uint16, np.int16, np.int32):
            info = np.iinfo(kind)
            if info.min <= table.min() and table.max() <= info.max:
                return table.astype(kind)
    return table.astype(np.float32)
