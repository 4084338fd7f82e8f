"""The state of a project according to its journal, to repair what a crash left."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ProjectError
from napari_cmunet.project.flags import ImageFlags
from napari_cmunet.project.models.history import ModelHistory, history_from
from napari_cmunet.project.patients import TRAIN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.journal import Entry
    from napari_cmunet.project.patients import Side

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
