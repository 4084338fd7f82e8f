"""The layout of a project folder, and safe reading and writing of its files.

A project may come from anybody: names in its files are checked before they become
paths, links inside it are not followed, and no file is read beyond a limit.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_cmunet.errors import (
    NotFlushedError,
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
)
from napari_cmunet.util.safe_files import (
    atomic_write,
    is_device,
    read_plain,
    sync_folder,
    write_errors,
    write_json,
)
from napari_cmunet.util.text import parse_json, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import TypeAdapter

T = TypeVar("T")

FORMAT = "napari-cmunet project"
VERSION = 1

PROJECT = "project.json"  # written once: format, version, id, salt
IMAGES = "images.jsonl"
FLAGS = "flags.json"  # skipped, flagged, comments
SPLIT = "split.json"
SETTINGS = "settings.json"
SCORES = "acquisition_scores.json"
POSITION = "position.json"  # image and frame shown last
JOURNAL = "journal.jsonl"
LOCK = "lock"
LABELS = "labels"
OLDER = "older"
DRAFTS = "drafts"
REVIEWS = "reviews.json"
MODELS = "models"
CURRENT = "current.json"
TRAINING = "training.json"

FORMER_NAMES = {FLAGS: "marks.json", SCORES: "gains.json", PROJECT: "study.json"}
"""Names of version 0.1. The marker is the last: its new name ends a migration."""

FrameKey = tuple[str, int]
"""Image id and frame, counted from 0."""

MAX_JSON_BYTES = 2**24
MAX_IMAGES_BYTES = 2**28

_ID = re.compile(r"[0-9a-f]{12}")
_FRAME_FILE = re.compile(r"frame_(\d{4,6})\.tif")


def is_project(folder: Path) -> bool:
    """Whether a folder is a project, intact or not."""
    return any((folder / n).is_file() for n in (PROJECT, FORMER_NAMES[PROJECT]))


def project_file(folder: Path, name: str) -> Path:
    """Return the path of a project's file, under its former name if only that exists.

    Raises
    ------
    ProjectError
        If it is a link.
    """
    former = FORMER_NAMES.get(name)
    if former and not (folder / name).exists() and (folder / former).exists():
        name = former
    return inside(folder, name)


def migrate(folder: Path) -> None:
    """Rename the files of a project of version 0.1; only while holding the lock.

    Their contents stay: readers understand both. The former program no longer
    recognizes the folder and so cannot write to it.

    Raises
    ------
    ProjectError, WriteError
    """
    for name in FORMER_NAMES:
        source, target = project_file(folder, name), inside(folder, name)
        if source != target:
            with write_errors(source):
                source.rename(target)
                sync_folder(folder)


def is_image_id(value: object) -> bool:
    """Whether a value is a valid image id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def frame_file(frame: int) -> str:
    """Return the file name of the label of a frame, counted from 0."""
    return f"frame_{frame:04d}.tif"


def frame_of(name: str) -> int | None:
    """Return the frame of a label's file name, None if it is no such name."""
    match = _FRAME_FILE.fullmatch(name)
    frame = int(match[1]) if match else -1
    return frame if match and name == frame_file(frame) else None


def check_relative(text: object) -> str:
    """Check the path of an image below its folder, as a project file holds it.

    Returns
    -------
    str
        The same, with ``/`` between its parts.

    Raises
    ------
    ValueError
        If it is absolute, leads upward, or names a device on some system.
    """
    if not isinstance(text, str) or not text or len(text) > 4000:
        raise ValueError("a path is missing or too long")
    parts = text.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError("a path leads out of its folder")
        if "\\" in part or "\0" in part or re.match(r"[A-Za-z]:", part):
            raise ValueError("a path holds invalid characters")
        if is_device(part):
            raise ValueError("a path is the name of a device")
        if os.name == "nt" and (":" in part or part[-1] in ". "):
            raise ValueError("a path is not possible on this system")
    try:
        os.fsencode(text)
    except UnicodeError as error:
        raise ValueError("a path is not valid text") from error
    return text


def inside(folder: Path, *parts: str) -> Path:
    """Return a path inside the project; refuse links.

    Raises
    ------
    ProjectError
        If any part of it below ``folder`` is a link.
    """
    path = folder.joinpath(*parts)
    real = os.path.normcase(os.path.join(os.path.realpath(folder), *parts))  # noqa: PTH118
    if os.path.normcase(os.path.realpath(path)) != real:
        raise ProjectError(
            f"In the project, {'/'.join(parts)} is a link to another place. Links "
            "inside a project are not followed; replace it by the file itself."
        )
    return path


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes | None:
    """Return the content of a file of the project, None if there is none.

    Raises
    ------
    ProjectDamagedError
        If it is not a plain file, too large, or unreadable.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ProjectDamagedError(
                f"In the project, {path.name} is not a plain file."
            )
        data = read_plain(path, limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProjectDamagedError(
            f"In the project, {path.name} cannot be read ({error.strerror})."
        ) from error
    if data is None:
        raise ProjectDamagedError(
            f"In the project, {path.name} is too large to be right."
        )
    return data


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object of the project, None if the file is missing.

    Raises
    ------
    ProjectDamagedError
        If it is not a JSON object.
    ProjectVersionError
        If a newer program wrote it.
    """
    data = read_bytes(path)
    if data is None:
        return None
    try:
        value = parse_json(data)
    except ValueError as error:
        raise ProjectDamagedError(
            f"In the project, {path.name} is damaged (not JSON)."
        ) from error
    if not isinstance(value, dict):
        raise ProjectDamagedError(
            f"In the project, {path.name} is damaged (not a JSON object)."
        )
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ProjectVersionError(
            f"The project was written by a newer napari-cmunet ({path.name} has "
            f"version {str(version)[:9]}, this program reads up to {VERSION}). Update "
            "napari-cmunet; "
            "nothing was changed."
        )
    return value


def read_valid(
    path: Path, name: str, adapter: TypeAdapter[dict[str, T]]
) -> dict[str, T]:
    """Read and validate one value of a JSON file; empty if it is missing.

    Raises
    ------
    ProjectDamagedError, ProjectVersionError
    """
    try:
        return validate(adapter, (read_json(path) or {}).get(name, {}))
    except ValueError as error:
        raise ProjectDamagedError(
            f"In the project, {path.name} is damaged ({name}: {error})."
        ) from error


class Table(Generic[T]):
    """Values by name, in a JSON file of the project.

    Parameters
    ----------
    name : str
        What the file calls the values.
    adapter : TypeAdapter
        Validates all of them.
    """

    def __init__(
        self, path: Path, name: str, adapter: TypeAdapter[dict[str, T]]
    ) -> None:
        self.path = path
        self._name, self._adapter = name, adapter
        self._values: dict[str, T] = {}

    def load(self) -> None:
        """Read the file; raises ProjectDamagedError, ProjectVersionError."""
        self._values = read_valid(self.path, self._name, self._adapter)

    def save(self, values: dict[str, T] | None = None) -> None:
        """Write the file, with new values if they are given; raises WriteError."""
        values = self._values if values is None else values
        plain = self._adapter.dump_python(values)
        write_json(self.path, {"version": 1, self._name: plain})
        self._values = values


def set_aside(path: Path) -> str:
    """Rename a damaged file of the project, to keep it; return its new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with write_errors(path):
        path.rename(aside)
    return aside.name


@contextlib.contextmanager
def keep_older(
    path: Path, next_older: Callable[[], Path], limit: int
) -> Iterator[None]:
    """Keep the file at ``path``, if there is one, while the body replaces it.

    If the body fails, even after the replacement, everything is as before.

    Parameters
    ----------
    next_older : callable
        Gives a free path for the kept file.
    limit : int
        Bytes of the largest file.
    """
    kept = _keep(path, next_older, limit) if path.exists() else None
    try:
        yield
    except (NotFlushedError, ProjectDamagedError):  # replaced, but not durably
        with contextlib.suppress(OSError):
            _put_back(path, kept)
        raise
    except BaseException:
        if kept is not None:
            with contextlib.suppress(OSError):
                kept.unlink()
        raise


def _put_back(path: Path, kept: Path | None) -> None:
    if kept is None:
        path.unlink(missing_ok=True)
    else:
        kept.replace(path)


def _keep(path: Path, next_older: Callable[[], Path], limit: int) -> Path:
    while True:
        kept = next_older()
        try:
            os.link(path, kept)
            sync_folder(kept.parent)
        except FileExistsError:  # by another program, which has just lost the lock
            continue
        except OSError:  # a disk without links
            with atomic_write(kept) as file:
                file.write(read_bytes(path, limit) or b"")
        return kept


def names_in(folder: Path, *, files: bool = False) -> list[str]:
    """Return the names in a folder of the project, none if it is missing.

    Parameters
    ----------
    files : bool
        Only plain files.

    Raises
    ------
    ProjectError
        If it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(
                e.name for e in found if not files or e.is_file(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ProjectError(
            f"A folder of the project cannot be listed ({error.strerror})."
        ) from error


def labelled_frames(folder: Path) -> Iterator[FrameKey]:
    """Yield the frames that have a label file; raises ProjectError."""
    labels = inside(folder, LABELS)
    for image in names_in(labels):
        below = labels / image
        if is_image_id(image) and not below.is_symlink() and below.is_dir():
            for name in names_in(below, files=True):
                frame = frame_of(name)
                if frame is not None:
                    yield image, frame
