"""What a reader does beside reading: memory, time, files, programs, connections."""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn")
_RUNS += ("subprocess.Popen", "pickle.find_class", "socket.connect", "socket.bind")
_RUNS += ("socket.getaddrinfo", "urllib.Request", "webbrowser.open")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
_CHANGES += ("os.truncate", "os.chmod", "os.chown", "shutil.rmtree", "os.utime")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Watch:
    """Looks on while inputs are read.

    Parameters
    ----------
    folder : Path
        All that may be written to, and read besides the program itself.
    """

    folder: Path
    seen: list[str] = field(default_factory=list)
    active: bool = False

    def __post_init__(self) -> None:
        paths = sysconfig.get_paths()
        own = Path(__file__).resolve().parents[2]
        program = (sys.prefix, sys.base_prefix, paths["stdlib"], own)
        system = ("/proc", "/sys", "/dev/urandom", "/dev/null", "/usr/share/zoneinfo")
        self._mine = os.path.realpath(self.folder)
        self._readable = tuple(
            os.path.realpath(p) for p in (*program, *system, self.folder)
        )
        sys.addaudithook(self._hook)
        warnings.simplefilter("always")
        warnings.showwarning = self._warned

    def _warned(self, message: Any, category: Any, filename: str, *_: Any) -> None:
        # Whatever is laid at this program's door would be shown to its user.
        if self.active and "napari_cmunet" in filename:
            self.seen.append(f"a warning: {message!s:.200}")

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _RUNS:
            self.seen.append(f"{event} {args[:2]!r:.200}")
        elif event == "open":
            path, mode, flags = args
            if isinstance(path, int) or path is None:
                return
            writes = bool(flags & _WRITES) if isinstance(flags, int) else mode != "r"
            allowed = (self._mine,) if writes else self._readable
            if not _below(path, allowed):
                what = "writes" if writes else "reads"
                self.seen.append(f"{what} outside its folder: {path!r:.200}")
        elif event in _CHANGES:
            paths = [a for a in args[:2] if isinstance(a, str | bytes | os.PathLike)]
            # The text of a link is no path that is written to.
            for path in paths[1:] if event == "os.symlink" else paths:
                if not _below(path, (self._mine,)):
                    self.seen.append(f"{event} outside its folder: {path!r:.200}")


def _below(path: Any, folders: tuple[str, ...]) -> bool:
    try:
        real = os.path.realpath(os.fsdecode(path))
    except (ValueError, OSError, TypeError):  # no path at all: nothing can be opened
        return True
    return any(real == f or real.startswith(f + os.sep) for f in folders)


class Memory:
    """The most memory that was resident since :meth:`begin`."""

    def begin(self) -> None:
        """Forget earlier peaks (Linux 4.0 and later)."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = _resident()

    def grown(self) -> int:
        """Bytes by which the peak lies above the beginning."""
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return max(0, int(line.split()[1]) * 1024 - self._before)
        return 0


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * _PAGE


def cap_memory(limit: int) -> None:
    """Let this process take so many bytes more than now; beyond, memory is refused."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    ceiling = int(fields[0]) * _PAGE + limit
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, resource.RLIM_INFINITY))


class Clock:
    """Seconds since it was made, of the wall and of this process."""

    def __init__(self) -> None:
        self._wall, self._process = time.monotonic(), time.process_time()

    def seconds(self) -> float:
        """Of the wall: waiting counts too."""
        return time.monotonic() - self._wall

    def busy(self) -> float:
        """Of the processor."""
        return time.process_time() - self._process
