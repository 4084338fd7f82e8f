"""What the parts of a project session share: the project, its overview, the writer.

Projects are opened and made here, as work for a worker: no widget, no layer.
"""

from __future__ import annotations

import getpass
import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.project.alerts import Messages
from napari_cmunet.model.registry import DEFAULT_MODEL
from napari_cmunet.project.annotation_time import AnnotationTime, annotation_time_of
from napari_cmunet.project.flags import ImageStatus, ProjectProgress
from napari_cmunet.project.models.history import ModelHistory
from napari_cmunet.project.project import Project
from napari_cmunet.project.readers.agreement import find_disagreement
from napari_cmunet.project.readers.readers import (
    FIRST_READER,
    REVIEWER,
    KnownReaders,
    known_readers,
)
from napari_cmunet.project.settings import note_recent, read_identity
from napari_cmunet.util.text import some_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.project.patients import PatientRule

logger = logging.getLogger(__name__)

_UNKNOWN = ImageStatus("unseen", (), False, "")


@dataclass(frozen=True)
class Overview:
    """Progress of a project, as one value that is shown without reading the disk."""

    ids: tuple[str, ...] = ()  # the images in their order
    #: What an image is called in the window.
    names: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, ImageStatus] = field(default_factory=dict)
    progress: ProjectProgress = field(
        default_factory=lambda: ProjectProgress(0, 0, 0, 0)
    )
    readers: KnownReaders = field(default_factory=KnownReaders)
    #: What the labels have cost so far.
    annotation_time: AnnotationTime = field(default_factory=AnnotationTime)

    def name(self, image: str) -> str:
        """Name of an image in the window."""
        return self.names.get(image, image)

    def status(self, image: str) -> ImageStatus:
        """State of an image."""
        return self.statuses.get(image, _UNKNOWN)

    def after(self, change: Change) -> Overview:
        """Apply a change of one image."""
        statuses = self.statuses | {change.image: change.status}
        return replace(self, statuses=statuses, progress=change.progress)

    def number(self, image: str) -> int:
        """Position of an image in the project, from 1; 0 if it is not in it."""
        return self.ids.index(image) + 1 if image in self.ids else 0


def read_overview(project: Project) -> Overview:
    """Read the overview of a project. Runs in the writer thread."""
    records = list(project.images)
    ids = tuple(record.id for record in records)
    paths = {r.id: PurePosixPath(r.path or r.id) for r in records}
    stems = Counter(path.stem for path in paths.values())
    names = {
        image: path.stem if stems[path.stem] == 1 else str(path.with_suffix(""))
        for image, path in paths.items()
    }
    statuses = {image: project.status(image) for image in ids}
    annotation_time = annotation_time_of(project.journal(), project.reader)
    readers = known_readers(project.id)
    return Overview(ids, names, statuses, project.progress(), readers, annotation_time)


@dataclass(frozen=True)
class Change:
    """State of one image after a change, with the progress of the project."""

    image: str
    status: ImageStatus
    progress: ProjectProgress


def read_change(project: Project, image: str) -> Change:
    """Read the state of one image. Runs in the writer thread."""
    return Change(image, project.status(image), project.progress())


@dataclass(frozen=True)
class NewProject:
    """What a project is made from."""

    folder: Path  # of the project
    inputs: tuple[Path, ...]  # folders and files of angiograms
    patient_of: PatientRule | None = None  # tells which images are of one patient
    model: str = DEFAULT_MODEL  # name of the installed model that pre-segments at first


@dataclass(frozen=True)
class OpenedProject:
    """An open project, and what the window shows first."""

    project: Project
    overview: Overview
    model: str  # name of the model in use, or its folder; empty if it cannot be used
    first: tuple[str, int | None] | None  # image and frame to begin with
    missing: tuple[str, ...]  # images that are not where the project looks for them
    notices: tuple[str, ...]  # what the user should know


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
        project.change_settings(start=DEFAULT_MODEL, adapt=True)
        added = project.images.add(new.inputs, new.patient_of, should_stop)
        notices = [some_of(added.problems)] if added.problems else []
        if new.model != DEFAULT_MODEL:
            try:
                project.models.promote(new.model, installed=True, reason="chosen")
            except CMUNetError as error:
                notices.append(str(error))
        return describe_opened(project, tuple(notices))
    except BaseException:
        project.close()
        raise


def open_project(
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    reader: str | None = None,
    read_only: bool = False,
    take_over: bool = False,
    salvage: bool = False,
) -> OpenedProject:
    """Open a project, for who read it last by default; see :meth:`Project.open`."""
    if reader is None:
        with suppress(CMUNetError):
            reader = known_readers(read_identity(folder).id).current
    project = Project.open(
        folder,
        user=reader_name(),
        reader=reader or FIRST_READER,
        read_only=read_only,
        break_lock=take_over,
        salvage=salvage,
    )
    try:
        if should_stop():
            raise Cancelled
        if project.reader == REVIEWER:
            find_disagreement(project, should_stop)
        return describe_opened(project)
    except BaseException:
        project.close()
        raise


def describe_opened(project: Project, notices: tuple[str, ...] = ()) -> OpenedProject:
    """Look at all that the window shows first."""
    model, problem = model_in_use(project)
    first: tuple[str, int | None] | None = project.position
    if first is None:
        unlabelled = project.next_image()
        ids = project.images.ids()
        first = (unlabelled, None) if unlabelled else (ids[0], None) if ids else None
    note_recent(project.folder)
    return OpenedProject(
        project,
        read_overview(project),
        model,
        first,
        tuple(project.images.missing()),
        (*notices, *((problem,) if problem else ()), *project.take_notices()),
    )


def model_in_use(project: Project) -> tuple[str, str]:
    """Name or folder of the model that a project uses, or what is wrong with it."""
    version = project.models.current
    if project.is_blind and not version.installed:
        known = (*ModelHistory().versions, *project.models.history.versions)
        version = [v for v in known if v.installed][-1]
    try:
        folder = project.models.folder(version)
    except CMUNetError as error:
        return "", str(error)
    return (version.name if version.installed else str(folder)), ""


class ProjectWriter(QObject):
    """Runs short functions on a project in order, in one thread.

    napari's workers keep no order and do not start any more when the program ends;
    everything in this queue is still written then.
    """

    _done = QtSignal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cmunet-project")
        self._waiting = 0
        self._done.connect(self._on_done)

    @property
    def idle(self) -> bool:
        """Whether the queue is empty and every callback was called."""
        return self._waiting == 0

    def submit(
        self,
        act: Callable[[], Any],
        then: Callable[[Any], object] | None = None,
        failed: Callable[[str], None] | None = None,
    ) -> Future:
        """Run a function after those submitted before.

        Parameters
        ----------
        act : callable
            Runs in the writer thread.
        then : callable, optional
            Called with the result on the GUI thread.
        failed : callable, optional
            Called with an error message on the GUI thread.
        """
        self._waiting += 1
        future = self._pool.submit(_attempt, act)
        future.add_done_callback(lambda f: self._notify(f, then, failed))
        return future

    def _notify(self, future: Future, then: Any, failed: Any) -> None:
        with suppress(RuntimeError):  # Qt has gone: the program ends
            self._done.emit(future, (then, failed))

    def _on_done(self, future: Future, listeners: tuple[Any, Any]) -> None:
        self._waiting -= 1
        then, failed = listeners
        result, problem = future.result()
        if problem and failed is not None:
            failed(problem)
        elif not problem and then is not None:
            then(result)

    def wait_for(self, future: Future, seconds: float) -> bool:
        """Wait for a submitted function; return False if it takes longer."""
        try:
            future.result(seconds)
        except FutureTimeoutError:
            return False
        return True

    def close(self) -> None:
        """Run what is left in the queue, then stop the thread."""
        self._pool.shutdown(wait=True)


def _attempt(act: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return act(), ""
    except CMUNetError as error:
        return None, str(error)
    except Exception as error:
        logger.exception("A project could not be written to")
        return None, f"An unexpected error ({error}). Help > Show logs has the details."


class Workspace:
    """State of a project session. Its parts hold this, and not the session."""

    #: Something that the window shows has changed.
    changed = Signal()

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.project: Project | None = None
        self.overview = Overview()
        self.writer = ProjectWriter()
        self.messages = Messages()
        self.messages.changed.connect(self.changed.emit)

    @property
    def writable(self) -> Project | None:
        """The open project, unless it is open for reading only."""
        project = self.project
        return None if project is None or project.read_only else project

    def set_project(self, project: Project | None, overview: Overview) -> None:
        """Replace the open project."""
        self.project, self.overview = project, overview

    def apply(self, change: Change) -> None:
        """Update the overview after a change of one image."""
        self.set_overview(self.overview.after(change))

    def set_overview(self, overview: Overview) -> None:
        """Replace the overview, and have it shown."""
        self.overview = overview
        self.changed.emit()

    def set_annotation_time(self, time: AnnotationTime) -> None:
        """Update the annotation time after a label or a training."""
        self.set_overview(replace(self.overview, annotation_time=time))
