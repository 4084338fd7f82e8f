"""What is put in order when a project is opened: after a crash, or after meddling.

The labels on the disk are the truth; the journal is brought up to them. Doing it twice
changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.project.errors import ProjectDamagedError, ProjectError
from napari_cmunet.project.files import DRAFTS, LABELS, MODELS
from napari_cmunet.project.flags import ImageFlags
from napari_cmunet.project.model_store import ModelHistory, history_from
from napari_cmunet.project.split import TRAIN, VALIDATION
from napari_cmunet.util.atomic import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_cmunet.project.journal import Entry, Journal
    from napari_cmunet.project.label_store import FrameKey, LabelStore
    from napari_cmunet.project.model_store import ModelStore
    from napari_cmunet.project.split import Side

_PATIENT = re.compile(r"[0-9a-f]{16}")
_LABELLED = ("accepted", "restored", "label_recovered")
_UNLABELLED = ("withdrawn", "label_missing")


@dataclass
class JournalState:
    """Where the journal says that the project stands."""

    lines: int = 0
    labels: dict[FrameKey, str] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    marks: dict[str, ImageFlags] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)
    history: ModelHistory = field(default_factory=ModelHistory)


def replay(entries: Iterable[Entry]) -> JournalState:
    """Go through a journal from its beginning; lines that make no sense do nothing."""
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
            state.labels[key] = str(details.get("sha256"))
        elif entry.what in _UNLABELLED:
            state.labels.pop(key, None)
    elif entry.image is not None:
        change = _MARKS.get(entry.what)
        if change:
            mark = state.marks.get(entry.image, ImageFlags())
            state.marks[entry.image] = replace(mark, **change)
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


_MARKS: dict[str, dict[str, Any]] = {
    "skipped": {"skipped": True},
    "unskipped": {"skipped": False},
    "flagged": {"flagged": True},
    "unflagged": {"flagged": False},
}


def _apply_to_history(state: JournalState, what: str, details: dict[str, Any]) -> None:
    if what == "promoted":
        (version,) = history_from(
            {
                "history": [
                    {
                        "name": details.get("model"),
                        "sha256": details.get("sha256"),
                        "installed": details.get("installed"),
                    }
                ],
                "position": 0,
            }
        ).versions
        state.history = state.history.with_next(version)
    elif what == "rolled_back":
        state.history = state.history.moved(-1)
    elif what == "rolled_forward":
        state.history = state.history.moved(1)
    elif what == "models_recovered":
        state.history = history_from(details)


def recover_labels(
    store: LabelStore, journal: Journal, said: dict[FrameKey, str], images: set[str]
) -> tuple[dict[FrameKey, str], list[str]]:
    """Find out which labels there are, and note what the journal does not know.

    Returns
    -------
    labels : dict
        Hash of each label's file.
    notices : list of str
        What the reader should know.
    """
    labels = scan_labels(store)
    # A crash may come between a change on the disk and its line.
    for (image, frame), sha256 in labels.items():
        if said.get((image, frame)) != sha256:
            journal.append("label_recovered", image, frame, sha256=sha256)
    missing = []
    for (image, frame), sha256 in said.items():
        if (image, frame) in labels:
            continue
        if any(store.hash_of(o) == sha256 for o in store.older(image, frame)):
            journal.append("withdrawn", image, frame, sha256=sha256, recovered=True)
        else:
            journal.append("label_missing", image, frame)
            missing.append((image, frame))
    notices = []
    if missing:
        notices.append(
            f"{len(missing)} label(s) that the journal knows are not in the project's "
            "folder any more. If you did not remove them, look for them in a backup."
        )
    stray = {image for image, _ in labels} - images
    if stray:
        notices.append(
            f"{len(stray)} image(s) that have labels are not in the list of images."
        )
    return labels, notices


def scan_labels(store: LabelStore) -> dict[FrameKey, str]:
    """Hash of each label's file, as they lie on the disk."""
    labels = {}
    for image, frame in store.scan():
        with contextlib.suppress(ProjectDamagedError):
            sha256 = store.sha256(image, frame)
            if sha256:  # it may be withdrawn at this moment, by another program
                labels[image, frame] = sha256
    return labels


def recover_models(
    store: ModelStore, journal: Journal, said: JournalState
) -> list[str]:
    """Note which model is in use, where the journal does not know."""
    notices = []
    try:
        store.load()
    except ProjectDamagedError as error:
        store.save(said.history)
        notices.append(f"{error} The model in use was taken from the journal.")
    if store.history != said.history:
        if store.history == ModelHistory():
            store.save(said.history)
        else:
            journal.append("models_recovered", **store.history.to_json())
    return notices


def clean(folder: Path) -> None:
    """Remove temporary files that a crash left. Only while holding the lock."""
    places = [folder, folder / DRAFTS, folder / MODELS]
    with contextlib.suppress(OSError):
        for path in (folder / LABELS).iterdir():
            if path.is_dir() and not path.is_symlink():
                places += [path, path / "older"]
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as found:
            for entry in found:
                name = entry.name
                if name.startswith(TEMPORARY_PREFIX) and name.endswith(
                    TEMPORARY_SUFFIX
                ):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108
