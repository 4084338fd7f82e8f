"""Opening a project: reading its files, locking it, putting it in order."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.label_file import read_label
from napari_cmunet.project.errors import ProjectDamagedError, ProjectError
from napari_cmunet.project.files import (
    IMAGES,
    JOURNAL,
    LOCK,
    MARKS,
    POSITION,
    PROJECT,
    SETTINGS,
    SPLIT,
    inside,
    is_image_id,
    read_json,
    set_aside,
)
from napari_cmunet.project.flags import FlagTable
from napari_cmunet.project.image_table import ImageTable
from napari_cmunet.project.images import ProjectImages
from napari_cmunet.project.journal import Journal
from napari_cmunet.project.label_store import FrameKey, LabelStore
from napari_cmunet.project.models import ProjectModels
from napari_cmunet.project.recovery import (
    JournalState,
    clean,
    recover_labels,
    recover_models,
    replay,
    scan_labels,
)
from napari_cmunet.project.session import (
    Session,
    read_identity,
    salvage_identity,
    take_lock,
)
from napari_cmunet.project.settings import Settings, load_settings
from napari_cmunet.project.split import Split
from napari_cmunet.util.atomic import TEMPORARY_PREFIX, write_reason

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Opened:
    """The parts of a project that was opened."""

    session: Session
    images: ProjectImages
    models: ProjectModels
    marks: FlagTable
    split: Split
    settings: tuple[Settings, dict[str, Any]]
    position: FrameKey
    labels: dict[FrameKey, str]


def open_project(
    folder: Path, *, user: str, read_only: bool, break_lock: bool, salvage: bool
) -> Opened:
    """See :meth:`napari_cmunet.project.project.Project.open`."""
    folder = Path(folder).absolute()
    salvage = salvage and not read_only
    # First without the lock: what a newer program wrote is not touched at all.
    notices = []
    try:
        identity = read_identity(folder)
    except ProjectDamagedError:
        if not salvage or not (folder / PROJECT).is_file():
            raise
    ImageTable(inside(folder, IMAGES)).load(salvage=salvage)
    lock = None if read_only else take_lock(folder, take_over=break_lock)
    try:
        if salvage:
            try:
                identity = read_identity(folder)
            except ProjectDamagedError:
                notices.append(salvage_identity(folder))
                identity = read_identity(folder)
        journal = Journal(inside(folder, JOURNAL), user)
        session = Session(folder, identity, journal, lock)
        session.notices += notices
        return _read(session, salvage)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _read(session: Session, salvage: bool) -> Opened:
    folder, journal = session.folder, session.journal
    writable = not session.read_only
    repaired = writable and journal.repair()
    said = replay(journal.entries())
    images = ProjectImages(session)
    bad = images.load(salvage=salvage)
    marks = FlagTable(inside(folder, MARKS))
    split = Split(inside(folder, SPLIT), session.identity.salt)
    models = ProjectModels(session)
    store = LabelStore(folder)
    if writable:
        clean(folder)
        models.store.clean()
        if not said.lines:
            journal.append("created")
        if repaired:
            journal.append("journal_repaired")
    damaged = _reader(session)
    if damaged(MARKS, marks.load):
        marks.recall(said.marks)
        if writable:
            _try(session, marks.save)
    settings = (Settings(), {})
    with contextlib.suppress(ProjectDamagedError):
        settings = load_settings(inside(folder, SETTINGS))
    damaged(SETTINGS, lambda: load_settings(inside(folder, SETTINGS)))
    if writable:
        labels, found = recover_labels(store, journal, said.labels, set(images.ids()))
        session.notices += found
        _try(session, lambda: _recover_models(session, models, said))
    else:
        labels = scan_labels(store)
        _read_models(models, said)
    if salvage:
        _salvage_images(session, images, labels, bad)
    if damaged(SPLIT, split.load):
        split.recall(said.sides)
        if writable:
            _try(session, split.save)
    if writable:
        _try(session, lambda: _assign(session, split, images, labels))
    return Opened(
        session,
        images,
        models,
        marks,
        split,
        settings,
        _position(folder),
        labels,
    )


def _reader(session: Session) -> Callable[[str, Callable[[], object]], bool]:
    def damaged(name: str, load: Callable[[], object]) -> bool:
        """Read a file that can be done without; a damaged one is kept aside."""
        try:
            load()
        except ProjectDamagedError as error:
            aside = ""
            if not session.read_only:
                with contextlib.suppress(WriteError):
                    aside = f" It is kept as {set_aside(session.folder / name)}."
            session.note(f"{error} It was made anew from the journal.{aside}")
            return True
        return False

    return damaged


def _try(session: Session, act: Callable[[], object]) -> None:
    """Put something in order, or leave it for the next time: the disk may be full."""
    try:
        act()
    except WriteError as error:
        session.note(f"A file of the project could not be put in order: {error.reason}")


def _recover_models(
    session: Session, models: ProjectModels, said: JournalState
) -> None:
    session.notices += recover_models(models.store, session.journal, said)
    models.recover(said.trained)


def _read_models(models: ProjectModels, said: JournalState) -> None:
    try:
        models.store.load()
    except ProjectDamagedError:
        models.store.history = said.history


def _assign(
    session: Session, split: Split, images: ProjectImages, labels: dict[FrameKey, str]
) -> None:
    """Give every labelled patient a side, in the order of the images."""
    labelled = {image for image, _ in labels}
    patients = [r.patient for r in images if r.id in labelled]
    for patient, side in split.assign(patients).items():
        session.journal.append("patient_assigned", patient=patient, side=side)


def _salvage_images(
    session: Session, images: ProjectImages, labels: dict[FrameKey, str], bad: int
) -> None:
    """List again what only labels are left of."""
    store = LabelStore(session.folder)
    lost: dict[str, str | None] = {}
    for image, frame in labels:
        if image not in images:
            lost.setdefault(image, None)
            with contextlib.suppress(ReadError, ProjectError):
                label = read_label(store.path(image, frame))
                lost[image] = label.provenance.source_sha256 or lost[image]
    if bad:
        path = inside(session.folder, IMAGES)
        aside = path.with_name(f"{IMAGES}.damaged-{secrets.token_hex(4)}")
        try:
            shutil.copyfile(path, aside)
        except OSError as error:
            raise WriteError(aside, write_reason(error)) from error
        session.note(
            f"{bad} damaged line(s) of {IMAGES} were left out; the damaged file is "
            f"kept as {aside.name}."
        )
    if lost or bad:
        images.add_lost(lost)
    if lost:
        session.note(
            f"{len(lost)} image(s) are known by their labels alone. Show the project the "
            "folder of its images to find them again."
        )


def _position(folder: Path) -> FrameKey:
    with contextlib.suppress(ProjectError):
        values = read_json(inside(folder, POSITION)) or {}
        image, frame = values.get("image"), values.get("frame")
        if is_image_id(image) and type(frame) is int and frame >= 0:
            return image, frame
    return "", 0


def copy_project(folder: Path, target: Path) -> None:
    """Copy a project to a folder that is not there yet, whole or not at all."""
    target = Path(target).absolute()
    if target.exists():
        raise ProjectError(f"'{target.name}' is there already. Choose a new folder.")
    if target.is_relative_to(folder):
        raise ProjectError("A project cannot be copied into itself.")
    partial = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")

    def left_out(_: str, names: list[str]) -> list[str]:
        return [n for n in names if n == LOCK or n.startswith((TEMPORARY_PREFIX, "."))]

    try:
        shutil.copytree(folder, partial, symlinks=True, ignore=left_out)
        partial.rename(target)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = write_reason(error) if error.errno else "some files were not copied."
        raise WriteError(target, reason) from error
