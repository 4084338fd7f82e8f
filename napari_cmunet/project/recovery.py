"""Open a project: lock it, read its files, repair what a crash left.

The labels on the disk are the truth; the journal is brought up to them. Repeating the
repair changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass
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
    REVIEWS,
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
from napari_cmunet.project.flags import FlagTable
from napari_cmunet.project.image_records import read_records
from napari_cmunet.project.images import ProjectImages
from napari_cmunet.project.journal import Journal, JournalState, replay
from napari_cmunet.project.labels.labels import ProjectLabels
from napari_cmunet.project.lock import Lock, ProjectContext
from napari_cmunet.project.models.history import ModelHistory
from napari_cmunet.project.models.models import ProjectModels
from napari_cmunet.project.patients import Split
from napari_cmunet.project.readers.readers import (
    FIRST_READER,
    REVIEWER,
    reader_root,
    readers_on_disk,
)
from napari_cmunet.project.readers.reference import ReviewTable
from napari_cmunet.project.settings import (
    Settings,
    load_settings,
    read_identity,
    salvage_identity,
)
from napari_cmunet.util.safe_files import (
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    write_errors,
)
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_cmunet.project.files import FrameKey


@dataclass
class ProjectParts:
    """The parts of an open project."""

    context: ProjectContext
    images: ProjectImages
    split: Split
    reader: str
    labels: dict[str, ProjectLabels]  # by the code of the reader
    reviews: ReviewTable
    models: ProjectModels
    flags: FlagTable
    settings: tuple[Settings, dict[str, Any]]
    position: FrameKey


def open_parts(
    folder: Path,
    *,
    user: str,
    reader: str,
    read_only: bool,
    break_lock: bool,
    salvage: bool,
) -> ProjectParts:
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
        # A further reader is known by the code alone.
        known = user if reader in (FIRST_READER, REVIEWER) else ""
        journal = Journal(inside(folder, JOURNAL), known)
        context = ProjectContext(folder, identity, journal, lock)
        context.notices += notices
        return _read(context, reader, salvage)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _read(context: ProjectContext, reader: str, salvage: bool) -> ProjectParts:
    folder, journal = context.folder, context.journal
    writable = not context.read_only
    repaired = writable and journal.repair()
    state = replay(journal.entries())
    images = ProjectImages(context)
    bad = images.load(salvage=salvage)
    root = reader_root(folder, reader)
    flags = FlagTable(project_file(root, FLAGS))
    split = Split(inside(folder, SPLIT), context.identity.salt)
    models = ProjectModels(context)
    reviews = ReviewTable(inside(folder, REVIEWS))
    codes = dict.fromkeys((FIRST_READER, *readers_on_disk(folder), reader))
    labels = {code: ProjectLabels(context, images, split, code) for code in codes}
    if writable:
        for one in labels.values():
            _clean(one.root)
        models.clean()
        if not state.lines:
            journal.append("created")
        if repaired:
            journal.append("journal_repaired")
    if _is_damaged(context, flags.path, flags.load):
        flags.recall(state.flags[reader])
        if writable:
            _try(context, flags.save)
    path = inside(folder, SETTINGS)
    settings: tuple[Settings, dict[str, Any]] = (Settings(), {})
    with contextlib.suppress(ProjectDamagedError):
        settings = load_settings(path)
    _is_damaged(context, path, lambda: load_settings(path))
    if _is_damaged(context, reviews.path, reviews.load):
        reviews.recall(state.rejected)
        if writable:
            _try(context, reviews.save)
    for one in labels.values():
        one.load()
    if writable:
        for code in dict.fromkeys((*labels, *state.labels)):
            one = labels.get(code) or ProjectLabels(context, images, split, code)
            _recover_labels(context, one, state.labels[code], images)
            for key in sorted(one.keys()):
                sha256 = one.hash(*key)
                if reviews.rejection(sha256) and sha256 not in state.rejected:
                    one.journal("rejected", *key, sha256=sha256)
        _try(context, lambda: _recover_models(context, models, state))
    else:
        try:
            models.load()
        except ProjectDamagedError:
            models.history = state.history
    if salvage:
        _salvage_images(context, images, labels.values(), bad)
    if _is_damaged(context, split.path, split.load):
        split.recall(state.sides)
        if writable:
            _try(context, split.save)
    if writable:
        _try(context, lambda: _assign(context, split, images, labels.values()))
    return ProjectParts(
        context,
        images,
        split,
        reader,
        labels,
        reviews,
        models,
        flags,
        settings,
        _position(root),
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
    context: ProjectContext,
    split: Split,
    images: ProjectImages,
    labels: Iterable[ProjectLabels],
) -> None:
    """Assign a side to every labelled patient, in the order of the images."""
    labelled = {image for one in labels for image, _ in one.keys()}
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
            labels.journal("label_recovered", image, frame, sha256=sha256)
    missing = 0
    for (image, frame), sha256 in said.items():
        if (image, frame) in keys:
            continue
        if any(older.sha256() == sha256 for older in labels.older(image, frame)):
            details = {"sha256": sha256, "recovered": True}
            labels.journal("withdrawn", image, frame, **details)
        else:
            labels.journal("label_missing", image, frame)
            missing += 1
    if missing:
        context.note(
            f"{counted(missing, 'label')} in the journal, but missing from the "
            "project's folder. Unless you removed them, look for them in a backup."
        )
    stray = {image for image, _ in keys if image not in images}
    if stray:
        context.note(
            f"{counted(len(stray), 'image')} with labels but not in the list of images."
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
    context: ProjectContext,
    images: ProjectImages,
    labels: Iterable[ProjectLabels],
    bad: int,
) -> None:
    """List again the images of which only labels are left."""
    lost: dict[str, str | None] = {}
    for one, (image, frame) in ((x, key) for x in labels for key in sorted(x.keys())):
        if image not in images:
            lost.setdefault(image, None)
            with contextlib.suppress(ReadError, ProjectError):
                label = one.get(image, frame)
                if label is not None:
                    lost[image] = label.provenance.source_sha256 or lost[image]
    if bad:
        path = inside(context.folder, IMAGES)
        aside = path.with_name(f"{IMAGES}.damaged-{secrets.token_hex(4)}")
        with write_errors(aside):
            shutil.copyfile(path, aside)
        context.note(
            f"{counted(bad, 'damaged line')} of {IMAGES} left out; the damaged file is "
            f"kept as {aside.name}."
        )
    if lost or bad:
        images.add_lost(lost)
    if lost:
        context.note(
            f"{counted(len(lost), 'image')} known by labels alone. Show the project "
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
