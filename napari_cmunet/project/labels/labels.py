"""The labels of a project: accept, undo, withdraw, restore, read for a training.

``labels/<image>/frame_0007.tif`` is a label; the ones it replaced lie in ``older``
beside it, so that an acceptance never destroys one. A frame is labelled if and only if
the file exists.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.errors import (
    CMUNetError,
    ProjectDamagedError,
    ProjectError,
    ReadError,
)
from napari_cmunet.io.masks.files import is_large
from napari_cmunet.io.masks.label_file import (
    LARGE_ON_PURPOSE,
    MEASUREMENT,
    NAMES,
    Label,
    names_to_json,
    read_label,
    write_label,
)
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.files import (
    LABELS,
    OLDER,
    frame_file,
    inside,
    keep_older,
    labelled_frames,
    names_in,
    read_bytes,
)
from napari_cmunet.project.labels.drafts import discard_draft
from napari_cmunet.project.readers.readers import FIRST_READER, reader_root
from napari_cmunet.project.training.labels import LabelCollection
from napari_cmunet.util.safe_files import atomic_write, make_folder, remove_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    import numpy as np

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.lock import ProjectContext
    from napari_cmunet.project.patients import Split
    from napari_cmunet.vessels.naming import SegmentName

_MAX_BYTES = 2**28


@dataclass(frozen=True)
class AcceptedLabel:
    """An accepted label; it is on the disk."""

    image: str
    frame: int
    sha256: str  # of the label's file
    replaced: str | None = None  # hash of the label it replaced, kept among the older
    notice: str = ""  # for the user; empty if there is none


@dataclass(frozen=True)
class OlderLabel:
    """A label that was replaced or withdrawn; the highest number is the last."""

    image: str
    frame: int
    number: int
    path: Path

    def sha256(self) -> str | None:
        """Return the hash of the file, None if it is missing."""
        return _hash(self.path)


class ProjectLabels(LabelCollection):
    """The labels of one reader of a project; :meth:`load` before anything else.

    Parameters
    ----------
    reader : str
        Code of the reader; empty for the first one.
    """

    def __init__(
        self,
        context: ProjectContext,
        images: ProjectImages,
        split: Split,
        reader: str = FIRST_READER,
    ) -> None:
        super().__init__(context, images, split)
        self.reader = reader
        self.root = reader_root(context.folder, reader)
        self._hashes: dict[FrameKey, str] = {}
        self._frames: dict[str, set[int]] = {}

    def load(self) -> None:
        """Find the labels on the disk; raises ProjectError."""
        for image, frame in labelled_frames(self.root):
            with contextlib.suppress(ProjectDamagedError):
                sha256 = _hash(self.path(image, frame))
                if sha256:  # another program may be withdrawing it
                    self._note(image, frame, sha256)

    def path(self, image: str, frame: int) -> Path:
        """Return the path of the label of a frame, whether it exists or not."""
        return inside(self.root, LABELS, image, frame_file(frame))

    def accept(
        self,
        image: str,
        frame: int,
        mask: np.ndarray,
        reviewed: np.ndarray | None = None,
        *,
        provenance: Provenance | None = None,
        pixel_size_mm: tuple[float, float] | None = None,
        pixel_size_source: str | None = None,
        pixel_size_error: float | None = None,
        pixels_changed: int | None = None,
        pixels_added: int | None = None,
        seconds: float | None = None,
        measurement: dict[str, object] | None = None,
        names: Sequence[SegmentName] = (),
    ) -> AcceptedLabel:
        """Save a mask as the label of a frame.

        When this returns, the label is on the disk; if it raises, the former label is
        still in place.

        Parameters
        ----------
        image, frame : str, int
            Frames count from 0.
        mask : bool array (Y, X)
            Of a large one (``masks.is_large``) the user was asked.
        reviewed : bool array (Y, X), optional
            The whole frame by default. The rest is unknown.
        provenance : Provenance, optional
            The prediction it came from, and the hash of the image's file as shown.
            Without the hash, the file is hashed now.
        pixel_size_mm : (y, x), optional
        pixel_size_source, pixel_size_error : optional
            In words; the standard error, as a share of the size.
        pixels_changed, pixels_added, seconds : optional
            For the journal; the added ones are among those changed.
        measurement : dict, optional
            JSON values: the model's numbers and those of this mask.
        names : sequence of SegmentName, optional
            The SYNTAX segments of its vessels.
        """
        record = self._images[image]
        if type(frame) is not int or frame < 0 or frame >= (record.frames or 10**6):
            raise ProjectError(f"Image {image} has no frame {frame}.")
        if reviewed is not None:
            if not reviewed.any():
                raise ProjectError("Nothing of the frame was reviewed.")
            reviewed = None if reviewed.all() else reviewed
        provenance = provenance or Provenance()
        sha256 = provenance.source_sha256 or self._images.hash_of(image)
        if record.sha256 == sha256 and record.shape not in (None, mask.shape):
            raise ProjectError(f"The mask is not of the size of image {image}.")
        note = {
            "pixel_size_source": pixel_size_source,
            "pixel_size_error": pixel_size_error,
            LARGE_ON_PURPOSE: is_large(mask),
            MEASUREMENT: measurement,
            NAMES: names_to_json(names),
            "reader": self.reader,
        }
        label = Label(
            mask,
            reviewed,
            # A new one, so that it is dated now.
            Provenance(
                model=provenance.model,
                model_sha256=provenance.model_sha256,
                threshold=provenance.threshold,
                device=provenance.device,
                source_sha256=sha256,
                frames=(frame,),
                corrected=pixels_changed != 0,  # None: unknown
                inverted=provenance.inverted,
                imported_from=provenance.imported_from,
                imported_sha256=provenance.imported_sha256,
            ),
            pixel_size_mm,
            {key: value for key, value in note.items() if value},
        )
        with self._context.writing():
            before = self._hashes.get((image, frame))
            with self._in_step(image, frame):
                path = self.path(image, frame)
                make_folder(path.parent)
                with self._keep_older(image, frame):
                    write_label(path, label)
                    made = _hash(path) or ""
            self._note(image, frame, made)
            self.journal(
                "accepted",
                image,
                frame,
                sha256=made,
                replaced=before,
                model=provenance.model,
                model_sha256=provenance.model_sha256,
                threshold=provenance.threshold,
                imported_from=provenance.imported_from,
                imported_sha256=provenance.imported_sha256,
                reviewed=1.0 if reviewed is None else round(float(reviewed.mean()), 4),
                pixels_changed=pixels_changed,
                pixels_added=pixels_added,
                seconds=None if seconds is None else round(seconds, 1),
            )
            self._after_labelling(image, frame)
            shape = (mask.shape[0], mask.shape[1])
            self._images.learn_facts(image, sha256, shape)
            notice = self._waiting_notice()
        return AcceptedLabel(image, frame, made, before, notice)

    def journal(self, what: str, image: str, frame: int, **details: Any) -> None:
        """Note in the journal what became of a label of this reader."""
        journal = self._context.journal
        journal.append(what, image, frame, reader=self.reader, **details)

    def _keep_older(self, image: str, frame: int) -> AbstractContextManager[None]:
        path = self.path(image, frame)
        return keep_older(path, lambda: self._next_older(image, frame), _MAX_BYTES)

    def _next_older(self, image: str, frame: int) -> Path:
        folder = make_folder(inside(self.root, LABELS, image, OLDER))
        number = max((o.number for o in self.older(image, frame)), default=0) + 1
        return folder / f"{frame_file(frame)[:-4]}-{number:03d}.tif"

    def _note(self, image: str, frame: int, sha256: str) -> None:
        self._hashes[image, frame] = sha256
        self._frames.setdefault(image, set()).add(frame)

    def _forget(self, image: str, frame: int) -> str | None:
        self._frames.get(image, set()).discard(frame)
        return self._hashes.pop((image, frame), None)

    @contextlib.contextmanager
    def _in_step(self, image: str, frame: int) -> Iterator[None]:
        """If the body fails, take over whichever label is on the disk."""
        try:
            yield
        except CMUNetError:
            with contextlib.suppress(CMUNetError):
                found = _hash(self.path(image, frame))
                if found is None:
                    self._forget(image, frame)
                else:
                    self._note(image, frame, found)
            raise

    def _after_labelling(self, image: str, frame: int) -> None:
        with contextlib.suppress(CMUNetError):  # the label is what matters
            discard_draft(self.root, image, frame)
        patient = self._images[image].patient
        if self._split.side(patient) is None:
            with contextlib.suppress(CMUNetError):  # repaired at the next opening
                append = self._context.journal.append
                for new, side in self._split.assign([patient]).items():
                    append("patient_assigned", patient=new, side=side)

    def _waiting_notice(self) -> str:
        if not self._context.journal.waiting:
            return ""
        return (
            "The label is saved, but the journal could not be written; this is retried "
            "later. Free some space on the disk."
        )

    def withdraw(self, image: str, frame: int) -> bool:
        """Move a label to the older ones; return False if there was none."""
        with self._context.writing():
            path = self.path(image, frame)
            with self._in_step(image, frame):
                if not path.exists():
                    return False
                with self._keep_older(image, frame):
                    remove_file(path)
            sha256 = self._forget(image, frame)
            self.journal("withdrawn", image, frame, sha256=sha256)
        return True

    def undo_accept(
        self, accepted: AcceptedLabel, fits: Callable[[Label], bool] = lambda _: True
    ) -> bool:
        """Undo an acceptance.

        Return False if the label has changed, or the one before it does not fit.
        """
        image, frame = accepted.image, accepted.frame
        with self._context.writing():
            if self._hashes.get((image, frame)) != accepted.sha256:
                return False
            if accepted.replaced is None:
                return self.withdraw(image, frame)
            olders = reversed(self.older(image, frame))
            older = next((o for o in olders if o.sha256() == accepted.replaced), None)
            if older is None or not fits(read_label(older.path)):
                return False
            self.restore(older)
        return True

    def older(self, image: str, frame: int) -> list[OlderLabel]:
        """Return the replaced and withdrawn labels of a frame, the oldest first."""
        pattern = re.compile(re.escape(frame_file(frame)[:-4]) + r"-(\d{1,9})\.tif")
        folder = inside(self.root, LABELS, image, OLDER)
        found = []
        for name in names_in(folder, files=True):
            match = pattern.fullmatch(name)
            if match:
                path = inside(self.root, LABELS, image, OLDER, name)
                found.append(OlderLabel(image, frame, int(match[1]), path))
        return sorted(found, key=lambda older: older.number)

    def restore(self, older: OlderLabel) -> AcceptedLabel:
        """Replace the label of a frame by an older one."""
        image, frame = older.image, older.frame
        path = self.path(image, frame)
        with self._context.writing():
            before = self._hashes.get((image, frame))
            with self._in_step(image, frame):
                data = read_bytes(older.path, _MAX_BYTES)
                if data is None:
                    raise ProjectError("That version of the label is missing.")
                read_label(older.path)  # raises if it is damaged
                make_folder(path.parent)
                with self._keep_older(image, frame), atomic_write(path) as file:
                    file.write(data)
                made = hashlib.sha256(data).hexdigest()
            self._note(image, frame, made)
            self.journal("restored", image, frame, sha256=made, replaced=before)
            self._after_labelling(image, frame)
            return AcceptedLabel(image, frame, made, before, self._waiting_notice())

    def get(self, image: str, frame: int) -> Label | None:
        """Return the label of a frame, None if it has none; raises CMUNetError."""
        path = self.path(image, frame)
        try:
            return read_label(path)
        except ReadError:
            if path.exists():
                raise
            self._context.check_folder()
            return None

    def hash(self, image: str, frame: int) -> str | None:
        """Return the hash of the file of a frame's label, None if it has none."""
        return self._hashes.get((image, frame))

    def keys(self) -> set[FrameKey]:
        """Return all labelled frames."""
        with self._context.reading():
            return set(self._hashes)

    def frames(self, image: str) -> tuple[int, ...]:
        """Return the labelled frames of an image."""
        with self._context.reading():
            return tuple(sorted(self._frames.get(image, ())))

    def read_file(self, image: str, frame: int) -> tuple[Label, str] | None:
        """Read a label and the hash of the same file, None if it was withdrawn."""
        path = self.path(image, frame)
        before = _hash(path)
        for attempt in range(5):
            label = self.get(image, frame)
            after = _hash(path)
            if label is None or after is None:
                break
            if after == before or attempt == 4:
                return label, after
            before = after  # it was replaced meanwhile
        return None


def _hash(path: Path) -> str | None:
    data = read_bytes(path, _MAX_BYTES)
    return None if data is None else hashlib.sha256(data).hexdigest()
