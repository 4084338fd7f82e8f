"""Opening what must be a plain file: a pipe or a device would let the reader wait."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path


class NotPlainError(OSError):
    """There is a pipe, a device, a socket or a folder where a file should be."""

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
        # Python takes memory for as much as is asked for, whatever there is.
        size = os.fstat(handle.fileno()).st_size
        data = handle.read(min(size, limit) + 1)
    return None if len(data) > limit else data


def without_waiting(path: str, flags: int) -> int:
    """An opener for :func:`open`: a pipe in a file's place would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
