"""What ended a training, told as an event before the program ends."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_cmunet.errors import (
    Cancelled,
    CMUNetError,
    NotANumberError,
    OutOfMemoryError,
    UsageError,
    WriteError,
)
from napari_cmunet.model.device import is_out_of_memory
from napari_cmunet.training import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told_as_event(write: Callable[[events.Event], None]) -> Iterator[None]:
    """Write a :class:`napari_cmunet.training.events.Failed` for what is raised inside.

    Raises
    ------
    OutOfMemoryError
        In the place of whatever torch or Python raise then.
    """
    try:
        yield
    except (Cancelled, UsageError):
        raise
    except CMUNetError as exc:
        write(events.Failed(kind_of(exc), str(exc)))
        raise
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        told = OutOfMemoryError(
            "Not enough memory for this training. Close other programs, or learn from "
            "fewer labels at a time."
        )
        write(events.Failed(events.OUT_OF_MEMORY, str(told)))
        raise told from exc


def kind_of(exc: CMUNetError) -> str:
    """One of :data:`napari_cmunet.training.events.FAILURES`."""
    if isinstance(exc, OutOfMemoryError):
        return events.OUT_OF_MEMORY
    if isinstance(exc, NotANumberError):
        return events.NOT_A_NUMBER
    cause = exc.__cause__
    if isinstance(exc, WriteError) and isinstance(cause, OSError):
        if cause.errno in _DISK_FULL:
            return events.DISK_FULL
    return events.OTHER_FAILURE
