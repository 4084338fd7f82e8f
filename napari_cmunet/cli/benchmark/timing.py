"""Times as they are quoted, and the memory that a process took."""

from __future__ import annotations

import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Timing:
    """Seconds of something done several times.

    Parameters
    ----------
    median, fastest, slowest : float
        Seconds.
    repeats : int
    """

    median: float
    fastest: float
    slowest: float
    repeats: int

    def __str__(self) -> str:
        return seconds(self.median)


def timed(
    act: Callable[[], object],
    *,
    repeats: int = 5,
    at_least: float = 0.0,
    synchronise: Callable[[], object] = lambda: None,
) -> Timing:
    """Do something once to warm up, then time it.

    Parameters
    ----------
    act : callable
    repeats : int
    at_least : float
        Seconds; quick things are repeated until so much has passed.
    synchronise : callable
        Waits for the device; its work is otherwise still going on when ``act``
        returns.
    """
    act()
    synchronise()
    taken: list[float] = []
    while len(taken) < repeats or (sum(taken) < at_least and len(taken) < 200):
        began = time.perf_counter()
        act()
        synchronise()
        taken.append(time.perf_counter() - began)
    return Timing(statistics.median(taken), min(taken), max(taken), len(taken))


def seconds(value: float) -> str:
    """A time for people: three digits, in the unit that suits it."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 600:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min"


def peak_memory() -> float | None:
    """The most memory that this process has held so far, in GB; None if unknown."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage begins with the peak of the parent
        found = re.search(
            r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii", errors="replace")
        )
        return int(found[1]) * 1024 / 1e9 if found else None
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
