"""Read files safely and write them atomically.

Reading opens no pipe or device and takes no more bytes than there are. A crash at any
instant of a write leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from napari_cmunet.errors import Cancelled, NotFlushedError, WriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


class NotPlainError(OSError):
    """The path is a pipe, a device, a socket or a folder, not a regular file."""

    def __init__(self) -> None:
        super().__init__(None, "it is no plain file")


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading; raises OSError, NotPlainError."""
    handle = open(path, "rb", opener=without_waiting)
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise NotPlainError
    return handle


def read_plain(path: Path, limit: int) -> bytes | None:
    """A file's content, None if it is longer than the limit; raises OSError."""
    with open_plain(path) as handle:
        # Python allocates as many bytes as are requested.
        size = os.fstat(handle.fileno()).st_size
        data = handle.read(min(size, limit) + 1)
    return None if len(data) > limit else data


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False for invalid names."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # reading it reports the problem
        return False


def hash_file(path: Path, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Return the SHA-256 of a file; raises OSError, Cancelled."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while piece := file.read(2**22):
            if should_stop():
                raise Cancelled
            digest.update(piece)
    return digest.hexdigest()


class Bounded:
    """An open file whose reads are limited to its size.

    Python allocates as many bytes as are requested, and decoders request as many as a
    file claims.
    """

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self._size = handle, size

    def read(self, count: int = -1) -> bytes:
        """Read as a file does."""
        left = max(0, self._size - self._handle.tell())
        return self._handle.read(
            left if count is None or count < 0 else min(count, left)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def without_waiting(path: str, flags: int) -> int:
    """Opener for :func:`open` that does not block on a pipe without a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


_DEVICES = re.compile(
    r"(con|conin\$|conout\$|prn|aux|nul|clock\$|(com|lpt)[0-9¹²³])", re.IGNORECASE
)


_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def safe_name(text: str, default: str = "image") -> str:
    """Return a file name valid on every system that no spreadsheet runs as formula."""
    name = "".join(c if c.isprintable() else "_" for c in _UNSAFE.sub("_", text))
    name = name.strip(" .")[:150] or default
    return f"_{name}" if name[0] in "=+-@" or is_device(name) else name


def is_device(name: str) -> bool:
    """Whether a file name denotes a Windows device: ``CON``, ``aux.tif``."""
    return _DEVICES.fullmatch(name.split(".")[0].split(":")[0].rstrip(" ")) is not None


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


# Start of a formula, in full width too, at the start of a cell; also of one that a
# spreadsheet makes by itself, since many take semicolons for separators.
_FORMULA = re.compile(r"(^|[;|\t\r\n])(?=\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> None:
    """Write rows as CSV, atomically, with no cell that a spreadsheet runs as formula.

    A column that a row lacks stays empty.

    Raises
    ------
    WriteError
    """
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(column, "")) for column in columns])


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode()  # names of files may be no text
    return _FORMULA.sub(r"\1'", text)
