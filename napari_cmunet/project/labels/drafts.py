"""The drafts of a project: masks changed since the last acceptance, saved at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ReadError
from napari_cmunet.io.masks.label_file import Label, read_label, write_label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.files import (
    DRAFTS,
    frame_file,
    frame_of,
    inside,
    names_in,
)
from napari_cmunet.util.safe_files import make_folder, write_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.lock import ProjectContext

_NAME = re.compile(r"([0-9a-f]{12})-(frame_\d{4,6}\.tif)")


class ProjectDrafts:
    """The drafts of a project.

    A draft records the hash of the label it was drawn over; once that label is
    replaced, the draft counts no longer.

    Parameters
    ----------
    label_hash : callable
        Gives the hash of the label of an image and frame, None if there is none.
    root : Path, optional
        The reader's folder; the project's by default.
    """

    def __init__(
        self,
        context: ProjectContext,
        images: ProjectImages,
        label_hash: Callable[[str, int], str | None],
        root: Path | None = None,
    ) -> None:
        self._context, self._images = context, images
        self._root = root or context.folder
        self._label_hash = label_hash

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
        """Save a draft, from any thread; raises ProjectError, WriteError."""
        base = self._label_hash(image, frame)
        note = {"base": base or "", **(note or {})}
        draft = Label(mask, reviewed, provenance or Provenance(), None, note)
        self._images[image]
        with self._context.writing():
            if self._label_hash(image, frame) == base:  # not accepted meanwhile
                path = _path(self._root, image, frame)
                make_folder(path.parent)
                write_label(path, draft)

    def load(self, image: str, frame: int) -> Label | None:
        """Return the draft of a frame, None if there is none.

        A damaged draft, or one whose label was replaced, counts as none.
        """
        path = _path(self._root, image, frame)
        try:
            draft = read_label(path) if path.exists() else None
        except ReadError as error:
            self._context.note(f"A draft could not be read: {error.reason}")
            return None
        current = self._label_hash(image, frame) or ""
        return draft if draft and draft.note.get("base", "") == current else None

    def discard(self, image: str, frame: int) -> None:
        """Delete the draft of a frame; raises WriteError."""
        with self._context.writing():
            discard_draft(self._root, image, frame)

    def keys(self) -> list[FrameKey]:
        """Return the frames that have a draft, of images of this project."""
        keys = []
        for name in names_in(inside(self._root, DRAFTS), files=True):
            match = _NAME.fullmatch(name)
            frame = frame_of(match[2]) if match else None
            if match and frame is not None and match[1] in self._images:
                keys.append((match[1], frame))
        return keys


def discard_draft(folder: Path, image: str, frame: int) -> None:
    """Delete the draft of a frame in a project's folder; raises WriteError."""
    path = _path(folder, image, frame)
    with write_errors(path):
        path.unlink(missing_ok=True)


def _path(folder: Path, image: str, frame: int) -> Path:
    return inside(folder, DRAFTS, f"{image}-{frame_file(frame)}")
