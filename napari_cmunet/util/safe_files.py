"""Read files safely: no pipes or devices, and no more bytes than there are."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

from napari_cmunet.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
