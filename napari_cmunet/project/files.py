"""What lies where in a project folder, and how its files are read and written safely.

A project may come from anybody. Names in its files are checked before they become
paths, no link inside it is followed, and no file is read beyond a limit.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import WriteError
from napari_cmunet.project.errors import (
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
)
from napari_cmunet.util.atomic import atomic_write, sync_folder, write_reason
from napari_cmunet.util.safe_files import is_device, read_plain

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "napari-cmunet project"
VERSION = 1

PROJECT = "project.json"  # written once: format, version, id, salt
IMAGES = "images.jsonl"
MARKS = "marks.json"  # skipped, flagged, comments
SPLIT = "split.json"
SETTINGS = "settings.json"
GAINS = "gains.json"  # what the model has to gain from each image
POSITION = "position.json"  # where the reader left off
JOURNAL = "journal.jsonl"
LOCK = "lock"
LABELS = "labels"
OLDER = "older"
DRAFTS = "drafts"
MODELS = "models"
CURRENT = "current.json"
TRAINING = "training.json"

MAX_JSON_BYTES = 2**24
MAX_IMAGES_BYTES = 2**28

_ID = re.compile(r"[0-9a-f]{12}")
_FRAME_FILE = re.compile(r"frame_(\d{4,6})\.tif")


def is_image_id(value: object) -> bool:
    """Whether a value can be the id of an image."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def frame_file(frame: int) -> str:
    """Name of the label of a frame, counted from 0."""
    return f"frame_{frame:04d}.tif"


def frame_of(name: str) -> int | None:
    """The frame that a label's file name stands for."""
    match = _FRAME_FILE.fullmatch(name)
    frame = int(match[1]) if match else -1
    return frame if match and name == frame_file(frame) else None


def check_relative(text: object) -> str:
    """Check the path of an image below its folder, as a project file holds it.

    Returns
    -------
    str
        The same, parts divided by ``/``.

    Raises
    ------
    ValueError
        If it is absolute, leads upward, or means a device somewhere.
    """
    if not isinstance(text, str) or not text or len(text) > 4000:
        raise ValueError("a path is missing or too long")
    parts = text.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError("a path leads out of its folder")
        if "\\" in part or "\0" in part or re.match(r"[A-Za-z]:", part):
            raise ValueError("a path holds characters that it must not")
        if is_device(part):
            raise ValueError("a path is the name of a device")
        if os.name == "nt" and (":" in part or part[-1] in ". "):
            raise ValueError("a path is not possible on this system")
    try:
        os.fsencode(text)
    except UnicodeError as error:
        raise ValueError("a path is no possible text") from error
    return text


def inside(folder: Path, *parts: str) -> Path:
    """A path of the project itself, refused if a link leads elsewhere.

    Raises
    ------
    ProjectError
        If any part of it below ``folder`` is a link.
    """
    path = folder.joinpath(*parts)
    real = os.path.normcase(os.path.join(os.path.realpath(folder), *parts))  # noqa: PTH118
    if os.path.normcase(os.path.realpath(path)) != real:
        raise ProjectError(
            f"In the project, {'/'.join(parts)} is a link to another place. Links inside "
            "a project are not followed; replace it by the file or folder itself."
        )
    return path


def make_folder(path: Path) -> Path:
    """Make a folder of the project, and those above it, so that it lasts.

    Raises
    ------
    WriteError
        If it cannot be made.
    """
    if path.is_dir():
        return path
    if path.parent != path:
        make_folder(path.parent)
    try:
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise WriteError(path, write_reason(error)) from error
    return path


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes | None:
    """The content of a file of the project; None if there is none.

    Raises
    ------
    ProjectDamagedError
        If it is no plain file, too large, or cannot be read.
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


def parse_json(data: bytes | str) -> Any:
    """JSON without the extras that only Python knows; raises ValueError."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of the project; None if the file is not there.

    Raises
    ------
    ProjectDamagedError
        If it is no JSON object.
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
            f"In the project, {path.name} is damaged (no object)."
        )
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ProjectVersionError(
            f"The project was written by a newer napari-cmunet ({path.name} has version "
            f"{str(version)[:9]}, this program reads up to {VERSION}). Update "
            "napari-cmunet; "
            "nothing was changed."
        )
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file of the project, whole or not at all; raises WriteError."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def set_aside(path: Path) -> str:
    """Rename a damaged file of the project, so that nothing of it is lost.

    Returns
    -------
    str
        Its new name.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise WriteError(path, write_reason(error)) from error
    return aside.name
