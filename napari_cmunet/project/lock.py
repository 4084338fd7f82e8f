"""The lock of a project: one writer at a time.

The lock proper is the operating system's, on one byte of the file ``lock``; it ends
with its process. The file also says in JSON who holds it, for people and for network
disks whose locks are not shared between computers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, StrictBool, StrictInt, TypeAdapter

from napari_cmunet.errors import (
    LockLostError,
    ProjectDamagedError,
    ProjectError,
    ProjectReadOnlyError,
    WriteError,
    display_name,
)
from napari_cmunet.project.files import read_bytes
from napari_cmunet.util.safe_files import write_errors, write_reason
from napari_cmunet.util.text import parse_json, validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cmunet.project.journal import Journal
    from napari_cmunet.project.settings import Identity

BEAT_SECONDS = 30.0
LAST_ACT_SECONDS = 1.0
"""Grace period for a program whose lock is taken over, to finish a write."""

_MAX_BYTES = 4096
_BYTE = 2**30  # far behind the text, which must stay readable on Windows
_MISSING = (
    "the project's folder or its lock file is missing. Connect the disk or network "
    "folder again, or open the project anew."
)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:80]


_Text = Annotated[str, AfterValidator(_shown)]


@dataclass(frozen=True)
class Holder:
    """The holder of a lock as its file says; empty where it does not say."""

    host: _Text = ""
    pid: StrictInt = 0
    since: _Text = ""  # UTC time of opening
    beat: _Text = ""  # and of the last sign of life
    token: _Text = ""  # identifies this opening
    released: StrictBool = False  # whether it was closed properly

    @property
    def here(self) -> bool:
        """Whether the holder is, or was, a program on this computer."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        if not self.host:
            return "another program"
        where = "this computer" if self.here else self.host
        alive = f", last heard of {self.beat}" if self.beat != self.since else ""
        return f"a program on {where} (process {self.pid}, since {self.since}{alive})"


_HOLDER = TypeAdapter(Holder)


def read_holder(path: Path) -> Holder:
    """Return who holds, or last held, a lock; never raises."""
    with contextlib.suppress(ProjectDamagedError, ValueError):
        values = parse_json(read_bytes(path, _MAX_BYTES) or b"{}")
        return validate(_HOLDER, values)
    return Holder()


class ProjectLockedError(ProjectError):
    """Another program has the project open for writing.

    Parameters
    ----------
    holder : Holder
        Who, where and since when, as far as known.
    """

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


class Lock:
    """The lock on a project, held from construction to :meth:`release`.

    Parameters
    ----------
    path : Path
        The lock file; it stays after the release.
    take_over : bool
        Take it from its holder, who can then no longer write.

    Raises
    ------
    ProjectLockedError
        If another program holds it, or may hold it on another computer.
    WriteError
        If nothing can be written to this folder.
    """

    def __init__(self, path: Path, *, take_over: bool = False) -> None:
        self.path = path
        self._last_beat = time.monotonic()
        self._descriptor = self._open()
        try:
            self._take(take_over)
        except BaseException:
            os.close(self._descriptor)
            raise
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.holder = Holder(
            socket.gethostname(), os.getpid(), now, now, secrets.token_hex(8)
        )
        try:
            self._write(self.holder)
        except OSError as error:
            os.close(self._descriptor)
            raise WriteError(path, write_reason(error)) from error

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with write_errors(self.path):
            return os.open(self.path, flags, 0o666)

    def _take(self, take_over: bool) -> None:
        before = read_holder(self.path)
        got = _try_lock(self._descriptor)
        if got is None:  # a disk without locks: rely on the file
            got = before.released or not before.host or _is_dead(before)
        elif got:
            # A program on another computer may hold a lock that is not visible here.
            got = before.released or not before.host or before.here
        if got and self._is_current():
            return
        if not take_over:
            raise ProjectLockedError(
                f"The project is open in {before}. Close it there, open it for reading "
                "only, or, if that program no longer runs, take the project over.",
                before,
            )
        self._replace(before)

    def _is_current(self) -> bool:
        """Whether the locked file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def _replace(self, before: Holder) -> None:
        """Replace the locked file by a new one."""
        os.close(self._descriptor)
        aside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")
        try:
            self.path.replace(aside)
            aside.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._descriptor = self._open()
            raise ProjectLockedError(
                f"The project is open in {before}, and this system does not let it be "
                "taken over while that program runs. End that program first.",
                before,
            ) from error
        self._descriptor = self._open()
        if _try_lock(self._descriptor) is False or not self._is_current():
            raise ProjectLockedError(
                "Another program has just taken the project over.",
                read_holder(self.path),
            )
        time.sleep(LAST_ACT_SECONDS)

    def check(self) -> None:
        """Check that the lock is still held; update its heartbeat.

        Raises
        ------
        LockLostError
            If another program took the project over.
        WriteError
            If the project is not there any more.
        """
        found = read_holder(self.path)
        if found.token != self.holder.token:
            if not self.path.exists():
                raise WriteError(self.path.parent, _MISSING)
            raise LockLostError(
                f"The project was taken over by {found}. Nothing more is written from "
                "this window; what was accepted before is safe. Open the project again."
            )
        if time.monotonic() - self._last_beat > BEAT_SECONDS:
            self._last_beat = time.monotonic()
            beat = datetime.now(UTC).isoformat(timespec="seconds")
            with contextlib.suppress(OSError):  # only for others to read
                self._write(self.holder, beat=beat)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            if read_holder(self.path).token == self.holder.token:
                self._write(self.holder, released=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, holder: Holder, **changes: str | bool) -> None:
        # In place and of fixed length: replacing the file would lose the lock.
        text = json.dumps(asdict(holder) | changes).ljust(511) + "\n"
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text.encode())
        os.ftruncate(self._descriptor, len(text))


def _try_lock(descriptor: int) -> bool | None:
    """Try the system's lock without waiting; None where the disk has none."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _UNSUPPORTED else False
    return True


def _is_dead(holder: Holder) -> bool:
    """Whether the holder's process on this computer has surely ended."""
    if not holder.here or sys.platform == "win32":  # os.kill would end it there
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


class ProjectContext:
    """An open project as its parts share it: identity, lock, journal, notices.

    Parameters
    ----------
    lock : Lock or None
        None: read-only.
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
        """Hold the project for one change, from any thread.

        Raises
        ------
        ProjectReadOnlyError, LockLostError, WriteError
        """
        with self._mutex:
            if self.closed:
                raise ProjectError("The project is closed. Open it again.")
            if self.lock is None:
                raise ProjectReadOnlyError(
                    "The project is open for reading only: nothing can be changed. "
                    "Open it again for writing."
                )
            self.lock.check()
            yield

    def check_folder(self) -> None:
        """Raise ProjectError if the folder is not there, as on a disk taken away."""
        if not self.folder.is_dir():
            raise ProjectError(f"{display_name(self.folder)}: {_MISSING}")

    def reading(self) -> threading.RLock:
        """Hold the state of the project while it is read."""
        return self._mutex

    def note(self, text: str) -> None:
        """Keep a notice for the user."""
        self.notices.append(text)

    def close(self) -> None:
        """Release the project. Idempotent."""
        with self._mutex:
            if self.lock is not None and not self.closed:
                self.journal.flush()
                self.lock.release()
            self.closed = True
