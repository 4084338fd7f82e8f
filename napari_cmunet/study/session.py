"""One opening of a study: its identity, the right to write, the journal."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError
from napari_cmunet.study.errors import (
    StudyDamagedError,
    StudyError,
    StudyReadOnlyError,
)
from napari_cmunet.study.layout import (
    FORMAT,
    IMAGES,
    JOURNAL,
    LABELS,
    LOCK,
    STUDY,
    VERSION,
    inside,
    make_folder,
    read_json,
    set_aside,
    write_json,
)
from napari_cmunet.study.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cmunet.study.journal import Journal

_HEX32 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Identity:
    """What makes a study this study; written once.

    Parameters
    ----------
    id : str
        32 hexadecimal digits. A copy keeps it.
    salt : bytes
        For the hashes of patients; never leaves the study.
    created : str
        UTC.
    """

    id: str
    salt: bytes
    created: str


def is_study(folder: Path) -> bool:
    """Whether a folder is a study, sound or not."""
    return (folder / STUDY).is_file()


def new_identity(folder: Path) -> Identity:
    """Make a folder a study.

    Raises
    ------
    StudyError
        If it is one already, or was.
    WriteError
    """
    make_folder(folder)
    for name in (STUDY, IMAGES, JOURNAL, LABELS):
        if (folder / name).exists():
            raise StudyError(
                f"The folder '{folder.name}' holds a study already, or a part of one "
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
        "about": "A study of napari-cmunet: labels/ holds the accepted masks (TIFF), "
        "images.jsonl the images by reference, journal.jsonl what was done.",
    }
    write_json(folder / STUDY, values)
    return made


def read_identity(folder: Path) -> Identity:
    """Read ``study.json``.

    Raises
    ------
    ReadError
        If the folder is no study.
    StudyDamagedError, StudyVersionError
    """
    if not folder.is_dir():
        raise ReadError(folder, "there is no such folder. Check the name.")
    values = read_json(inside(folder, STUDY))
    if values is None:
        raise ReadError(folder, f"this folder is no study: it has no {STUDY}.")
    study_id, salt = values.get("id"), values.get("salt")
    try:
        if values.get("format") != FORMAT:
            raise ValueError("not a study")
        if type(values.get("version")) is not int or values["version"] < 1:
            raise ValueError("no version")
        if not isinstance(study_id, str) or not _HEX32.fullmatch(study_id):
            raise ValueError("a bad id")
        if not isinstance(salt, str) or len(salt) != 64:
            raise ValueError("a bad salt")
        return Identity(study_id, bytes.fromhex(salt), str(values.get("created", "")))
    except ValueError as error:
        raise StudyDamagedError(
            f"{STUDY} of the study is damaged ({error}). No label is harmed. Take the "
            "file from a backup, or let the study be salvaged."
        ) from error


def salvage_identity(folder: Path) -> str:
    """Put a new ``study.json`` in the place of a damaged one; returns what was done.

    Images and labels keep the patients that they have. Only images that are added
    later cannot be recognised as of the same patients.
    """
    aside = set_aside(folder / STUDY)
    _write_identity(folder)
    return (
        f"{STUDY} was damaged and was made anew (the old one is {aside}). Images added "
        "from now on do not join the patients that are already there."
    )


class Session:
    """An open study, shared by its parts.

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
        """Hold the study for one act, from whichever thread.

        Raises
        ------
        StudyReadOnlyError, LockLostError, WriteError
        """
        with self._mutex:
            if self.closed:
                raise StudyError("The study is closed. Open it again.")
            if self.lock is None:
                raise StudyReadOnlyError(
                    "The study is open for reading only: nothing can be changed. Open "
                    "it again for writing."
                )
            self.lock.check()
            yield

    def reading(self) -> threading.RLock:
        """Hold the study's state still while it is looked at."""
        return self._mutex

    def note(self, text: str) -> None:
        """Keep something for the reader to be told."""
        self.notices.append(text)

    def close(self) -> None:
        """Let the study go; twice is once."""
        with self._mutex:
            if self.lock is not None and not self.closed:
                self.journal.flush()
                self.lock.release()
            self.closed = True


def take_lock(folder: Path, *, take_over: bool) -> Lock:
    """Lock a study; see :class:`Lock`."""
    return Lock(inside(folder, LOCK), take_over=take_over)
