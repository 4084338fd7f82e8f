"""Open a project: lock it, read its files, repair what a crash left.

The labels on the disk are the truth; the journal is brought up to them. Repeating the
repair changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import (
    ProjectDamagedError,
    ProjectError,
    ReadError,
    WriteError,
)
from napari_cmunet.project.files import (
    DRAFTS,
    FLAGS,
    IMAGES,
    JOURNAL,
    LABELS,
    LOCK,
    MODELS,
    OLDER,
    POSITION,
    SETTINGS,
    SPLIT,
    inside,
    is_image_id,
    is_project,
    migrate,
    project_file,
    read_json,
    set_aside,
)
from napari_cmunet.project.flags import FlagTable, ImageFlags
from napari_cmunet.project.image_records import read_records
from napari_cmunet.project.images import ProjectImages
from napari_cmunet.project.journal import Journal
from napari_cmunet.project.labels import ProjectLabels
from napari_cmunet.project.lock import Lock, ProjectContext
from napari_cmunet.project.model_history import ModelHistory, history_from
from napari_cmunet.project.models import ProjectModels
from napari_cmunet.project.patients import TRAIN, VALIDATION, Split
from napari_cmunet.project.settings import (
    Settings,
    load_settings,
    read_identity,
    salvage_identity,
)
from napari_cmunet.util.atomic import TEMPORARY_PREFIX, TEMPORARY_SUFFIX, write_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.journal import Entry
    from napari_cmunet.project.patients import Side


@dataclass
class OpenedProject:
    """The parts of an open project."""

    context: ProjectContext
    images: ProjectImages
    labels: ProjectLabels
    models: ProjectModels
    flags: FlagTable
    settings: tuple[Settings, dict[str, Any]]
    position: FrameKey


def open_project(
    folder: Path, *, user: str, read_only: bool, break_lock: bool, salvage: bool
) -> OpenedProject:
    """See :meth:`napari_cmunet.project.project.Project.open`."""
    folder = Path(folder).absolute()
    salvage = salvage and not read_only
    # First without the lock: what a newer program wrote is not touched at all.
    notices = []
    try:
        identity = read_identity(folder)
    except ProjectDamagedError:
        if not salvage or not is_project(folder):
            raise
    read_records(inside(folder, IMAGES), salvage=salvage)
    lock = None if read_only else Lock(inside(folder, LOCK), take_over=break_lock)
    try:
        if lock is not None:
            migrate(folder)
        if salvage:
            try:
                identity = read_identity(folder)
            except ProjectDamagedError:
                notices.append(salvage_identity(folder))
                identity = read_identity(folder)
        journal = Journal(inside(folder, JOURNAL), user)
        context = ProjectContext(folder, identity, journal, lock)
        context.notices += notices
        return _read(context, salvage)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _read(context: ProjectContext, salvage: bool) -> OpenedProject:
    folder, journal = context.folder, context.journal
    writable = not context.read_only
    repaired = writable and journal.repair()
    state = replay(journal.entries())
    images = ProjectImages(context)
    bad = images.load(salvage=salvage)
    flags = FlagTable(project_file(folder, FLAGS))
    split = Split(inside(folder, SPLIT), context.identity.salt)
    models = ProjectModels(context)
    labels = ProjectLabels(context, images, split)
    if writable:
        _clean(folder)
        models.clean()
        if not state.lines:
            journal.append("created")
        if repaired:
            journal.append("journal_repaired")
    if _is_damaged(context, flags.path, flags.load):
        flags.recall(state.flags)
        if writable:
            _try(context, flags.save)
    path = inside(folder, SETTINGS)
    settings: tuple[Settings, dict[str, Any]] = (Settings(), {})
    with contextlib.suppress(ProjectDamagedError):
        settings = load_settings(path)
    _is_damaged(context, path, lambda: load_settings(path))
    labels.load()
    if writable:
        _recover_labels(context, labels, state.labels, images)
        _try(context, lambda: _recover_models(context, models, state))
    else:
        try:
            models.load()
        except ProjectDamagedError:
            models.history = state.history
    if salvage:
        _salvage_images(context, images, labels, bad)
    if _is_damaged(context, split.path, split.load):
        split.recall(state.sides)
        if writable:
            _try(context, split.save)
    if writable:
        _try(context, lambda: _assign(context, split, images, labels))
    return OpenedProject(
        context, images, labels, models, flags, settings, _position(folder)
    )


def _is_damaged(
    context: ProjectContext, path: Path, load: Callable[[], object]
) -> bool:
    """Read a file that is not essential; set a damaged one aside."""
    try:
        load()
    except ProjectDamagedError as error:
        aside = ""
        if not context.read_only:
            with contextlib.suppress(WriteError):
                aside = f" It is kept as {set_aside(path)}."
        context.note(f"{error} It was made anew from the journal.{aside}")
        return True
    return False


def _try(context: ProjectContext, repair: Callable[[], object]) -> None:
    """Run a repair, or leave it for the next opening: the disk may be full."""
    try:
        repair()
    except WriteError as error:
        context.note(f"A file of the project could not be repaired: {error.reason}")


def _assign(
    context: ProjectContext, split: Split, images: ProjectImages, labels: ProjectLabels
) -> None:
    """Assign a side to every labelled patient, in the order of the images."""
    labelled = {image for image, _ in labels.keys()}
    patients = [r.patient for r in images if r.id in labelled]
    for patient, side in split.assign(patients).items():
        context.journal.append("patient_assigned", patient=patient, side=side)


def _position(folder: Path) -> FrameKey:
    with contextlib.suppress(ProjectError):
        values = read_json(inside(folder, POSITION)) or {}
        image, frame = values.get("image"), values.get("frame")
        if isinstance(image, str) and is_image_id(image):
            if type(frame) is int and frame >= 0:
                return image, frame
    return "", 0


# -- the journal -------------------------------------------------------------------

_PATIENT = re.compile(r"[0-9a-f]{16}")
_LABELLED = ("accepted", "restored", "label_recovered")
_UNLABELLED = ("withdrawn", "label_missing")


@dataclass
class JournalState:
    """The state of a project according to its journal."""

    lines: int = 0
    labels: dict[FrameKey, str] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    flags: dict[str, ImageFlags] = field(default_factory=dict)
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
            state.labels[key] = str(details.get("sha256"))
        elif entry.what in _UNLABELLED:
            state.labels.pop(key, None)
    elif entry.image is not None:
        change = _FLAG_CHANGES.get(entry.what)
        if change:
            flags = state.flags.get(entry.image, ImageFlags())
            state.flags[entry.image] = replace(flags, **change)
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


# -- repairs -----------------------------------------------------------------------


def _recover_labels(
    context: ProjectContext,
    labels: ProjectLabels,
    said: dict[FrameKey, str],
    images: ProjectImages,
) -> None:
    """Note in the journal what the labels on the disk show and it does not know."""
    keys = labels.keys()
    # A crash may come between a change on the disk and its line.
    for image, frame in sorted(keys):
        sha256 = labels.hash(image, frame)
        if said.get((image, frame)) != sha256:
            context.journal.append("label_recovered", image, frame, sha256=sha256)
    missing = 0
    for (image, frame), sha256 in said.items():
        if (image, frame) in keys:
            continue
        if any(older.sha256() == sha256 for older in labels.older(image, frame)):
            details = {"sha256": sha256, "recovered": True}
            context.journal.append("withdrawn", image, frame, **details)
        else:
            context.journal.append("label_missing", image, frame)
            missing += 1
    if missing:
        context.note(
            f"{missing} label(s) that the journal knows are missing from the project's "
            "folder. If you did not remove them, look for them in a backup."
        )
    stray = {image for image, _ in keys if image not in images}
    if stray:
        context.note(
            f"{len(stray)} image(s) that have labels are not in the list of images."
        )


def _recover_models(
    context: ProjectContext, models: ProjectModels, state: JournalState
) -> None:
    """Find the model in use, and note models that the journal does not know."""
    try:
        models.load()
    except ProjectDamagedError as error:
        models.save(state.history)
        context.note(f"{error} The model in use was taken from the journal.")
    if models.history != state.history:
        if models.history == ModelHistory():
            models.save(state.history)
        else:
            context.journal.append("models_recovered", **models.history.to_json())
    models.recover(state.trained)


def _salvage_images(
    context: ProjectContext, images: ProjectImages, labels: ProjectLabels, bad: int
) -> None:
    """List again the images of which only labels are left."""
    lost: dict[str, str | None] = {}
    for image, frame in sorted(labels.keys()):
        if image not in images:
            lost.setdefault(image, None)
            with contextlib.suppress(ReadError, ProjectError):
                label = labels.get(image, frame)
                if label is not None:
                    lost[image] = label.provenance.source_sha256 or lost[image]
    if bad:
        path = inside(context.folder, IMAGES)
        aside = path.with_name(f"{IMAGES}.damaged-{secrets.token_hex(4)}")
        try:
            shutil.copyfile(path, aside)
        except OSError as error:
            raise WriteError(aside, write_reason(error)) from error
        context.note(
            f"{bad} damaged line(s) of {IMAGES} were left out; the damaged file is "
            f"kept as {aside.name}."
        )
    if lost or bad:
        images.add_lost(lost)
    if lost:
        context.note(
            f"{len(lost)} image(s) are known by their labels alone. Show the project "
            "the folder of its images to find them again."
        )


def _clean(folder: Path) -> None:
    """Delete temporary files that a crash left. Only while holding the lock."""
    places = [folder, folder / DRAFTS, folder / MODELS]
    with contextlib.suppress(OSError):
        for path in (folder / LABELS).iterdir():
            if path.is_dir() and not path.is_symlink():
                places += [path, path / OLDER]
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as found:
            for entry in found:
                start, end = TEMPORARY_PREFIX, TEMPORARY_SUFFIX
                if entry.name.startswith(start) and entry.name.endswith(end):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108
