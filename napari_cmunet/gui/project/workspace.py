"""What the parts of a project session share: the project, its overview, the writer."""

from __future__ import annotations

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

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.project.alerts import Messages
from napari_cmunet.project.annotation_time import AnnotationTime, annotation_time_of
from napari_cmunet.project.flags import ImageStatus, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.project.project import Project

logger = logging.getLogger(__name__)

_UNKNOWN = ImageStatus("unseen", (), False, "")


@dataclass(frozen=True)
class Overview:
    """Progress of a project, as one value that is shown without reading the disk.

    Parameters
    ----------
    ids : tuple of str
        The images in their order.
    names : dict of str to str
        What an image is called in the window.
    annotation_time : AnnotationTime
        What the labels have cost so far.
    """

    ids: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, ImageStatus] = field(default_factory=dict)
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))
    annotation_time: AnnotationTime = field(default_factory=AnnotationTime)

    def name(self, image: str) -> str:
        """Name of an image in the window."""
        return self.names.get(image, image)

    def status(self, image: str) -> ImageStatus:
        """State of an image."""
        return self.statuses.get(image, _UNKNOWN)

    def number(self, image: str) -> int:
        """Position of an image in the project, from 1; 0 if it is not in it."""
        return self.ids.index(image) + 1 if image in self.ids else 0

    def after(self, change: Change) -> Overview:
        """Apply a change of one image."""
        statuses = self.statuses | {change.image: change.status}
        return replace(self, statuses=statuses, progress=change.progress)


def look(project: Project) -> Overview:
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
    annotation_time = annotation_time_of(project.journal())
    return Overview(ids, names, statuses, project.progress(), annotation_time)


@dataclass(frozen=True)
class Change:
    """State of one image after a change, with the progress of the project."""

    image: str
    status: ImageStatus
    progress: Progress


def look_at(project: Project, image: str) -> Change:
    """Read the state of one image. Runs in the writer thread."""
    return Change(image, project.status(image), project.progress())


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
        self.overview = self.overview.after(change)
        self.changed.emit()

    def set_overview(self, overview: Overview) -> None:
        """Replace the overview, after images were added."""
        self.overview = overview
        self.changed.emit()

    def set_annotation_time(self, time: AnnotationTime) -> None:
        """Update the annotation time after a label or a training."""
        self.overview = replace(self.overview, annotation_time=time)
        self.changed.emit()
