"""What the labels of an image say of it: its pixel size, and inverted grey values."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.project import Project


def as_labelled(angiogram: Angiogram, labels: Iterable[Label]) -> Angiogram:
    """Return the image with the pixel size that its latest label was accepted with.

    That is the file's own, unless it was measured on a catheter.
    """
    known = [
        label
        for label in labels
        if label.pixel_size_mm and label.note.get("pixel_size_source")
    ]
    if not known:
        return angiogram
    latest = max(known, key=lambda label: label.provenance.created)
    return replace(
        angiogram,
        pixel_size_mm=latest.pixel_size_mm,
        pixel_size_source=str(latest.note["pixel_size_source"]),
    )


def labelled_inverted(labels: Collection[Label]) -> bool:
    """Whether the latest label or draft is of the inverted grey values."""
    origins = [label.provenance for label in labels]
    latest = max(origins, key=lambda origin: origin.created, default=None)
    return latest is not None and latest.inverted


@dataclass(frozen=True)
class KnownImage:
    """What the project knows of an image beyond its file."""

    pixel_size_mm: tuple[float, float] | None
    pixel_size_source: str | None
    inverted: bool


def known_of(project: Project, image: str, angiogram: Angiogram) -> KnownImage:
    """Read the labels and drafts of an image; slow."""
    labels: list[Label | None] = []
    drafts: list[Label | None] = []
    for frame in range(len(angiogram.frames)):
        with contextlib.suppress(ReadError):  # what is damaged says nothing
            labels.append(project.labels.get(image, frame))
        drafts.append(project.drafts.load(image, frame))
    of_this_file = (None, angiogram.sha256)
    found, drawn = (
        [x for x in some if x and x.provenance.source_sha256 in of_this_file]
        for some in (labels, drafts)
    )
    inverted = project.is_inverted(image)
    if inverted is None:
        inverted = labelled_inverted([*found, *drawn])
    sized = as_labelled(angiogram, found)
    source = sized.pixel_size_source if sized.pixel_size_mm else None
    return KnownImage(sized.pixel_size_mm, source, inverted)
