"""Provenance of a mask, and the JSON record beside it.

Neither names a file, a path or a patient.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from napari_cmunet.util.safe_files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np


PROGRAM = "napari-cmunet"
NOTICE = "Not a medical device. For research only, not for diagnosis or treatment."
SCHEMA = 1


def program_version() -> str:
    """Return the installed version, "unknown" in a bare checkout."""
    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The origin of one mask or probability map.

    All fields are optional. Only the last part of a path in ``model`` is kept.
    """

    model: str | None = None  # name from the model's card
    model_sha256: str | None = None  # of its weights
    threshold: float | None = None  # 0..1, of the artery probability
    device: str | None = None  # "cpu", "cuda", "mps"
    source_sha256: str | None = None  # of the image file's bytes
    frames: tuple[int, ...] | None = None  # indices in the source, one a page
    corrected: bool = False  # a reader changed it
    inverted: bool = False  # it is of the inverted grey values of the file
    imported_from: str | None = None  # kind of the file of another program: "COCO"
    imported_sha256: str | None = None  # of that file's bytes
    created: str = field(default_factory=_now)  # ISO 8601, UTC
    program: str = PROGRAM
    version: str = field(default_factory=program_version)
    notice: str = NOTICE

    def __post_init__(self) -> None:
        for name in ("model_sha256", "source_sha256", "imported_sha256"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
                raise ValueError(f"{name} must be 64 hexadecimal digits")
        if self.model is not None:
            # Folders may name people.
            last = re.split(r"[\\/]", self.model.rstrip("\\/"))[-1]
            object.__setattr__(self, "model", last)
        if self.frames is not None:
            object.__setattr__(self, "frames", tuple(int(i) for i in self.frames))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with the version of this schema."""
        values = dataclasses.asdict(self)
        values["frames"] = None if self.frames is None else list(self.frames)
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Create from the result of ``to_dict``; ignore unknown keys.

        Raises
        ------
        ValueError
            If the values are not a provenance, or of a newer schema.
        """
        schema = values.get("schema")
        if values.get("program") != PROGRAM or not isinstance(schema, int):
            raise ValueError("not a provenance record of napari-cmunet")
        if schema > SCHEMA:
            raise ValueError("written by a newer napari-cmunet; update this one")
        names = {f.name for f in dataclasses.fields(cls)}
        try:
            return cls(**{k: v for k, v in values.items() if k in names})
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError("a damaged provenance record") from error


def record_path(mask: Path) -> Path:
    """Return the path of the record beside a mask."""
    return mask.with_suffix(".json")


def write_record(
    path: Path,
    mask: np.ndarray,
    provenance: Provenance,
    *,
    pixel_size_mm: tuple[float, float] | None = None,
    pixel_size_source: str | None = None,
    reviewed: float | None = None,
    pixels_changed: Mapping[int, int] | None = None,
) -> None:
    """Write the record of a mask, atomically; raises WriteError.

    Parameters
    ----------
    mask : bool array (Y, X) or (T, Y, X)
    pixel_size_mm : (y, x), optional
    pixel_size_source : str, optional
        Origin of the pixel size.
    reviewed : float, optional
        Share of the pixels that was reviewed; None if unknown.
    pixels_changed : mapping, optional
        By frame, pixels where the reader's mask differs from the prediction; None if
        unknown.
    """
    changed = pixels_changed
    if changed is not None:
        changed = {frame: pixels for frame, pixels in changed.items() if pixels}
    record: dict[str, Any] = {
        "content": "artery mask",
        "shape": list(mask.shape),
        "axes": "TYX" if mask.ndim == 3 else "YX",
        "pixel_size_mm": None if pixel_size_mm is None else list(pixel_size_mm),
        "pixel_size_source": pixel_size_source,
        "artery_pixels": int(mask.sum()),
        "mask_pixels_sha256": hashlib.sha256(mask.tobytes()).hexdigest(),
        "reviewed": None if reviewed is None else round(reviewed, 6),
        "pixels_changed_by_reader": None if changed is None else sum(changed.values()),
        "frames_changed_by_reader": None if changed is None else sorted(changed),
        **provenance.to_dict(),
    }
    with atomic_write(path, "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
