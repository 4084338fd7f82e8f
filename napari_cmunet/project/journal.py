"""The journal of a project: JSON lines, append-only, and the state that they tell.

Images are named by their ids; no path, file name or patient's name is written.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ProjectDamagedError, ProjectError, WriteError
from napari_cmunet.project.files import is_image_id
from napari_cmunet.project.flags import ImageFlags
from napari_cmunet.project.models.history import ModelHistory, history_from
from napari_cmunet.project.patients import TRAIN, VALIDATION
from napari_cmunet.project.readers.readers import is_reader
from napari_cmunet.util.safe_files import sync_folder, without_waiting, write_reason
from napari_cmunet.util.text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.patients import Side

_MAX_LINE = 2**16
_OWN_KEYS = ("n", "time", "user", "what", "image", "frame")
_READER = "reading_"
"""Before the act of a further reader: programs that know of one only skip it."""


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    number: int  # counts up; gives the order, whatever the clock says
    time: str  # UTC
    user: str  # as chosen by the user; may be empty
    what: str  # ``accepted``, ``withdrawn``, ``skipped``, ``promoted`` and so on
    image: str | None = None
    frame: int | None = None
    details: dict[str, Any] = field(default_factory=dict)  # further plain values
    reader: str = ""  # code of the reader; empty for the first one


class Journal:
    """The journal of a project.

    Parameters
    ----------
    user : str
        Written into each new line.
    """

    def __init__(self, path: Path, user: str = "") -> None:
        self.path = path
        self.user = "".join(c for c in user if c.isprintable())[:64]
        self._next = 1
        self._waiting: list[dict[str, Any]] = []
        # Where the file ends as it should, if a failed write could not be undone.
        self._end: int | None = None

    @property
    def waiting(self) -> int:
        """Lines that could not be written yet; they are written with the next one."""
        return len(self._waiting)

    def entries(self) -> Iterator[Entry]:
        """Yield the valid lines, from the first; skip others."""
        try:
            file = open(self.path, "rb", opener=without_waiting)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ProjectDamagedError(
                f"In the project, {self.path.name} cannot be read ({error.strerror})."
            ) from error
        with file:
            while line := file.readline(_MAX_LINE):
                whole = line.endswith(b"\n")
                entry = _parse(line)
                if entry is not None:
                    self._next = max(self._next, entry.number + 1)
                    yield entry
                elif not whole:
                    _skip_line(file)

    def repair(self) -> bool:
        """Remove a last line that a crash cut short; return whether there was one.

        Nothing is reported as done before its line is complete.
        """
        try:
            with self.path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                keep = _end_of_last_line(file, size)
                if keep == size:
                    return False
                file.seek(keep)
                if size - keep < _MAX_LINE and _parse(file.read()) is not None:
                    file.write(b"\n")  # only the newline is missing
                else:
                    file.truncate(keep)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise WriteError(self.path, write_reason(error)) from error
        return True

    def append(
        self,
        what: str,
        image: str | None = None,
        frame: int | None = None,
        *,
        reader: str = "",
        **details: Any,
    ) -> bool:
        """Append a line and flush it to the disk.

        Returns
        -------
        bool
            False if it could not be written; it then waits for the next call.
        """
        line: dict[str, Any] = {
            "n": self._next,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "user": self.user,
            "what": f"{_READER}{what}" if reader else what,
        }
        if reader:
            line["reader"] = reader
        if image is not None:
            line["image"] = image
        if frame is not None:
            line["frame"] = frame
        self._next += 1
        known = {k: v for k, v in details.items() if v is not None}
        self._waiting.append(line | _plain(known))
        return self.flush()

    def flush(self) -> bool:
        """Write the waiting lines; return whether none is left."""
        if not self._waiting:
            return True
        text = "".join(json.dumps(x, allow_nan=False) + "\n" for x in self._waiting)
        try:
            self._write(text.encode())
        except OSError:
            return False
        self._waiting.clear()
        return True

    def _write(self, data: bytes) -> None:
        new = not self.path.exists()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            if self._end is not None:
                os.ftruncate(descriptor, self._end)
                self._end = None
            size = os.fstat(descriptor).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError:
                self._end = size  # a full disk, most likely
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                    self._end = None
                raise
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)


def _plain(value: Any) -> Any:
    """Convert to plain JSON values; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _parse(line: bytes) -> Entry | None:
    try:
        values = parse_json(line)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    number, image, frame = (values.get(k) for k in ("n", "image", "frame"))
    texts: dict[str, Any] = {k: values.get(k) for k in ("time", "user", "what")}
    if not (
        type(number) is int
        and 0 < number < 2**53
        and all(isinstance(t, str) for t in texts.values())
        and (image is None or is_image_id(image))
        and (frame is None or (type(frame) is int and frame >= 0))
    ):
        return None
    details = {k: v for k, v in values.items() if k not in _OWN_KEYS}
    reader = ""
    if texts["what"].startswith(_READER) and is_reader(details.get("reader")):
        texts["what"] = texts["what"].removeprefix(_READER)
        reader = details.pop("reader")
    return Entry(
        number, image=image, frame=frame, details=details, reader=reader, **texts
    )


def _end_of_last_line(file: Any, size: int) -> int:
    """Return the offset after the last newline, 0 if there is none."""
    position = size
    while position:
        start = max(0, position - 4096)
        file.seek(start)
        at = file.read(position - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        position = start
    return 0


def _skip_line(file: Any) -> None:
    while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
        pass


# -- the state, to repair what a crash left -----------------------------------------

_PATIENT = re.compile(r"[0-9a-f]{16}")
_LABELLED = ("accepted", "restored", "label_recovered")
_UNLABELLED = ("withdrawn", "label_missing")


@dataclass
class JournalState:
    """The state of a project according to its journal."""

    lines: int = 0
    #: By reader: hashes by frame, and flags by image.
    labels: defaultdict[str, dict[FrameKey, str]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    flags: defaultdict[str, dict[str, ImageFlags]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    sides: dict[str, Side] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)  # hashes of labels
    trained: set[str] = field(default_factory=set)
    history: ModelHistory = field(default_factory=ModelHistory)


def replay(entries: Iterable[Entry]) -> JournalState:
    """Replay a journal from its beginning; ignore entries that make no sense."""
    state = JournalState()
    for entry in entries:
        state.lines += 1
        _apply(state, entry)
    return state


def _apply(state: JournalState, entry: Entry) -> None:
    details = entry.details
    if entry.image is not None and entry.frame is not None:
        key = (entry.image, entry.frame)
        if entry.what in _LABELLED:
            state.labels[entry.reader][key] = str(details.get("sha256"))
        elif entry.what in _UNLABELLED:
            state.labels[entry.reader].pop(key, None)
        elif entry.what == "rejected":
            state.rejected.add(str(details.get("sha256")))
        elif entry.what == "admitted":
            state.rejected.discard(str(details.get("sha256")))
    elif entry.image is not None:
        change = _FLAG_CHANGES.get(entry.what)
        if change:
            known = state.flags[entry.reader]
            flags = known.get(entry.image, ImageFlags())
            known[entry.image] = replace(flags, **change)
    elif entry.what == "patient_assigned":
        patient, side = details.get("patient"), details.get("side")
        if isinstance(patient, str) and _PATIENT.fullmatch(patient):
            if side in (TRAIN, VALIDATION):
                state.sides.setdefault(patient, side)
    elif entry.what == "trained":
        state.trained.add(str(details.get("model")))
    elif entry.what == "discarded":
        state.trained.discard(str(details.get("model")))
    else:
        with contextlib.suppress(ProjectError):
            _apply_to_history(state, entry.what, details)


_FLAG_CHANGES: dict[str, dict[str, Any]] = {
    "skipped": {"skipped": True},
    "unskipped": {"skipped": False},
    "flagged": {"flagged": True},
    "unflagged": {"flagged": False},
    "inverted": {"inverted": True},
    "uninverted": {"inverted": False},
}


def _apply_to_history(state: JournalState, what: str, details: dict[str, Any]) -> None:
    if what == "promoted":
        values = {k: details.get(k) for k in ("sha256", "installed")}
        values["name"] = details.get("model")
        (version,) = history_from({"history": [values], "position": 0}).versions
        state.history = state.history.with_next(version)
    elif what == "rolled_back":
        state.history = state.history.moved(-1)
    elif what == "rolled_forward":
        state.history = state.history.moved(1)
    elif what == "models_recovered":
        state.history = history_from(details)
