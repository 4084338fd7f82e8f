"""Making and opening projects, as work for a worker: no widget, no layer."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.project.workspace import Overview, look
from napari_cmunet.model.registry import DEFAULT_MODEL
from napari_cmunet.project.project import Project
from napari_cmunet.project.settings import note_recent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.patients import PatientRule


@dataclass(frozen=True)
class NewProject:
    """What a project is made from.

    Parameters
    ----------
    folder : Path
        Of the project.
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
class OpenedProject:
    """An open project, and what the window shows first.

    Parameters
    ----------
    model : str
        Name of the model in use, or its folder; empty if it cannot be used.
    first : (str, int or None) or None
        Image and frame to begin with.
    missing : tuple of str
        Images that are not where the project looks for them.
    notices : tuple of str
        What the user should know.
    """

    project: Project
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


def create_project(new: NewProject, should_stop: Callable[[], bool]) -> OpenedProject:
    """Make a project and add its images.

    Raises
    ------
    Cancelled
        The folder then holds a project without images.
    ProjectError, WriteError
    """
    project = Project.create(new.folder, user=reader_name())
    try:
        # Nearer to the goal than cmunet-ssl, while labels and time are few.
        project.change_settings(start=DEFAULT_MODEL)
        added = project.images.add(new.inputs, new.patient_of, should_stop)
        notices = list(added.problems[:3])
        if len(added.problems) > 3:
            notices.append(f"And {len(added.problems) - 3} more files were not added.")
        if new.model != DEFAULT_MODEL:
            try:
                project.models.promote(new.model, installed=True, reason="chosen")
            except CMUNetError as error:
                notices.append(str(error))
        return survey(project, tuple(notices))
    except BaseException:
        project.close()
        raise


def open_project(
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    read_only: bool = False,
    take_over: bool = False,
    salvage: bool = False,
) -> OpenedProject:
    """Open a project; see :meth:`Project.open`."""
    project = Project.open(
        folder,
        user=reader_name(),
        read_only=read_only,
        break_lock=take_over,
        salvage=salvage,
    )
    try:
        if should_stop():
            raise Cancelled
        return survey(project)
    except BaseException:
        project.close()
        raise


def survey(project: Project, notices: tuple[str, ...] = ()) -> OpenedProject:
    """Look at all that the window shows first."""
    model, problem = model_in_use(project)
    position: FrameKey | None = project.position
    first: tuple[str, int | None] | None = position
    if first is None:
        unlabelled = project.next_image()
        ids = project.images.ids()
        first = (unlabelled, None) if unlabelled else (ids[0], None) if ids else None
    note_recent(project.folder)
    return OpenedProject(
        project,
        look(project),
        model,
        first,
        tuple(project.images.missing()),
        (*notices, *((problem,) if problem else ()), *project.take_notices()),
    )


def model_in_use(project: Project) -> tuple[str, str]:
    """Name or folder of the model that a project uses, or what is wrong with it."""
    version = project.models.current
    try:
        folder = project.models.folder(version)
    except CMUNetError as error:
        return "", str(error)
    return (version.name if version.installed else str(folder)), ""
