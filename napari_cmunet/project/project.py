"""A project: a folder that holds a reader's work, and everything done with it.

Its parts: ``images`` (which there are and where they lie), ``labels``, ``drafts``,
``models`` (which one is in use); here, the marks and the way through. Every act is on
the disk when its method returns. Methods may be called from any thread; those that say
so take their time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import CMUNetError, WriteError
from napari_cmunet.model.card import read_card
from napari_cmunet.project.active_learning import (
    LISTED,
    UNSURE,
    AcquisitionScores,
    choose_next,
)
from napari_cmunet.project.drafts import ProjectDrafts
from napari_cmunet.project.errors import ProjectError
from napari_cmunet.project.files import GAINS, POSITION, SETTINGS, inside, write_json
from napari_cmunet.project.flags import MAX_COMMENT
from napari_cmunet.project.labels import ProjectLabels
from napari_cmunet.project.opening import Opened, copy_project, open_project
from napari_cmunet.project.session import new_identity
from napari_cmunet.project.settings import save_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_cmunet.project.flags import ImageFlags
    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.label_store import FrameKey
    from napari_cmunet.project.models import ProjectModels
    from napari_cmunet.project.settings import Settings


@dataclass(frozen=True)
class ImageStatus:
    """How far an image is: ``labelled``, ``skipped`` or ``unseen``."""

    state: str
    frames: tuple[int, ...]  # those with a label
    flagged: bool
    comment: str


@dataclass(frozen=True)
class Progress:
    """How far the project is, in images; ``str()`` is for people."""

    images: int
    labelled: int
    skipped: int
    flagged: int
    frames: int = field(default=0)  # labelled frames
    patients: int = field(default=0)  # with a label

    @property
    def left(self) -> int:
        """Images that have no label and are not skipped."""
        return self.images - self.labelled - self.skipped

    def __str__(self) -> str:
        parts = [f"{self.labelled} of {self.images}"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"{self.flagged} flagged"] if self.flagged else []
        return ", ".join(parts)


class Project:
    """An open project; use :meth:`create` or :meth:`open`.

    Parameters
    ----------
    opened : Opened
    """

    def __init__(self, opened: Opened) -> None:
        self._session = opened.session
        self._marks = opened.marks
        self._settings, self._settings_file = opened.settings
        self._position = opened.position
        self.images: ProjectImages = opened.images
        self.labels = ProjectLabels(
            self._session, self.images, opened.split, opened.labels
        )
        self.drafts = ProjectDrafts(self._session, self.images, self.labels)
        self.models: ProjectModels = opened.models
        self._gains = AcquisitionScores(inside(self.folder, GAINS))
        self._bundled: dict[str, str] = {}

    @classmethod
    def create(cls, folder: Path, *, user: str = "") -> Project:
        """Make a folder a project and open it.

        Images may lie in the folder already; they are not added by this.

        Raises
        ------
        ProjectError
            If the folder is a project already.
        WriteError
        """
        new_identity(folder)
        return cls.open(folder, user=user)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        user: str = "",
        read_only: bool = False,
        break_lock: bool = False,
        salvage: bool = False,
    ) -> Project:
        """Open a project and put in order what a crash left. Takes its time.

        Parameters
        ----------
        folder : Path
        user : str
            Who works, for the journal; may be empty.
        read_only : bool
            Write nothing; possible while another program has the project open.
        break_lock : bool
            Take the project over from another program, which can then write no more.
        salvage : bool
            If ``project.json`` or ``images.jsonl`` is damaged, keep it under another
            name and go on with what can be understood.

        Raises
        ------
        ReadError
            If the folder is no project.
        ProjectLockedError, ProjectDamagedError, ProjectVersionError, WriteError
        """
        return cls(
            open_project(
                folder,
                user=user,
                read_only=read_only,
                break_lock=break_lock,
                salvage=salvage,
            )
        )

    def close(self) -> None:
        """Let the project go; twice is once."""
        self.images.save()
        self._session.close()

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def copy_to(self, folder: Path) -> None:
        """Copy the project to a new folder. Takes its time; raises WriteError."""
        with self._session.reading():
            self.images.save()
            copy_project(self.folder, folder)

    @property
    def folder(self) -> Path:
        """Where the project is."""
        return self._session.folder

    @property
    def id(self) -> str:
        """32 hexadecimal digits; a copy has the same."""
        return self._session.identity.id

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed."""
        return self._session.read_only

    def take_notices(self) -> list[str]:
        """What the reader should be told since the last call."""
        notices, self._session.notices[:] = list(self._session.notices), []
        return notices

    # -- marks and the way through -------------------------------------------

    def flags_of(self, image: str) -> ImageFlags:
        """What is noted about an image."""
        return self._marks[image]

    def skip(self, image: str, skipped: bool = True) -> None:
        """Pass an image over from now on, or no more; raises WriteError."""
        self._change(image, "skipped" if skipped else "unskipped", skipped=skipped)

    def flag(self, image: str, flagged: bool = True) -> None:
        """Flag an image for a second look, or no more; raises WriteError."""
        self._change(image, "flagged" if flagged else "unflagged", flagged=flagged)

    def comment(self, image: str, text: str) -> None:
        """Note something about an image; it stays in the project. Raises WriteError."""
        self._change(image, "commented", comment=text[:MAX_COMMENT])

    def _change(self, image: str, what: str, **changes: Any) -> None:
        self.images[image]
        with self._session.writing():
            before = self._marks[image]
            if replace(before, **changes) != before:
                self._marks.change(image, **changes)
                self._session.journal.append(what, image)

    def status(self, image: str) -> ImageStatus:
        """How far an image is. A label outweighs a skip."""
        frames = self.labels.frames(image)
        mark = self._marks[image]
        state = "labelled" if frames else "skipped" if mark.skipped else "unseen"
        return ImageStatus(state, frames, mark.flagged, mark.comment)

    def progress(self) -> Progress:
        """How far the project is."""
        with self._session.reading():
            keys = {key for key in self.labels.keys() if key[0] in self.images}
            labelled = {image for image, _ in keys}
            ids = self.images.ids()
            marks = {i: self._marks[i] for i in ids}
            return Progress(
                images=len(ids),
                labelled=len(labelled),
                skipped=sum(marks[i].skipped for i in ids if i not in labelled),
                flagged=sum(mark.flagged for mark in marks.values()),
                frames=len(keys),
                patients=len({self.images[i].patient for i in labelled}),
            )

    def next_unlabelled(
        self, after: str | None = None, order: Sequence[str] | None = None
    ) -> str | None:
        """The next image without a label that is not skipped; begins anew at the end.

        Parameters
        ----------
        after : str, optional
            Where to go on from; it comes last itself.
        order : sequence of str, optional
            Another order than the project's.

        Returns
        -------
        str or None
            None if none is left.
        """
        labelled = {image for image, _ in self.labels.keys()}
        ids = list(order) if order is not None else self.images.ids()
        start = ids.index(after) + 1 if after in ids else 0
        for image in ids[start:] + ids[:start]:
            if image not in labelled and not self._marks[image].skipped:
                return image
        return None

    def next_image(self, after: str | None = None) -> str | None:
        """The next image to label, in the order that the settings name; None if none.

        Parameters
        ----------
        after : str, optional
            The image that is open; it is chosen only if no other is left.
        """
        order = self._settings.next_image
        labelled = {image for image, _ in self.labels.keys()}
        left = [
            image
            for image in self.images.ids()
            if image not in labelled
            and image != after
            and not self._marks[image].skipped
        ]
        if order == LISTED or not left:
            return self.next_unlabelled(after)
        return choose_next(
            order,
            left,
            project=self.id,
            after=after,
            patients={record.id: record.patient for record in self.images},
            labelled=labelled,
            scores=self.acquisition_scores() if order == UNSURE else {},
        )

    def acquisition_scores(self) -> dict[str, float]:
        """What the model in use has to gain from each image, as far as known."""
        return self._gains.of(self.model_sha256())

    def add_scores(self, model_sha256: str, found: dict[str, float]) -> None:
        """Keep what a model has to gain from some images, in memory."""
        with self._session.reading():
            self._gains.note(model_sha256, found)

    def save_scores(self) -> None:
        """Write the gains; a failure is left for the next time."""
        with contextlib.suppress(ProjectError, WriteError), self._session.writing():
            self._gains.save()

    def model_sha256(self) -> str:
        """Hash of the weights of the model in use; empty if it is not there."""
        current = self.models.current
        if current.sha256:
            return current.sha256
        if current.name not in self._bundled:  # named without it
            with contextlib.suppress(CMUNetError):
                self._bundled[current.name] = read_card(self.models.folder()).sha256
        return self._bundled.get(current.name, "")

    def neighbour(self, image: str, by: int = -1) -> str | None:
        """Image before (or after) another in the project order; None at the end."""
        ids = self.images.ids()
        at = ids.index(image) + by if image in ids else -1
        return ids[at] if 0 <= at < len(ids) else None

    @property
    def position(self) -> FrameKey | None:
        """Image and frame where the reader left off, None if there are none."""
        return self._position if self._position[0] in self.images else None

    def remember_position(self, image: str, frame: int = 0) -> None:
        """Note where the reader is. Does nothing if it cannot be written."""
        with contextlib.suppress(ProjectError, WriteError), self._session.writing():
            values = {"version": 1, "image": image, "frame": frame}
            self._position = (image, frame)
            write_json(inside(self.folder, POSITION), values)

    def labels_not_learned(self, model: str) -> list[FrameKey]:
        """Labels, or versions of them, that a model of this project has not seen."""
        learned = self.models.learned_labels(model)
        return [k for k in self.labels.keys() if self.labels.hash(*k) not in learned]

    # -- settings and the journal ---------------------------------------------

    @property
    def settings(self) -> Settings:
        """How the project is worked on."""
        return self._settings

    def change_settings(self, **changes: Any) -> Settings:
        """Change settings and write them; raises ProjectError, WriteError."""
        with self._session.writing():
            settings = replace(self._settings, **changes)
            path = inside(self.folder, SETTINGS)
            save_settings(path, settings, self._settings_file)
            self._settings = settings
        return settings

    def journal(self) -> Iterable[Any]:
        """Entries of the journal, from the first. Takes its time."""
        return self._session.journal.entries()

    def note_export(self, count: int) -> None:
        """Note in the journal that labels were exported; nothing if read-only."""
        with contextlib.suppress(ProjectError, WriteError), self._session.writing():
            self._session.journal.append("exported", count=count)
