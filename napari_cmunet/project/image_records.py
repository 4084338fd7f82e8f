"""The list of a project's images, ``images.jsonl``.

The file begins with a line about itself; each further line is one image. An image is
named by a random id everywhere else, since its path may name a patient.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter

from napari_cmunet.errors import ProjectDamagedError, ProjectVersionError
from napari_cmunet.project.files import (
    MAX_IMAGES_BYTES,
    VERSION,
    check_relative,
    read_bytes,
    validate,
)
from napari_cmunet.util.atomic import atomic_write
from napari_cmunet.util.text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PROJECT_ROOT = "project"
"""The root of images that lie inside the project folder itself."""

_FORMATS = ("napari-cmunet project images", "napari-cmunet study images")
_FORMER_ROOT = "study"  # version 0.1's name of PROJECT_ROOT

_Size = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
_Side = Annotated[int, Field(strict=True, gt=0, lt=2**31)]


def _check_path(text: object) -> object:
    return text if text == "" else check_relative(text)


@dataclass(frozen=True)
class ImageRecord:
    """One image of a project.

    Parameters
    ----------
    id : str
        Twelve random hexadecimal digits.
    root : str
        The folder that ``path`` is below. Its location on this computer is not written
        in the project. ``project`` is the project folder itself.
    path : str
        With ``/``. Empty if it is lost and only labels are left.
    patient : str
        Salted hash of whatever names the patient.
    size : int or None
        Bytes of the file, to find it again cheaply.
    sha256 : str or None
        Of the file; None until it was read for the first time.
    shape : (int, int) or None
        Rows and columns.
    frames : int or None
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    root: Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}$")]
    # Any: a name on the disk may not be Unicode.
    path: Annotated[Any, AfterValidator(_check_path)]
    patient: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    size: _Size | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    shape: tuple[_Side, _Side] | None = None
    frames: _Size | None = None


_RECORD = TypeAdapter(ImageRecord)


def read_records(path: Path, *, salvage: bool) -> tuple[dict[str, ImageRecord], int]:
    """Read the file; return the records by id and the number of skipped lines.

    Parameters
    ----------
    path : Path
    salvage : bool
        Skip damaged lines.

    Raises
    ------
    ProjectDamagedError, ProjectVersionError
    """
    data = read_bytes(path, MAX_IMAGES_BYTES)
    records: dict[str, ImageRecord] = {}
    bad = 0
    for number, line in enumerate((data or b"").splitlines(), 1):
        try:
            values = parse_json(line)
            if number == 1:
                _check_header(values)
                continue
            record = validate(_RECORD, values)
            if record.id in records:
                raise ValueError("an id twice")
            if record.root == _FORMER_ROOT:
                record = replace(record, root=PROJECT_ROOT)
            records[record.id] = record
        except ValueError as error:
            if not salvage:
                raise ProjectDamagedError(
                    f"In the project, line {number} of {path.name} is damaged "
                    f"({error}). The labels are not affected. Restore the file from a "
                    "backup, or open the project with the damaged lines left out."
                ) from error
            bad += 1
    return records, bad


def write_records(path: Path, records: Iterable[ImageRecord]) -> None:
    """Write the file atomically; raises WriteError."""
    lines: list[dict[str, Any]] = [{"format": _FORMATS[0], "version": VERSION}]
    lines += [asdict(r) for r in records]
    with atomic_write(path) as file:
        file.write("".join(json.dumps(x) + "\n" for x in lines).encode())


def _check_header(values: Any) -> None:
    if not isinstance(values, dict) or values.get("format") not in _FORMATS:
        raise ValueError("not a list of images")
    version = values.get("version")
    if type(version) is not int or version < 1:
        raise ValueError("no version")
    if version > VERSION:
        raise ProjectVersionError(
            "The project's list of images was written by a newer napari-cmunet "
            f"(version {str(version)[:9]}, this program reads up to {VERSION}). Update "
            "napari-cmunet; nothing was changed."
        )
