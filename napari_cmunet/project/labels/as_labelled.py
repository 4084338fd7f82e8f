"""What the labels of an image say of it: its pixel size, and inverted grey values."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError
from napari_cmunet.project.readers.readers import REVIEWER

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
        pixel_size_error=_share(latest.note.get("pixel_size_error")),
    )


def _share(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


def labelled_inverted(labels: Collection[Label]) -> bool:
    """Whether the latest label or draft is of the inverted grey values."""
    origins = [label.provenance for label in labels]
    latest = max(origins, key=lambda origin: origin.created, default=None)
    return latest is not None and latest.inverted


def known_of(
    project: Project, image: str, angiogram: Angiogram
) -> tuple[Angiogram, bool]:
    """Return an image as labelled, and whether it is to be inverted; slow.

    By its labels and drafts that the reader may see.
    """
    keys = [(project.reader, frame) for frame in project.labels.frames(image)]
    if project.reader == REVIEWER:
        for (owner, frame), readers in project.reference.readings().items():
            keys += [(reader, frame) for reader in readers if owner == image]
    labels: list[Label | None] = []
    for reader, frame in keys:
        with contextlib.suppress(ReadError):  # what is damaged says nothing
            labels.append(project.readers[reader].get(image, frame))
    drafts = [
        project.drafts.load(image, frame)
        for owner, frame in project.drafts.keys()
        if owner == image
    ]
    of_this_file = (None, angiogram.sha256)
    found, drawn = (
        [x for x in some if x and x.provenance.source_sha256 in of_this_file]
        for some in (labels, drafts)
    )
    inverted = project.is_inverted(image)
    if inverted is None:
        inverted = labelled_inverted([*found, *drawn])
    return as_labelled(angiogram, found), inverted
