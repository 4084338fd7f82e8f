"""Atomic writes: a crash at any instant leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_cmunet.errors import NotFlushedError, WriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Hidden, so that no walk over images takes a leftover for an image. Short and free
# of the target's name, which may already be as long as the file system allows.
TEMPORARY_PREFIX = ".napari-cmunet-"
TEMPORARY_SUFFIX = ".tmp"

# Windows refuses to replace a file that a virus scanner or viewer holds for a moment.
_REPLACE_RETRIES = (0.05, 0.2, 0.5) if sys.platform == "win32" else ()

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space or choose another folder.",
    errno.EDQUOT: "your disk quota is used up. Free some space or choose another "
    "folder.",
    errno.EFBIG: "the file is larger than this disk allows. Choose another disk.",
    errno.EACCES: "writing here is not permitted, or another program has the file "
    "open. Close it there or choose another folder.",
    errno.EPERM: "writing here is not permitted. Choose another folder.",
    errno.EROFS: "the disk is read-only. Choose another folder.",
    errno.ENOENT: "its folder does not exist. Create it or choose another folder.",
    errno.ENOTDIR: "its folder is not a folder but a file. Choose another folder.",
    errno.EEXIST: "a file is in the way of this folder. Choose another one.",
    errno.EISDIR: "a folder of that name is in the way. Choose another name.",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one.",
    errno.EINVAL: "the disk does not accept this name. Choose another one.",
    errno.EIO: "the disk reports a fault. Check it, or choose another disk.",
}


def write_reason(error: OSError) -> str:
    """One sentence on why a write failed and what to do."""
    known = _REASONS.get(error.errno or 0)
    return known or f"it could not be written ({error.strerror or 'unknown cause'})."


@contextlib.contextmanager
def write_errors(
    path: Path | str, error: type[WriteError] = WriteError
) -> Iterator[None]:
    """Raise a WriteError about ``path`` for an OSError raised inside."""
    try:
        yield
    except OSError as exc:
        raise error(path, write_reason(exc)) from exc


@contextlib.contextmanager
def atomic_write(
    path: Path | str,
    mode: str = "wb",
    verify: Callable[[Path], None] | None = None,
) -> Iterator[IO[Any]]:
    r"""Open a file for writing that takes its place only when whole and on disk.

    Everything goes to a temporary file in the same folder, which is flushed and then
    renamed over ``path``. If the body or ``verify`` raises, what was at ``path`` stays
    and the temporary file goes. A link at ``path`` is replaced, not followed.

    Parameters
    ----------
    path : Path or str
        The file to write. Its folder must exist.
    mode : {"wb", "w"}
        Binary, or text (UTF-8, ``\n`` line ends).
    verify : callable, optional
        Called with the path of the finished temporary file before it is renamed; it
        raises if the file is not what was meant.

    Yields
    ------
    file object
        Readable too, since some writers look back at what they wrote.

    Raises
    ------
    WriteError
        For any OSError on the way; NotFlushedError if ``path`` was replaced by then.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', not {mode!r}")
    path = Path(path)
    temporary = path.parent / (
        f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    )
    with write_errors(path):
        permissions = _permissions_of(path)
        try:
            # Not tempfile: its files are private to the user, and stay so once renamed.
            with _create(temporary, mode) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            if permissions is not None:
                with contextlib.suppress(OSError):
                    temporary.chmod(permissions)
            if verify is not None:
                verify(temporary)
            rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    with write_errors(path, NotFlushedError):
        sync_folder(path.parent)


def write_json(path: Path | str, value: object) -> None:
    """Write strict JSON atomically; raises WriteError."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def make_folder(path: Path) -> Path:
    """Create a folder with its parents, durably, and return it; raises WriteError."""
    if path.is_dir():
        return path
    if path.parent != path:
        make_folder(path.parent)
    with write_errors(path):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)
    return path


def remove_file(path: Path) -> None:
    """Delete a file durably; raises WriteError."""
    with write_errors(path):
        path.unlink()
    with write_errors(path, NotFlushedError):
        sync_folder(path.parent)


def _permissions_of(path: Path) -> int | None:
    """Permission bits of the file that will be replaced, None if there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else None


def _create(path: Path, mode: str) -> IO[Any]:
    """Open a file that must not exist yet."""
    if mode == "wb":
        return path.open("x+b")
    return path.open("x+", encoding="utf-8", newline="\n")


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, over a file that is there; raises OSError."""
    for pause in _REPLACE_RETRIES:
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(pause)
    source.replace(target)


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that a rename survives a power cut, where possible."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Network file systems may not offer it; the file is in its place all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
