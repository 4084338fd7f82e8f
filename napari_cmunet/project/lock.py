"""One writer at a time: a lock that the system lets go when its process dies.

The lock proper is the operating system's, on one byte of the file ``lock``; a killed
program therefore leaves none. The file also says in JSON who holds it, for people and
for disks where such locks do not reach from one computer to another.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_cmunet.errors import WriteError
from napari_cmunet.project.errors import (
    LockLostError,
    ProjectDamagedError,
    ProjectLockedError,
)
from napari_cmunet.project.files import parse_json, read_bytes
from napari_cmunet.util.atomic import write_reason

if TYPE_CHECKING:
    from pathlib import Path

BEAT_SECONDS = 30.0
LAST_ACT_SECONDS = 1.0
"""Left to a program from which the project is taken, to end what it is just writing."""

_MAX_BYTES = 4096
_BYTE = 2**30  # far behind the text, which others must be able to read (Windows)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Holder:
    """Who holds a project, as the lock file says; empty where it does not say.

    Parameters
    ----------
    host, pid : str, int
    since, beat : str
        UTC times of opening and of the last sign of life.
    token : str
        Of this one opening.
    released : bool
        Whether it was closed properly.
    """

    host: str = ""
    pid: int = 0
    since: str = ""
    beat: str = ""
    token: str = ""
    released: bool = False

    @property
    def here(self) -> bool:
        """Whether it is, or was, a program on this computer."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        if not self.host:
            return "another program"
        where = "this computer" if self.here else self.host
        alive = f", last heard of {self.beat}" if self.beat != self.since else ""
        return f"a program on {where} (process {self.pid}, since {self.since}{alive})"


def read_holder(path: Path) -> Holder:
    """Who holds, or last held, a project; never raises."""
    with contextlib.suppress(ProjectDamagedError, ValueError, TypeError):
        values = parse_json(read_bytes(path, _MAX_BYTES) or b"{}")
        known = {k: values[k] for k in Holder.__dataclass_fields__ if k in values}
        defaults = Holder()
        if all(type(v) is type(getattr(defaults, k)) for k, v in known.items()):
            shown = {
                k: "".join(c for c in v if c.isprintable())[:80]
                for k, v in known.items()
                if isinstance(v, str)
            }
            return Holder(**known | shown)
    return Holder()


class Lock:
    """The right to write to a project, from construction to :meth:`release`.

    Parameters
    ----------
    path : Path
        The lock file; it stays when the lock goes.
    take_over : bool
        Take it from whoever holds it, who then can write no more.

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
        try:
            return os.open(self.path, flags, 0o666)
        except OSError as error:
            raise WriteError(self.path, write_reason(error)) from error

    def _take(self, take_over: bool) -> None:
        before = read_holder(self.path)
        got = _try_lock(self._descriptor)
        if got is None:  # a disk without locks: what the file says must do
            got = before.released or not before.host or _is_dead(before)
        elif got:
            # A program on another computer may hold a lock that does not reach here.
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
        """Whether the locked file is still the one that the name stands for."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def _replace(self, before: Holder) -> None:
        """Put a new file in the place of the locked one."""
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
        """Make sure that the lock is still ours; tell the file that we live.

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
                raise WriteError(
                    self.path.parent,
                    "the project's folder, or its lock file, is not there any more. "
                    "Connect the disk or network folder again, or open the project anew.",
                )
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
        """Let go; twice is once."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            if read_holder(self.path).token == self.holder.token:
                self._write(self.holder, released=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, holder: Holder, **changes: str | bool) -> None:
        # In place and of one length: replacing the file would lose the lock on it.
        text = json.dumps(asdict(holder) | changes).ljust(511) + "\n"
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text.encode())
        os.ftruncate(self._descriptor, len(text))


def _try_lock(descriptor: int) -> bool | None:
    """Take the system's lock without waiting; None where the disk has none."""
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
    """Whether a program on this computer surely runs no more."""
    if not holder.here or sys.platform == "win32":  # there, asking would end it
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
