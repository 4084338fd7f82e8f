"""The drafts of an open project: strokes since the last acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ReadError
from napari_cmunet.io.label_file import Label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.label_store import DraftStore

if TYPE_CHECKING:
    import numpy as np

    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.label_store import FrameKey
    from napari_cmunet.project.labels import ProjectLabels
    from napari_cmunet.project.session import Session


class ProjectDrafts:
    """The drafts of a project.

    Each knows the label that it was drawn over, so that one that an acceptance has
    overtaken is not offered again.
    """

    def __init__(
        self, session: Session, images: ProjectImages, labels: ProjectLabels
    ) -> None:
        self._session, self._images, self._labels = session, images, labels
        self._store = DraftStore(session.folder)

    def save(
        self,
        image: str,
        frame: int,
        mask: np.ndarray,
        reviewed: np.ndarray | None = None,
        *,
        provenance: Provenance | None = None,
        note: dict[str, Any] | None = None,
    ) -> None:
        """Save strokes that are not accepted yet. Some milliseconds; any thread."""
        base = self._labels.hash(image, frame) or ""
        provenance = provenance or Provenance()
        draft = Label(mask, reviewed, provenance, None, {"base": base, **(note or {})})
        self._images[image]
        with self._session.writing():
            if (
                self._labels.hash(image, frame) or ""
            ) == base:  # not accepted meanwhile
                self._store.write(image, frame, draft)

    def load(self, image: str, frame: int) -> Label | None:
        """Strokes since the last acceptance, None if there are none.

        A draft that an acceptance has overtaken, or that is damaged, counts as none.
        """
        try:
            draft = self._store.read(image, frame)
        except ReadError as error:
            self._session.note(f"A draft could not be read: {error.reason}")
            return None
        current = self._labels.hash(image, frame) or ""
        return draft if draft and draft.note.get("base", "") == current else None

    def discard(self, image: str, frame: int) -> None:
        """Forget strokes since the last acceptance; raises WriteError."""
        with self._session.writing():
            self._store.discard(image, frame)

    def keys(self) -> list[FrameKey]:
        """Frames that have a draft, of images of this project."""
        return [key for key in self._store.scan() if key[0] in self._images]
