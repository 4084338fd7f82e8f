"""Labels of a project with their frames, read one by one and checked."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError, FileError, ImageMissingError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import is_large
from napari_cmunet.io.masks.label_file import LARGE_ON_PURPOSE
from napari_cmunet.io.polarity import invert_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.lock import ProjectContext
    from napari_cmunet.project.patients import Side, Split
    from napari_cmunet.vessels.naming import SegmentName


@dataclass(frozen=True)
class LabelRef:
    """A reference to a label; nothing of it is read yet."""

    image: str
    frame: int
    patient: str
    side: Side

    @property
    def name(self) -> str:
        """For messages; does not identify the patient."""
        return f"{self.image}#{self.frame}"


@dataclass(frozen=True)
class ProjectLabel:
    """A label with its frame; a training takes it as a ``Label``."""

    frame: np.ndarray  # array (Y, X)
    mask: np.ndarray  # bool array (Y, X)
    reviewed: np.ndarray | None  # bool array (Y, X) or None
    #: patient, name: salted hash; image id and frame.
    patient: str
    name: str
    ref: LabelRef
    sha256: str  # of the label's file
    burned_in: bool = False  # whether there may be text in the image's pixels
    #: Whether more of the frame is artery than can be right, and nobody confirmed
    #: it: a label of an earlier version.
    large: bool = False
    names: tuple[SegmentName, ...] = ()  # of its vessels

    def to_json(self) -> dict[str, object]:
        """Return the entry of a model's training record."""
        return {
            "image": self.ref.image,
            "frame": self.ref.frame,
            "sha256": self.sha256,
            "patient": self.patient,
            "side": self.ref.side,
        }


class LabelCollection:
    """Labels, one at most for each frame, that are read with their frames."""

    def __init__(
        self, context: ProjectContext, images: ProjectImages, split: Split
    ) -> None:
        self._context, self._images, self._split = context, images, split

    @abstractmethod
    def keys(self) -> set[FrameKey]:
        """Return all labelled frames."""

    @abstractmethod
    def read_file(self, image: str, frame: int) -> tuple[Label, str] | None:
        """Read a label and the hash of the same file, None if it was withdrawn."""

    def sides(self) -> dict[str, Side]:
        """Return which patients train and which validate."""
        return self._split.sides()

    def refs(self) -> list[LabelRef]:
        """Return references to all labels, in the order of the images."""
        with self._context.reading():
            order = {r.id: (n, r.patient) for n, r in enumerate(self._images)}
            keys = [key for key in self.keys() if key[0] in order]
            keys.sort(key=lambda key: (order[key[0]][0], key[1]))
            sides = self._split.preview(order[image][1] for image, _ in keys)
        return [LabelRef(i, f, order[i][1], sides[order[i][1]]) for i, f in keys]

    def read(
        self,
        refs: Sequence[LabelRef] | None = None,
        problem: Callable[[str], None] = lambda text: None,
    ) -> Iterator[ProjectLabel]:
        """Read labels with their frames, one by one and each image once; slow.

        Parameters
        ----------
        refs : sequence of LabelRef, optional
            From :meth:`refs`, those of one image in a row; all by default.
        problem : callable
            Called with a sentence, without file names, for each unusable label.
        """
        open_image, angiogram = "", None
        seen: dict[str, str] = {}
        for ref in self.refs() if refs is None else refs:
            if ref.image != open_image:
                open_image, angiogram = ref.image, None  # frees the former one
                angiogram = _read_image(ref.image, self._images, problem)
            if angiogram is None:
                continue
            try:
                found = self.read_file(ref.image, ref.frame)
            except CMUNetError as error:
                problem(f"Label {ref.name}: {_reason(error)}")
                continue
            if found is None:
                continue  # withdrawn meanwhile
            label, sha256 = found
            wrong = _misfit(label, ref, angiogram)
            if wrong:
                problem(f"Label {ref.name}: {wrong}")
                continue
            # A copy: a view would keep the whole cine in memory.
            frame = angiogram.frames[ref.frame].copy()
            if label.provenance.inverted:
                frame = invert_array(frame)
            pixels = hashlib.sha256(frame.data).hexdigest()
            if pixels in seen:
                problem(
                    f"Label {ref.name}: the same frame as {seen[pixels]}; left out."
                )
                continue
            seen[pixels] = ref.name
            yield ProjectLabel(
                frame,
                label.mask,
                label.reviewed,
                ref.patient,
                ref.name,
                ref,
                sha256,
                angiogram.burned_in,
                is_large(label.mask) and not label.note.get(LARGE_ON_PURPOSE),
                label.names,
            )


def _read_image(
    image: str, images: ProjectImages, problem: Callable[[str], None]
) -> Angiogram | None:
    try:
        return read_angiogram(images.found_path(image))
    except ImageMissingError as error:
        problem(f"{error} Its labels are not used.")
    except CMUNetError as error:
        problem(f"Image {image}: {_reason(error)} Its labels are not used.")
    return None


def _misfit(label: Label, ref: LabelRef, angiogram: Angiogram) -> str:
    """Return why a label does not fit its image; empty if it does."""
    if label.provenance.source_sha256 != angiogram.sha256:
        return (
            "the image's file has changed since; the label is not used. Restore the "
            "former file, or check the image and accept the label again."
        )
    if ref.frame >= len(angiogram.frames):
        return "the image has no such frame; the label is not used."
    if label.mask.shape != angiogram.frames.shape[1:]:
        return "its size is not the image's; the label is not used."
    seen = label.mask if label.reviewed is None else label.mask[label.reviewed]
    if label.reviewed is not None and not label.reviewed.any():
        return "no part of it was reviewed; the label is not used."
    if label.reviewed is None and seen.all():
        return "all of it is artery; the label is not used."
    return ""


def _reason(error: CMUNetError) -> str:
    """Return an error's text without the file name, which may name a patient."""
    return error.reason if isinstance(error, FileError) else str(error)
