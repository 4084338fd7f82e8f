"""One opening of a project: its identity, the right to write, the journal."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError
from napari_cmunet.project.errors import (
    ProjectDamagedError,
    ProjectError,
    ProjectReadOnlyError,
)
from napari_cmunet.project.files import (
    FORMAT,
    IMAGES,
    JOURNAL,
    LABELS,
    LOCK,
    PROJECT,
    VERSION,
    inside,
    make_folder,
    read_json,
    set_aside,
    write_json,
)
from napari_cmunet.project.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cmunet.project.journal import Journal

_HEX32 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Identity:
    """What makes a project this project; written once.

    Parameters
    ----------
    id : str
        32 hexadecimal digits. A copy keeps it.
    salt : bytes
        For the hashes of patients; never leaves the project.
    created : str
        UTC.
    """

    id: str
    salt: bytes
    created: str


def is_project(folder: Path) -> bool:
    """Whether a folder is a project, sound or not."""
    return (folder / PROJECT).is_file()


def new_identity(folder: Path) -> Identity:
    """Make a folder a project.

    Raises
    ------
    ProjectError
        If it is one already, or was.
    WriteError
    """
    make_folder(folder)
    for name in (PROJECT, IMAGES, JOURNAL, LABELS):
        if (folder / name).exists():
            raise ProjectError(
                f"The folder '{folder.name}' holds a project already, or a part of one "
                f"({name}). Open it, or choose another folder."
            )
    return _write_identity(folder)


def _write_identity(folder: Path) -> Identity:
    made = Identity(
        secrets.token_hex(16),
        secrets.token_bytes(32),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    values = {
        "format": FORMAT,
        "version": VERSION,
        "id": made.id,
        "created": made.created,
        "salt": made.salt.hex(),
        "about": "A project of napari-cmunet: labels/ holds the accepted masks (TIFF), "
        "images.jsonl the images by reference, journal.jsonl what was done.",
    }
    write_json(folder / PROJECT, values)
    return made


def read_identity(folder: Path) -> Identity:
    """Read ``project.json``.

    Raises
    ------
    ReadError
        If the folder is no project.
    ProjectDamagedError, ProjectVersionError
    """
    if not folder.is_dir():
        raise ReadError(folder, "there is no such folder. Check the name.")
    values = read_json(inside(folder, PROJECT))
    if values is None:
        raise ReadError(folder, f"this folder is no project: it has no {PROJECT}.")
    project_id, salt = values.get("id"), values.get("salt")
    try:
        if values.get("format") != FORMAT:
            raise ValueError("not a project")
        if type(values.get("version")) is not int or values["version"] < 1:
            raise ValueError("no version")
        if not isinstance(project_id, str) or not _HEX32.fullmatch(project_id):
            raise ValueError("a bad id")
        if not isinstance(salt, str) or len(salt) != 64:
            raise ValueError("a bad salt")
        return Identity(project_id, bytes.fromhex(salt), str(values.get("created", "")))
    except ValueError as error:
        raise ProjectDamagedError(
            f"{PROJECT} of the project is damaged ({error}). No label is harmed. Take the "
            "file from a backup, or let the project be salvaged."
        ) from error


def salvage_identity(folder: Path) -> str:
    """Put a new ``project.json`` in the place of a damaged one; returns what was done.

    Images and labels keep the patients that they have. Only images that are added
    later cannot be recognised as of the same patients.
    """
    aside = set_aside(folder / PROJECT)
    _write_identity(folder)
    return (
        f"{PROJECT} was damaged and was made anew (the old one is {aside}). Images added "
        "from now on do not join the patients that are already there."
    )


class Session:
    """An open project, shared by its parts.

    Parameters
    ----------
    folder : Path
    identity : Identity
    journal : Journal
    lock : Lock or None
        None: for reading alone.
    """

    def __init__(
        self, folder: Path, identity: Identity, journal: Journal, lock: Lock | None
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.journal = journal
        self.lock = lock
        self.notices: list[str] = []
        self.closed = False
        self._mutex = threading.RLock()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return self.lock is None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the project for one act, from whichever thread.

        Raises
        ------
        ProjectReadOnlyError, LockLostError, WriteError
        """
        with self._mutex:
            if self.closed:
                raise ProjectError("The project is closed. Open it again.")
            if self.lock is None:
                raise ProjectReadOnlyError(
                    "The project is open for reading only: nothing can be changed. Open "
                    "it again for writing."
                )
            self.lock.check()
            yield

    def reading(self) -> threading.RLock:
        """Hold the project's state still while it is looked at."""
        return self._mutex

    def note(self, text: str) -> None:
        """Keep something for the reader to be told."""
        self.notices.append(text)

    def close(self) -> None:
        """Let the project go; twice is once."""
        with self._mutex:
            if self.lock is not None and not self.closed:
                self.journal.flush()
                self.lock.release()
            self.closed = True


def take_lock(folder: Path, *, take_over: bool) -> Lock:
    """Lock a project; see :class:`Lock`."""
    return Lock(inside(folder, LOCK), take_over=take_over)
