"""Which images a project is about: by reference, never copied.

``images.jsonl`` begins with a line about itself; each further line is one image. An
image is named by a random id everywhere else, since its path may name a patient.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.project.errors import (
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
)
from napari_cmunet.project.files import (
    MAX_IMAGES_BYTES,
    VERSION,
    check_relative,
    is_image_id,
    parse_json,
    read_bytes,
)
from napari_cmunet.util.atomic import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

IMAGES_FORMAT = "napari-cmunet project images"
PROJECT_ROOT = "project"
"""The root of images that lie inside the project folder itself."""
_ROOT = re.compile(r"[a-z0-9]{1,32}")
_PATIENT = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageRecord:
    """One image of a project.

    Parameters
    ----------
    id : str
        Twelve hexadecimal digits, drawn at random.
    root : str
        The folder that ``path`` is below; where that is on this computer is not
        written in the project. ``project`` is the project folder itself.
    path : str
        With ``/``. Empty if it got lost and only labels are left.
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

    id: str
    root: str
    path: str
    patient: str
    size: int | None = None
    sha256: str | None = None
    shape: tuple[int, int] | None = None
    frames: int | None = None


def new_id(taken: Iterable[str]) -> str:
    """An id that no other image has."""
    taken = set(taken)
    while (made := secrets.token_hex(6)) in taken:
        pass
    return made


def record_from(values: Any) -> ImageRecord:
    """Check what a line of the file holds; raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError("not an object")
    names = {f.name for f in fields(ImageRecord)}
    try:
        record = ImageRecord(**{k: v for k, v in values.items() if k in names})
    except TypeError as error:
        raise ValueError("a part is missing") from error
    if not is_image_id(record.id):
        raise ValueError("a bad id")
    if not isinstance(record.root, str) or not _ROOT.fullmatch(record.root):
        raise ValueError("a bad root")
    if record.path != "":
        check_relative(record.path)
    for value, pattern, what in (
        (record.patient, _PATIENT, "patient"),
        (record.sha256, _SHA256, "hash"),
    ):
        optional = what == "hash" and value is None
        if not optional and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ValueError(f"a bad {what}")
    for number in (record.size, record.frames):
        if number is not None and not (type(number) is int and 0 <= number < 2**53):
            raise ValueError("a bad number")
    if record.shape is not None:
        shape = record.shape
        if not (
            isinstance(shape, list | tuple)
            and len(shape) == 2
            and all(type(n) is int and 0 < n < 2**31 for n in shape)
        ):
            raise ValueError("a bad shape")
        record = replace(record, shape=(shape[0], shape[1]))
    return record


class ImageTable:
    """The images of a project, in their order.

    Parameters
    ----------
    path : Path
        ``images.jsonl``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, ImageRecord] = {}
        self.unsaved = 0  # facts learned since the file was written

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(list(self._records.values()))

    def __contains__(self, image: object) -> bool:
        return image in self._records

    def __getitem__(self, image: str) -> ImageRecord:
        try:
            return self._records[image]
        except KeyError:
            raise ProjectError(f"The project has no image '{image[:40]}'.") from None

    def ids(self) -> list[str]:
        """All ids, in order."""
        return list(self._records)

    def load(self, *, salvage: bool = False) -> int:
        """Read the file.

        Parameters
        ----------
        salvage : bool
            Pass over lines that cannot be understood.

        Returns
        -------
        int
            Lines passed over.

        Raises
        ------
        ProjectDamagedError, ProjectVersionError
        """
        data = read_bytes(self.path, MAX_IMAGES_BYTES)
        if data is None:
            self._records = {}
            return 0
        records: dict[str, ImageRecord] = {}
        bad = 0
        for number, line in enumerate(data.splitlines(), 1):
            try:
                values = parse_json(line)
                if number == 1:
                    _check_header(values)
                    continue
                record = record_from(values)
                if record.id in records:
                    raise ValueError("an id twice")
                records[record.id] = record
            except ValueError as error:
                if not salvage:
                    raise ProjectDamagedError(
                        f"In the project, line {number} of {self.path.name} is damaged "
                        f"({error}). No label is harmed. Take the file from a backup, "
                        "or open the project with the damaged lines left out."
                    ) from error
                bad += 1
        self._records = records
        return bad

    def save(self, changed: Iterable[ImageRecord] = ()) -> None:
        """Write the file, with some images added or changed; raises WriteError.

        What is kept here changes only when the file has.
        """
        records = self._records | {r.id: r for r in changed}
        lines = [{"format": IMAGES_FORMAT, "version": VERSION}]
        lines += [asdict(r) for r in records.values()]
        with atomic_write(self.path) as file:
            file.write("".join(json.dumps(x) + "\n" for x in lines).encode())
        self._records, self.unsaved = records, 0

    def learn(self, record: ImageRecord) -> None:
        """Change what is known of an image, to be saved some time."""
        if self._records[record.id] != record:
            self._records[record.id] = record
            self.unsaved += 1


def _check_header(values: Any) -> None:
    if not isinstance(values, dict) or values.get("format") != IMAGES_FORMAT:
        raise ValueError("not a list of images")
    version = values.get("version")
    if type(version) is not int or version < 1:
        raise ValueError("no version")
    if version > VERSION:
        raise ProjectVersionError(
            f"The project's list of images was written by a newer napari-cmunet (version "
            f"{str(version)[:9]}, this program reads up to {VERSION}). Update "
            "napari-cmunet; "
            "nothing was changed."
        )
