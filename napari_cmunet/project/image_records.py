"""The list of a project's images, ``images.jsonl``, and where their files are.

The file begins with a line about itself; each further line is one image. An image is
named by a random id everywhere else, since its path may name a patient. Its path is
below a root, which stands for a folder; the user's own data hold which one, for each
project.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter

from napari_cmunet.errors import (
    Cancelled,
    ImageMissingError,
    ProjectDamagedError,
    ProjectVersionError,
    WriteError,
)
from napari_cmunet.io.discovery import find_images
from napari_cmunet.model.registry import user_folder
from napari_cmunet.project.files import (
    MAX_IMAGES_BYTES,
    VERSION,
    check_relative,
    inside,
    read_bytes,
    read_json,
    validate,
)
from napari_cmunet.util.safe_files import (
    atomic_write,
    hash_file,
    make_folder,
    write_json,
)
from napari_cmunet.util.text import folded, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.project.lock import ProjectContext

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
    """One image of a project."""

    #: Twelve random hexadecimal digits.
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    #: The folder that ``path`` is below. Its location on this computer is not
    #: written in the project. ``project`` is the project folder itself.
    root: Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}$")]
    # Any: a name on the disk may not be Unicode.
    #: With ``/``. Empty if it is lost and only labels are left.
    path: Annotated[Any, AfterValidator(_check_path)]
    #: Salted hash of whatever names the patient.
    patient: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    size: _Size | None = None  # bytes of the file, to find it again cheaply
    #: Of the file; None until it was read for the first time.
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    shape: tuple[_Side, _Side] | None = None  # rows and columns
    frames: _Size | None = None


_RECORD = TypeAdapter(ImageRecord)


def read_records(path: Path, *, salvage: bool) -> tuple[dict[str, ImageRecord], int]:
    """Read the file; return the records by id and the number of skipped lines.

    Parameters
    ----------
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


# -- where the files are -------------------------------------------------------------


class ImageRoots:
    """The folders that the roots of a project stand for on this computer."""

    def __init__(self, context: ProjectContext) -> None:
        self._context = context
        name = f"{context.identity.id}.json"
        self._file = user_folder() / "projects" / name
        former = user_folder() / "studies" / name  # version 0.1
        source = self._file if self._file.exists() else former
        try:
            saved = read_json(source) or {}
        except ProjectDamagedError:  # only a convenience: the user is asked again
            saved = {}
        self._folders: dict[str, Path] = {
            root: Path(folder)
            for root, folder in saved.items()
            if isinstance(folder, str) and Path(folder).is_absolute()
        }

    def _known(self) -> dict[str, Path]:
        return {**self._folders, PROJECT_ROOT: self._context.folder}

    def path(self, record: ImageRecord) -> Path:
        """Return the file of an image, whether it exists or not.

        Raises
        ------
        ImageMissingError
            If its folder is not known on this computer.
        """
        folder = self._known().get(record.root)
        if folder is None or not record.path:
            raise ImageMissingError(
                f"Where image {record.id} lies is not known on this computer. Show the "
                "project the folder of its images."
            )
        if record.root == PROJECT_ROOT:
            return inside(folder, *record.path.split("/"))
        return folder / record.path

    def files(self, records: Iterable[ImageRecord]) -> set[str]:
        """Return the files of images, to compare with ``os.path.normcase``."""
        known = self._known()
        return {
            os.path.normcase(os.path.abspath(known[r.root] / r.path))  # noqa: PTH100
            for r in records
            if r.root in known
        }

    def remember(self, folders: Mapping[str, Path]) -> None:
        """Set folders of roots; if they cannot be written, until the program ends."""
        if not folders:
            return
        self._folders |= {r: f for r, f in folders.items() if r != PROJECT_ROOT}
        try:
            make_folder(self._file.parent)
            write_json(self._file, {r: str(f) for r, f in self._folders.items()})
        except WriteError:
            self._context.note(
                "Where the images lie could not be saved; it will be asked again."
            )

    def root_for(self, folder: Path, records: Iterable[ImageRecord]) -> str:
        """Return the root of a folder; a new one if it has none."""
        for root, known in self._known().items():
            if os.path.normcase(known) == os.path.normcase(folder):
                return root
        used = {r.root for r in records} | set(self._known())
        number = 1
        while (root := f"r{number}") in used:
            number += 1
        self.remember({root: folder})
        return root

    def reference(
        self, path: Path, file: InputFile, records: Iterable[ImageRecord]
    ) -> tuple[str, str]:
        """Return root and path below it; raises ValueError, ProjectError."""
        roots = sorted(self._known().items(), key=lambda item: -len(item[1].parts))
        for root, folder in roots:
            if path.is_relative_to(folder):
                below = check_relative(path.relative_to(folder).as_posix())
                if root == PROJECT_ROOT:
                    inside(folder, *below.split("/"))
                return root, below
        folder = path.parents[len(file.relative.parts) - 1]
        below = check_relative(path.relative_to(folder).as_posix())
        return self.root_for(folder, records), below


def is_file(path: Path) -> bool:
    """Whether a path is a regular file."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def file_size(path: Path) -> int | None:
    """Return the bytes of a file, None if it is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def find_again(
    folder: Path,
    missing: Iterable[ImageRecord],
    fixed_roots: Iterable[str],
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Look for images below a folder: by path and size, then by content.

    Parameters
    ----------
    folder : Path
        The images' folder, one above it, or one inside it.
    fixed_roots : iterable of str
        Roots that keep their folders, since other images are there.
    should_stop : callable
        Called between files.

    Returns
    -------
    roots : dict of str to Path
        New folders of roots; the paths below them are as before.
    moved : dict of str to str
        Path below the searched folder, by image id, where it differs.

    Raises
    ------
    Cancelled
    """
    folder = Path(folder).absolute()
    files = [f.path.absolute() for f in find_images([folder]) if f.path.is_file()]
    records, fixed = list(missing), set(fixed_roots)
    votes: dict[str, Counter[Path]] = defaultdict(Counter)
    matches: dict[str, dict[Path, Path]] = {}  # image -> place -> file
    ending = _by_ending(files, {len(_parts(r.path)) for r in records})
    for record in records:
        if should_stop():
            raise Cancelled
        matches[record.id] = {}
        for file in ending.get(_parts(record.path), ()):
            place = _place(file, record.path)
            if place and record.size in (None, file_size(file)):
                matches[record.id][place] = file
                votes[record.root][place] += 1
    places = {
        root: max(found, key=lambda place: (found[place], -len(place.parts)))
        for root, found in votes.items()
        if root not in fixed
    }
    moved: dict[str, str] = {}
    lost: list[ImageRecord] = []
    for record in records:
        at = matches[record.id]
        place = places.get(record.root)
        if place is not None and place in at:
            continue
        if len(at) == 1:
            (file,) = at.values()
            if file.is_relative_to(folder):
                moved[record.id] = file.relative_to(folder).as_posix()
                continue
        lost.append(record)
    moved |= _by_content(folder, files, lost, should_stop)
    return places, moved


def _by_content(
    folder: Path,
    files: list[Path],
    lost: list[ImageRecord],
    should_stop: Callable[[], bool],
) -> dict[str, str]:
    wanted = {r.sha256: r.id for r in lost if r.sha256}
    sizes = {r.size for r in lost if r.sha256}
    moved: dict[str, str] = {}
    for file in files:
        if not wanted:
            break
        if None not in sizes and file_size(file) not in sizes:
            continue
        try:
            image = wanted.pop(hash_file(file, should_stop), None)
        except OSError:
            continue
        if image:
            moved[image] = file.relative_to(folder).as_posix()
    return moved


def _by_ending(
    files: list[Path], lengths: set[int]
) -> dict[tuple[str, ...], list[Path]]:
    """Index files by the last parts of their paths, as many as any record has."""
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        parts = tuple(map(folded, file.parts))
        for length in lengths:
            if 0 < length < len(parts):
                found[parts[-length:]].append(file)
    return found


def _parts(path: str) -> tuple[str, ...]:
    return tuple(map(folded, path.split("/"))) if path else ()


def _place(file: Path, path: str) -> Path | None:
    """Return the folder below which ``file`` has this path."""
    place = file.parents[len(_parts(path)) - 1]
    # Where case or code points differ, the record's path may not find the file.
    return place if (place / path).exists() else None
