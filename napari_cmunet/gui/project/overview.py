"""Progress of a project, as one value that the window shows without reading the disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from napari_cmunet.project.annotation_time import AnnotationTime, annotation_time_of
from napari_cmunet.project.flags import ImageStatus, Progress

if TYPE_CHECKING:
    from napari_cmunet.project.project import Project

_UNKNOWN = ImageStatus("unseen", (), False, "")


@dataclass(frozen=True)
class Overview:
    """A project as it was a moment ago.

    Parameters
    ----------
    ids : tuple of str
        The images in their order.
    names : dict of str to str
        What an image is called in the window.
    statuses : dict of str to ImageStatus
    progress : Progress
    effort : AnnotationTime
        What the labels have cost so far.
    """

    ids: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, ImageStatus] = field(default_factory=dict)
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))
    effort: AnnotationTime = field(default_factory=AnnotationTime)

    def name(self, image: str) -> str:
        """What an image is called."""
        return self.names.get(image, image)

    def status(self, image: str) -> ImageStatus:
        """How far an image is."""
        return self.statuses.get(image, _UNKNOWN)

    def number(self, image: str) -> int:
        """Its place in the project, from 1; 0 if it is not in it."""
        return self.ids.index(image) + 1 if image in self.ids else 0

    def after(self, change: Change) -> Overview:
        """The project after an act on one image."""
        statuses = self.statuses | {change.image: change.status}
        return replace(self, statuses=statuses, progress=change.progress)


def look(project: Project) -> Overview:
    """Take stock of a project. For the writer's thread."""
    records = list(project.images)
    ids = tuple(record.id for record in records)
    paths = {r.id: PurePosixPath(r.path or r.id) for r in records}
    stems = Counter(path.stem for path in paths.values())
    names = {
        image: path.stem if stems[path.stem] == 1 else str(path.with_suffix(""))
        for image, path in paths.items()
    }
    statuses = {image: project.status(image) for image in ids}
    effort = annotation_time_of(project.journal())
    return Overview(ids, names, statuses, project.progress(), effort)


@dataclass(frozen=True)
class Change:
    """What an act on one image has changed."""

    image: str
    status: ImageStatus
    progress: Progress


def look_at(project: Project, image: str) -> Change:
    """Take stock after an act on one image. For the writer's thread."""
    return Change(image, project.status(image), project.progress())
