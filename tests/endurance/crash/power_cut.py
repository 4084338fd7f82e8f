"""What is left on a disk when the power goes: what was flushed, and nothing promised.

A recording of the folder's flushes in this process. A file holds what it held when it
was last flushed, or nothing; a folder names what it named when it was last flushed.
That is less than any file system in use keeps, which makes it the strict test.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


class PowerCut:
    """Keeps account of what is on the disk for sure below a folder.

    Parameters
    ----------
    folder : Path
        All that is there now is on the disk.
    on_flush : callable
        Called before and after each flush: the instants between which nothing changes.
    """

    def __init__(self, folder: Path, on_flush: Callable[[], None]) -> None:
        self.folder = Path(os.path.realpath(folder))
        self._on_flush = on_flush
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        # Kept open, so that no number of a file stands for another one later.
        self._held: dict[int, int] = {}
        self._keep(self.folder)
        for path in self.folder.rglob("*"):
            self._keep(path)
        self._fsync = os.fsync

    def install(self) -> None:
        """Begin to record."""
        os.fsync = self._flush

    def pause(self) -> None:
        """Do not record until :meth:`install` is called again."""
        os.fsync = self._fsync

    def close(self) -> None:
        """Record no more."""
        self.pause()
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _keep(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._note(descriptor, path)
        finally:
            os.close(descriptor)

    def _note(self, descriptor: int, path: Path) -> None:
        status = os.fstat(descriptor)
        number = status.st_ino
        if number not in self._held:
            self._held[number] = os.dup(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._folders[number] = {}
            for entry in os.scandir(path):
                self._hold(entry)
                self._folders[number][entry.name] = entry.inode()
        else:
            self._files[number] = _content(descriptor)

    def _hold(self, entry: os.DirEntry[str]) -> None:
        if entry.inode() not in self._held:
            self._held[entry.inode()] = os.open(entry.path, os.O_RDONLY)

    def _flush(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        inside = path.is_relative_to(self.folder)
        if inside:
            self._on_flush()
        self._fsync(descriptor)
        if inside:
            self._note(descriptor, path)
            self._on_flush()

    # -- what is left ---------------------------------------------------------

    def leave(self, target: Path, choose: Random | None = None) -> None:
        """Make a folder of what is left.

        Parameters
        ----------
        target : Path
        choose : Random, optional
            Lets any file and folder be there as it is now, flushed or not, by chance:
            a disk may write sooner than it has to.
        """
        target.mkdir(parents=True)
        self._leave(self.folder.stat().st_ino, target, choose)

    def _leave(self, number: int, target: Path, choose: Random | None) -> None:
        names = self._folders.get(number, {})
        if choose is not None and choose.random() < 0.5:
            names = self._now(number, names)
        for name, entry in names.items():
            descriptor = self._held.get(entry)
            if descriptor is None:
                continue
            place = target / name
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                place.mkdir()
                self._leave(entry, place, choose)
                continue
            data = self._files.get(entry, b"")
            if choose is not None and choose.random() < 0.5:
                now = _content(descriptor)
                # Perhaps not all of it, and what was longer may still be so.
                data = now if choose.random() < 0.5 else now[: len(now) // 2] or data
                if len(data) < len(self._files.get(entry, b"")):
                    data = self._files[entry]
            place.write_bytes(data)

    def _now(self, number: int, known: dict[str, int]) -> dict[str, int]:
        """What a folder names now."""
        if number not in self._held:
            return known
        names = {}
        for entry in os.scandir(self._held[number]):
            if entry.inode() not in self._held:
                path = f"/proc/self/fd/{self._held[number]}/{entry.name}"
                self._held[entry.inode()] = os.open(path, os.O_RDONLY)
            names[entry.name] = entry.inode()
        return names


def _content(descriptor: int) -> bytes:
    """What an open file holds, whatever its name is by now."""
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()
