"""Where a mask comes from: what is written into every file that this program exports.

It holds no file name, no path and nothing about the patient or the user. The image is
named by the hash of its file.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    Every field may be left out. ``model`` keeps the last part of a path only.
    """

    model: str | None = None  # name from the model's card
    model_sha256: str | None = None  # of its weights
    threshold: float | None = None  # 0..1, of the artery probability
    device: str | None = None  # "cpu", "cuda", "mps"
    source_sha256: str | None = None  # of the image file's bytes
    frames: tuple[int, ...] | None = None  # indices in the source, one a page
    corrected: bool = False  # a reader changed it
    created: str = field(default_factory=_now)  # ISO 8601, UTC
    program: str = PROGRAM
    version: str = field(default_factory=program_version)
    notice: str = NOTICE

    def __post_init__(self) -> None:
        for name in ("model_sha256", "source_sha256"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
                raise ValueError(f"{name} must be 64 hexadecimal digits")
        if self.model is not None:
            # A model may be given as a folder, and folders name people.
            last = re.split(r"[\\/]", self.model.rstrip("\\/"))[-1]
            object.__setattr__(self, "model", last)
        if self.frames is not None:
            object.__setattr__(self, "frames", tuple(int(i) for i in self.frames))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with the version of this schema."""
        values = dataclasses.asdict(self)
        values["frames"] = None if self.frames is None else list(self.frames)
        return {"schema": SCHEMA, **values}

    def to_json(self) -> str:
        """Return one line of ASCII JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Rebuild from ``to_dict``; keys that are not ours are ignored.

        Raises
        ------
        ValueError
            If the values are no provenance, or of a newer schema.
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

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Rebuild from ``to_json``; raises ValueError as ``from_dict`` does."""
        try:
            values = json.loads(text)
        except RecursionError as error:
            raise ValueError("not a provenance record of napari-cmunet") from error
        if not isinstance(values, dict):
            raise ValueError("not a provenance record of napari-cmunet")
        return cls.from_dict(values)
