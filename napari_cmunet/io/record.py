"""The JSON record beside a mask: where it comes from, and what it holds.

As the mask's own record, it names no file, no path and no patient.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from napari_cmunet.atomic import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from napari_cmunet.io.provenance import Provenance


def record_path(mask: Path) -> Path:
    """Where the record of a mask lies."""
    return mask.with_suffix(".json")


def write_record(
    path: Path,
    mask: np.ndarray,
    provenance: Provenance,
    *,
    pixel_size_mm: tuple[float, float] | None = None,
    pixel_size_source: str | None = None,
    reviewed: float | None = None,
    pixels_changed: int | None = None,
) -> None:
    """Write the record of a mask, whole or not at all.

    Parameters
    ----------
    path : Path
    mask : bool array (Y, X) or (T, Y, X)
    provenance : Provenance
    pixel_size_mm : (y, x), optional
    pixel_size_source : str, optional
        Where the pixel size comes from, in words.
    reviewed : float, optional
        Which share of the pixels a reader has reviewed; None if nobody said so.
    pixels_changed : int, optional
        Pixels that a reader made other than the model had found; None if unknown.

    Raises
    ------
    WriteError
    """
    record: dict[str, Any] = {
        "content": "artery mask",
        "shape": list(mask.shape),
        "axes": "TYX" if mask.ndim == 3 else "YX",
        "pixel_size_mm": None if pixel_size_mm is None else list(pixel_size_mm),
        "pixel_size_source": pixel_size_source,
        "artery_pixels": int(mask.sum()),
        "mask_pixels_sha256": hashlib.sha256(mask.tobytes()).hexdigest(),
        "reviewed": None if reviewed is None else round(reviewed, 6),
        "pixels_changed_by_reader": pixels_changed,
        **provenance.to_dict(),
    }
    with atomic_write(path, "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
