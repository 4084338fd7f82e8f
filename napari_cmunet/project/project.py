"""A project: a folder that holds the labels of a set of images and how they were made.

Its parts: ``images``, ``labels``, ``drafts``, ``models``; here, flags, the order of
work and the settings. Every change is on the disk when its method returns. Methods may
be called from any thread; those marked slow are not for the GUI thread.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import CMUNetError, ProjectError, WriteError
from napari_cmunet.model.card import read_card
from napari_cmunet.project.files import POSITION, SCORES, SETTINGS, inside, project_file
from napari_cmunet.project.flags import MAX_COMMENT, ImageStatus, ProjectProgress
from napari_cmunet.project.labels.drafts import ProjectDrafts
from napari_cmunet.project.next_image import (
    LISTED,
    UNSURE,
    AcquisitionScores,
    choose_next,
)
from napari_cmunet.project.readers.readers import FIRST_READER, REVIEWER, reader_code
from napari_cmunet.project.readers.reference import ReferenceLabels
from napari_cmunet.project.recovery import open_parts
from napari_cmunet.project.settings import new_identity, save_settings
from napari_cmunet.util.safe_files import make_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.journal import Entry
    from napari_cmunet.project.readers.reference import Rejection
    from napari_cmunet.project.recovery import ProjectParts
    from napari_cmunet.project.settings import Settings


class Project:
    """An open project; use :meth:`create` or :meth:`open`."""

    def __init__(self, opened: ProjectParts) -> None:
        self._context = opened.context
        self._flags = opened.flags
        self._settings, self._settings_file = opened.settings
        self._position = opened.position
        self.images = opened.images
        self.models = opened.models
        #: Code of the reader whose labels, drafts and flags are shown and changed.
        self.reader = opened.reader
        #: The labels of each reader by code; of this one.
        self.readers = opened.labels
        self.labels = opened.labels[opened.reader]
        self.reviews = opened.reviews
        self.reference = ReferenceLabels(
            self._context, self.images, opened.split, self.readers, self.reviews
        )
        self.drafts = ProjectDrafts(
            self._context, self.images, self.labels.hash, self.labels.root
        )
        self._scores = AcquisitionScores(project_file(self.folder, SCORES))
        self._bundled: dict[str, str] = {}
        #: How much readers differ in a frame, as far as compared; see ``agreement``.
        self.disagreement: dict[FrameKey, float] = {}

    @classmethod
    def create(cls, folder: Path, *, user: str = "") -> Project:
        """Make a folder a project and open it.

        Images that lie in the folder are not added by this.

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
        reader: str = FIRST_READER,
        read_only: bool = False,
        break_lock: bool = False,
        salvage: bool = False,
    ) -> Project:
        """Open a project and repair what a crash left; slow.

        Parameters
        ----------
        user : str
            For the journal; may be empty.
        reader : str
            Code of the reader; empty for the first one.
        read_only : bool
            Write nothing; possible while another program has the project open.
        break_lock : bool
            Take the project over from another program, which can then write no more.
        salvage : bool
            Set a damaged ``project.json`` or ``images.jsonl`` aside and go on with
            what can be understood.

        Raises
        ------
        ReadError
            If the folder is not a project.
        ProjectLockedError, ProjectDamagedError, ProjectVersionError, WriteError
        """
        return cls(
            open_parts(
                folder,
                user=user,
                reader=reader,
                read_only=read_only,
                break_lock=break_lock,
                salvage=salvage,
            )
        )

    def close(self) -> None:
        """Close the project. Idempotent."""
        self.images.save()
        self._context.close()

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The project's folder."""
        return self._context.folder

    @property
    def id(self) -> str:
        """32 hexadecimal digits; a copy of the folder has the same."""
        return self._context.identity.id

    @property
    def is_blind(self) -> bool:
        """Whether the reader must not learn what others have drawn.

        Then models that have learned from their labels are not used either.
        """
        return self.reader not in (FIRST_READER, REVIEWER)

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed."""
        return self._context.read_only

    def take_notices(self) -> list[str]:
        """Return the notices for the user since the last call."""
        notices, self._context.notices[:] = list(self._context.notices), []
        return notices

    # -- flags and the order of work ---------------------------------------------------

    def skip(self, image: str, skipped: bool = True) -> None:
        """Skip an image, or undo that; raises WriteError."""
        self._change(image, "skipped" if skipped else "unskipped", skipped=skipped)

    def flag(self, image: str, flagged: bool = True) -> None:
        """Flag an image for a second look, or undo that; raises WriteError."""
        self._change(image, "flagged" if flagged else "unflagged", flagged=flagged)

    def invert(self, image: str, inverted: bool = True) -> None:
        """Show an image with inverted grey values, or not; raises WriteError."""
        what = "inverted" if inverted else "uninverted"
        self._change(image, what, inverted=inverted)

    def is_inverted(self, image: str) -> bool | None:
        """Whether an image is to be inverted; None if its labels and drafts say."""
        return self._flags[image].inverted

    def comment(self, image: str, text: str) -> None:
        """Set the comment of an image; it may name people. Raises WriteError."""
        self._change(image, "commented", comment=text[:MAX_COMMENT])

    def reject(self, reader: str, image: str, frame: int, reason: str) -> None:
        """Keep a reader's label from being learned or exported.

        The reason is shown to the reader; the label itself stays.

        Raises
        ------
        ProjectError
            If there is no such label, or no reason.
        WriteError
        """
        if not reason.strip():
            raise ProjectError("Give a reason, so that the reader knows what to mend.")
        self._review("rejected", reader, image, frame, reason)

    def admit(self, reader: str, image: str, frame: int) -> None:
        """Undo a rejection; raises ProjectError, WriteError."""
        self._review("admitted", reader, image, frame)

    def _review(
        self, what: str, reader: str, image: str, frame: int, reason: str = ""
    ) -> None:
        with self._context.writing():
            labels = self.readers.get(reader)
            sha256 = labels.hash(image, frame) if labels else None
            if labels is None or sha256 is None:
                raise ProjectError("That reader has no label of this frame.")
            if what == "rejected":
                self.reviews.reject(sha256, reason)
            else:
                self.reviews.admit(sha256)
            labels.journal(what, image, frame, sha256=sha256)

    def reader_code(self, name: str) -> str:
        """Return the code of a reader of this name."""
        return reader_code(self._context.identity.salt, name)

    def rejection(self, image: str, frame: int) -> Rejection | None:
        """Return why this reader's label of a frame was rejected, None if not."""
        return self.reviews.rejection(self.labels.hash(image, frame))

    def _change(self, image: str, what: str, **changes: Any) -> None:
        self.images[image]
        with self._context.writing():
            before = self._flags[image]
            if replace(before, **changes) != before:
                make_folder(self.labels.root)
                self._flags.change(image, **changes)
                self._context.journal.append(what, image, reader=self.reader)

    def status(self, image: str) -> ImageStatus:
        """Return the state of an image. A label outweighs a skip."""
        frames = self.labels.frames(image)
        mark = self._flags[image]
        state = "labelled" if frames else "skipped" if mark.skipped else "unseen"
        if any(self.rejection(image, frame) for frame in frames):
            state = "rejected"
        return ImageStatus(state, frames, mark.flagged, mark.comment)

    def progress(self) -> ProjectProgress:
        """Return the progress of the project."""
        with self._context.reading():
            keys = {key for key in self.labels.keys() if key[0] in self.images}
            labelled = {image for image, _ in keys}
            labelled -= {key[0] for key in keys if self.rejection(*key)}
            ids = self.images.ids()
            marks = {i: self._flags[i] for i in ids}
            return ProjectProgress(
                images=len(ids),
                labelled=len(labelled),
                skipped=sum(marks[i].skipped for i in ids if i not in labelled),
                flagged=sum(mark.flagged for mark in marks.values()),
                frames=len(keys),
            )

    def next_image(self, after: str | None = None) -> str | None:
        """Return the next image to label in the order of the settings, None if none.

        An image that has a label or is skipped is none.

        Parameters
        ----------
        after : str, optional
            The image that is open; it is chosen only if no other is left.
        """
        order, ids = self._settings.next_image, self.images.ids()
        labelled = {image for image, _ in self.labels.keys()}
        if self.reader == REVIEWER:
            return self._next_to_review(after)
        labelled -= {
            image for image, frame in self.labels.keys() if self.rejection(image, frame)
        }
        start = ids.index(after) + 1 if after in ids else 0
        left = [
            image
            for image in ids[start:] + ids[:start]
            if image not in labelled and not self._flags[image].skipped
        ]
        if order == LISTED or left in ([], [after]):
            return left[0] if left else None
        others = set(left) - {after}
        return choose_next(
            order,
            [image for image in ids if image in others],
            project=self.id,
            after=after,
            patients={record.id: record.patient for record in self.images},
            labelled=labelled,
            scores=self.acquisition_scores() if order == UNSURE else {},
        )

    def _next_to_review(self, after: str | None) -> str | None:
        """Return the image to decide next: where readers differ most, then the rest."""
        several, decided = self.reference.waiting(), self.reference.decided()
        left = {
            key
            for key in self.reference.readings().keys() - decided
            if key[0] in self.images and not self._flags[key[0]].skipped
        }
        ids = self.images.ids()
        start = ids.index(after) + 1 if after in ids else 0
        order = {image: n for n, image in enumerate(ids[start:] + ids[:start])}

        def rank(key: FrameKey) -> tuple[bool, bool, float, int]:
            differs = self.disagreement.get(key, 0.0)
            return key[0] == after, key not in several, -differs, order[key[0]]

        return min(left, key=rank)[0] if left else None

    def acquisition_scores(self) -> dict[str, float]:
        """Return the known acquisition scores of the model in use, by image."""
        return self._scores.of(self.model_sha256())

    def add_scores(self, model_sha256: str, found: dict[str, float]) -> None:
        """Add acquisition scores of a model, in memory."""
        with self._context.reading():
            self._scores.add(model_sha256, found)

    def save_scores(self) -> None:
        """Write the acquisition scores; a failure is retried at the next call."""
        with contextlib.suppress(ProjectError, WriteError), self._context.writing():
            self._scores.save()

    def model_sha256(self) -> str:
        """Return the hash of the current model's weights; empty if it is missing."""
        current = self.models.current
        if current.sha256:
            return current.sha256
        if current.name not in self._bundled:  # the history does not say
            with contextlib.suppress(CMUNetError):
                self._bundled[current.name] = read_card(self.models.folder()).sha256
        return self._bundled.get(current.name, "")

    def neighbour(self, image: str, by: int = -1) -> str | None:
        """Return the image before (or after) another; None at the end."""
        ids = self.images.ids()
        at = ids.index(image) + by if image in ids else -1
        return ids[at] if 0 <= at < len(ids) else None

    @property
    def position(self) -> FrameKey | None:
        """Image and frame shown last, None if unknown."""
        return self._position if self._position[0] in self.images else None

    def remember_position(self, image: str, frame: int = 0) -> None:
        """Note the image and frame shown; ignore write errors."""
        with contextlib.suppress(ProjectError, WriteError), self._context.writing():
            values = {"version": 1, "image": image, "frame": frame}
            self._position = (image, frame)
            write_json(inside(make_folder(self.labels.root), POSITION), values)

    # -- settings and the journal ---------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings of the project."""
        return self._settings

    def change_settings(self, **changes: Any) -> Settings:
        """Change settings and write them; raises ProjectError, WriteError."""
        with self._context.writing():
            settings = replace(self._settings, **changes)
            path = inside(self.folder, SETTINGS)
            save_settings(path, settings, self._settings_file)
            self._settings = settings
        return settings

    def journal(self) -> Iterator[Entry]:
        """Return the entries of the journal, from the first; slow."""
        return self._context.journal.entries()

    def note(self, what: str, count: int) -> None:
        """Note an export or import in the journal, if it can be written."""
        with contextlib.suppress(ProjectError, WriteError), self._context.writing():
            self._context.journal.append(what, count=count)
