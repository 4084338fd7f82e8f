"""A disk that fails now and then: full, faulty, not permitted.

Put into the process that is to suffer; the program itself knows nothing of it.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

_ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)


class DiskFaults:
    """Lets a share of all writes below a folder fail, from :meth:`install` on.

    Parameters
    ----------
    folder : Path
        Only what lies in it fails.
    choose : Random
    share : float
        Of the calls that write, flush, make, rename or remove.
    bursts : bool
        Whether the next calls may fail as well; otherwise a failure comes alone.
    """

    def __init__(
        self, folder: Path, choose: Random, share: float, *, bursts: bool = False
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._choose, self._share, self._bursts = choose, share, bursts
        self._since = 100

    def install(self) -> None:
        """From now on it fails."""
        for name in ("write", "fsync", "ftruncate"):
            setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        os.link = self._by_path("link", os.link)
        for name in ("replace", "rename", "unlink", "mkdir"):
            setattr(Path, name, self._by_path(name, getattr(Path, name)))
        self._open = Path.open
        faults = self

        def open_file(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            writes = set(mode) & set("wxa+")
            if "b" in mode and writes and faults._within(os.fspath(path)):
                faults._perhaps("open", errno.ENOSPC)
                raw = io.FileIO(path, mode.replace("b", ""))
                kind = _Failing if "+" in mode else _FailingWriter
                file = kind(raw)
                file.faults = faults
                return file
            return faults._open(path, mode, *args, **kwargs)

        Path.open = open_file

    def _within(self, path: Any) -> bool:
        return os.fspath(path).startswith(self._folder)

    def _perhaps(self, _: str, number: int | None = None) -> None:
        self._since += 1
        share = self._share
        if self._since <= 20:  # the last failure was a moment ago
            share = 0.5 if self._bursts else 0.0
        if self._choose.random() < share:
            self._since = 0
            number = number or self._choose.choice(_ERRORS)
            raise OSError(number, os.strerror(number))

    def _by_descriptor(self, name: str, real: Any) -> Any:
        def call(descriptor: int, *args: Any) -> Any:
            if self._within(Path(f"/proc/self/fd/{descriptor}").readlink()):
                try:
                    self._perhaps(name)
                except OSError:
                    if name == "write":  # a part of it may be there already
                        real(descriptor, args[0][: len(args[0]) // 2])
                    raise
            return real(descriptor, *args)

        return call

    def _by_path(self, name: str, real: Any) -> Any:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if self._within(path):
                self._perhaps(name)
            return real(path, *args, **kwargs)

        return call


class _Halfway:
    faults: DiskFaults

    def write(self, data: Any) -> int:
        try:
            self.faults._perhaps("write")
        except OSError:
            piece = memoryview(data).cast("B")
            super().write(piece[: len(piece) // 2])  # type: ignore[misc]
            raise
        return super().write(data)  # type: ignore[misc]


class _Failing(_Halfway, io.BufferedRandom):
    """A file to write and read whose writes fail halfway."""


class _FailingWriter(_Halfway, io.BufferedWriter):
    """A file to write whose writes fail halfway."""
