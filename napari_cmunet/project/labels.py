"""The labels of an open project: accepted, undone, withdrawn, read for a training."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError
from napari_cmunet.io.label_file import Label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.errors import ProjectError
from napari_cmunet.project.label_store import DraftStore, LabelStore
from napari_cmunet.project.training_labels import LabelRef, read_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.label_store import FrameKey, OlderLabel
    from napari_cmunet.project.session import Session
    from napari_cmunet.project.split import Side, Split
    from napari_cmunet.project.training_labels import ProjectLabel


@dataclass(frozen=True)
class AcceptedLabel:
    """A label that counts, and is on the disk.

    Parameters
    ----------
    image, frame : str, int
    sha256 : str
        Of the label's file.
    replaced : str or None
        Hash of the label that was there before; it is kept among the older ones.
    notice : str
        What the reader should know; empty if all is well.
    """

    image: str
    frame: int
    sha256: str
    replaced: str | None = None
    notice: str = ""


class ProjectLabels:
    """The labels of a project.

    Parameters
    ----------
    session : Session
    images : ProjectImages
    split : Split
    hashes : dict
        Hash of each label's file, as found when the project was opened.
    """

    def __init__(
        self,
        session: Session,
        images: ProjectImages,
        split: Split,
        hashes: dict[FrameKey, str],
    ) -> None:
        self._session, self._images, self._split = session, images, split
        self._hashes = hashes
        self._frames: dict[str, set[int]] = {}
        for image, frame in hashes:
            self._frames.setdefault(image, set()).add(frame)
        self._store = LabelStore(session.folder)
        self._drafts = DraftStore(session.folder)

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
        pixels_changed: int | None = None,
        seconds: float | None = None,
    ) -> AcceptedLabel:
        """Let a mask count as the label of a frame.

        When this returns it is on the disk, whole; if it raises, the label that was
        there before still counts.

        Parameters
        ----------
        image, frame : str, int
            Frames count from 0.
        mask : bool array (Y, X)
        reviewed : bool array (Y, X), optional
            Where the reader looked; the whole frame by default. The rest is unknown.
        provenance : Provenance, optional
            The prediction that it came from, and the hash of the image's file as it
            was shown. Without the hash, the file is hashed now.
        pixel_size_mm : (y, x), optional
        pixel_size_source : str, optional
            Where that comes from, in words.
        pixels_changed, seconds : optional
            What the reader did, for the journal.

        Raises
        ------
        ProjectError, WriteError
        """
        record = self._images[image]
        if type(frame) is not int or frame < 0 or frame >= (record.frames or 10**6):
            raise ProjectError(f"Image {image} has no frame {frame}.")
        if reviewed is not None:
            if not reviewed.any():
                raise ProjectError(
                    "Nothing of the frame was reviewed: no label to keep."
                )
            reviewed = None if reviewed.all() else reviewed
        provenance = provenance or Provenance()
        sha256 = provenance.source_sha256 or self._images.hash_of(image)
        if record.sha256 == sha256 and record.shape not in (None, mask.shape):
            raise ProjectError(f"The mask is not of the size of image {image}.")
        label = Label(
            mask,
            reviewed,
            # Made anew, so that it is dated now.
            Provenance(
                model=provenance.model,
                model_sha256=provenance.model_sha256,
                threshold=provenance.threshold,
                device=provenance.device,
                source_sha256=sha256,
                frames=(frame,),
                corrected=pixels_changed != 0,  # None: not known
            ),
            pixel_size_mm,
            {"pixel_size_source": pixel_size_source} if pixel_size_source else {},
        )
        with self._session.writing():
            before = self._hashes.get((image, frame))
            with self._in_step(image, frame):
                made = self._store.write(image, frame, label)
            self._note(image, frame, made)
            self._session.journal.append(
                "accepted",
                image,
                frame,
                sha256=made,
                replaced=before,
                model=provenance.model,
                model_sha256=provenance.model_sha256,
                threshold=provenance.threshold,
                reviewed=1.0 if reviewed is None else round(float(reviewed.mean()), 4),
                pixels_changed=pixels_changed,
                seconds=None if seconds is None else round(seconds, 1),
            )
            self._after_labelling(image, frame)
            shape = (mask.shape[0], mask.shape[1])
            self._images.learn_facts(image, sha256, shape)
            notice = self._waiting_notice()
        return AcceptedLabel(image, frame, made, before, notice)

    def _note(self, image: str, frame: int, sha256: str) -> None:
        self._hashes[image, frame] = sha256
        self._frames.setdefault(image, set()).add(frame)

    def _forget(self, image: str, frame: int) -> str | None:
        self._frames.get(image, set()).discard(frame)
        return self._hashes.pop((image, frame), None)

    @contextlib.contextmanager
    def _in_step(self, image: str, frame: int) -> Iterator[None]:
        """If the body fails, know again which label is on the disk, whatever it is."""
        try:
            yield
        except CMUNetError:
            with contextlib.suppress(CMUNetError):
                found = self._store.sha256(image, frame)
                if found is None:
                    self._forget(image, frame)
                else:
                    self._note(image, frame, found)
            raise

    def _after_labelling(self, image: str, frame: int) -> None:
        with contextlib.suppress(CMUNetError):  # the label is what matters
            self._drafts.discard(image, frame)
        patient = self._images[image].patient
        if self._split.side(patient) is None:
            with contextlib.suppress(CMUNetError):  # made up for when opened again
                for new, side in self._split.assign([patient]).items():
                    self._session.journal.append(
                        "patient_assigned", patient=new, side=side
                    )

    def _waiting_notice(self) -> str:
        if not self._session.journal.waiting:
            return ""
        return (
            "The label is safe, but the journal could not be written; it will be as "
            "soon as the disk allows. Free some space on the disk."
        )

    def withdraw(self, image: str, frame: int) -> bool:
        """Let a label count no more; it is kept among the older ones.

        Returns
        -------
        bool
            False if there was none.
        """
        with self._session.writing():
            with self._in_step(image, frame):
                if self._store.withdraw(image, frame) is None:
                    return False
            sha256 = self._forget(image, frame)
            self._session.journal.append("withdrawn", image, frame, sha256=sha256)
        return True

    def undo_accept(self, accepted: AcceptedLabel) -> bool:
        """Go back to how it was before an acceptance.

        Returns
        -------
        bool
            False if the label is another by now; nothing is changed then.
        """
        image, frame = accepted.image, accepted.frame
        with self._session.writing():
            if self._hashes.get((image, frame)) != accepted.sha256:
                return False
            if accepted.replaced is None:
                return self.withdraw(image, frame)
            for older in reversed(self.older(image, frame)):
                if self._store.hash_of(older) == accepted.replaced:
                    self.restore(older)
                    return True
        return False

    def older(self, image: str, frame: int) -> list[OlderLabel]:
        """Labels of a frame that were replaced or withdrawn, the oldest first."""
        return self._store.older(image, frame)

    def restore(self, older: OlderLabel) -> AcceptedLabel:
        """Let an older label count again, in the place of the present one."""
        image, frame = older.image, older.frame
        with self._session.writing():
            before = self._hashes.get((image, frame))
            with self._in_step(image, frame):
                made = self._store.restore(older)
            self._note(image, frame, made)
            self._session.journal.append(
                "restored", image, frame, sha256=made, replaced=before
            )
            self._after_labelling(image, frame)
            return AcceptedLabel(image, frame, made, before, self._waiting_notice())

    def get(self, image: str, frame: int) -> Label | None:
        """The label of a frame, None if it has none; raises ReadError if damaged."""
        return self._store.read(image, frame)

    def frames(self, image: str) -> tuple[int, ...]:
        """Frames of an image that have a label."""
        with self._session.reading():
            return tuple(sorted(self._frames.get(image, ())))

    def refs(self, side: Side | None = None) -> list[LabelRef]:
        """All labels as of now, in the order of the images; nothing is read."""
        with self._session.reading():
            order = {r.id: (n, r.patient) for n, r in enumerate(self._images)}
            keys = [key for key in self._hashes if key[0] in order]
            keys.sort(key=lambda key: (order[key[0]][0], key[1]))
            sides = self._split.preview(order[image][1] for image, _ in keys)
        refs = [LabelRef(i, f, order[i][1], sides[order[i][1]]) for i, f in keys]
        return [ref for ref in refs if side in (None, ref.side)]

    def read(
        self,
        refs: Sequence[LabelRef] | None = None,
        problem: Callable[[str], None] | None = None,
    ) -> Iterator[ProjectLabel]:
        """Labels with their frames, read one by one. Takes its time.

        Parameters
        ----------
        refs : sequence of LabelRef, optional
            From :meth:`refs`; all by default.
        problem : callable, optional
            Told of each label that cannot be used, in a sentence without file names.
        """
        return read_labels(
            self.refs() if refs is None else refs,
            self._store,
            self._images,
            problem or (lambda text: None),
        )

    def sides(self) -> dict[str, Side]:
        """Which patients train and which validate; fixed once a patient has a label."""
        return self._split.sides()

    def hash(self, image: str, frame: int) -> str | None:
        """Hash of the file of a frame's label, None if it has none."""
        return self._hashes.get((image, frame))

    def keys(self) -> set[FrameKey]:
        """All labelled frames."""
        with self._session.reading():
            return set(self._hashes)
