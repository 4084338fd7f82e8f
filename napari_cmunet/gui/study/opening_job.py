"""Making and opening studies, as work for a worker: no widget, no layer."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.core.models import DEFAULT_MODEL
from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.study.overview import Overview, look
from napari_cmunet.study.recent import note_recent
from napari_cmunet.study.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.study.labels import Key
    from napari_cmunet.study.patients import PatientRule


@dataclass(frozen=True)
class NewStudy:
    """What a study is made from.

    Parameters
    ----------
    folder : Path
        Of the study.
    inputs : tuple of Path
        Folders and files of angiograms.
    patient_of : callable or None
        Tells which images are of one patient.
    model : str
        Name of the installed model that pre-segments at first.
    """

    folder: Path
    inputs: tuple[Path, ...]
    patient_of: PatientRule | None = None
    model: str = DEFAULT_MODEL


@dataclass(frozen=True)
class OpenedStudy:
    """An open study, and what the window shows first.

    Parameters
    ----------
    study : Study
    overview : Overview
    model : str
        Name of the model in use, or its folder; empty if it cannot be used.
    first : (str, int or None) or None
        Image and frame to begin with.
    missing : tuple of str
        Images that are not where the study looks for them.
    notices : tuple of str
        What the reader should be told.
    """

    study: Study
    overview: Overview
    model: str
    first: tuple[str, int | None] | None
    missing: tuple[str, ...]
    notices: tuple[str, ...]


def reader_name() -> str:
    """Who works, for the journal: the account's name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def create_study(new: NewStudy, should_stop: Callable[[], bool]) -> OpenedStudy:
    """Make a study and add its images.

    Raises
    ------
    Cancelled
        The folder then holds a study without images.
    StudyError, WriteError
    """
    study = Study.create(new.folder, user=reader_name())
    try:
        # Nearer to the goal than cmunet-ssl, while labels and time are few.
        study.change_settings(start=DEFAULT_MODEL)
        added = study.images.add(new.inputs, new.patient_of, should_stop)
        notices = list(added.problems[:3])
        if len(added.problems) > 3:
            notices.append(f"And {len(added.problems) - 3} more files were not added.")
        if new.model != DEFAULT_MODEL:
            try:
                study.models.promote(new.model, installed=True, reason="chosen")
            except CMUNetError as error:
                notices.append(str(error))
        return survey(study, tuple(notices))
    except BaseException:
        study.close()
        raise


def open_study(
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    read_only: bool = False,
    take_over: bool = False,
    salvage: bool = False,
) -> OpenedStudy:
    """Open a study; see :meth:`Study.open`."""
    study = Study.open(
        folder,
        user=reader_name(),
        read_only=read_only,
        break_lock=take_over,
        salvage=salvage,
    )
    try:
        if should_stop():
            raise Cancelled
        return survey(study)
    except BaseException:
        study.close()
        raise


def survey(study: Study, notices: tuple[str, ...] = ()) -> OpenedStudy:
    """Look at all that the window shows first."""
    model, problem = model_in_use(study)
    position: Key | None = study.position
    first: tuple[str, int | None] | None = position
    if first is None:
        unlabelled = study.next_image()
        ids = study.images.ids()
        first = (unlabelled, None) if unlabelled else (ids[0], None) if ids else None
    note_recent(study.folder)
    return OpenedStudy(
        study,
        look(study),
        model,
        first,
        tuple(study.images.missing()),
        (*notices, *((problem,) if problem else ()), *study.take_notices()),
    )


def model_in_use(study: Study) -> tuple[str, str]:
    """Name or folder of the model that a study uses, or what is wrong with it."""
    version = study.models.current
    try:
        folder = study.models.folder(version)
    except CMUNetError as error:
        return "", str(error)
    return (version.name if version.installed else str(folder)), ""
