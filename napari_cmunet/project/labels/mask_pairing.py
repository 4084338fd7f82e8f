"""Pair masks of other programs with the images of a project, by name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.errors import ProjectError, ReadError, display_name
from napari_cmunet.io.discovery import stem_of
from napari_cmunet.io.sniffing import SUFFIXES, is_dicom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.io.masks.foreign_masks import ForeignMask
    from napari_cmunet.project.project import Project

# What other programs add to the name of the image.
_WORD = (
    "masks?|seg|segmentation|labels?|gt|ground[_-]?truth|manual|annotation|arter(y|ies)"
)
_ADDED = re.compile(rf"^(({_WORD})[_\-. ]+)|([_\-. ]+({_WORD}))$", re.IGNORECASE)
_FRAME = re.compile(r"_frame_(\d{4,6})$")  # as this program exports frames
_CHANNEL = re.compile(r"_0000$")  # as nnU-Net names images


@dataclass
class ImageIndex:
    """The images of a project, by what masks may call them."""

    by_stem: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    paths: dict[str, Path] = field(default_factory=dict)
    by_uid: dict[str, str] = field(default_factory=dict)


def index_images(project: Project, *, with_uids: bool) -> ImageIndex:
    """List the images of a project, as :func:`index_files` does."""
    paths = {}
    for record in project.images:
        try:
            paths[record.id] = project.images.path(record.id)
        except ProjectError:  # only its labels are left, or its disk is away
            paths[record.id] = Path(record.path or record.id)
    return index_files(paths, with_uids=with_uids)


def index_files(paths: dict[str, Path], *, with_uids: bool) -> ImageIndex:
    """List images, given by id, by name and, which is slow, by DICOM identifier."""
    # Deferred: importing pydicom is slow.
    from napari_cmunet.io.dicom.derived import read_source

    index = ImageIndex(paths=paths)
    for image, path in paths.items():
        stem = stem_of(path)
        for name in {image, stem, _CHANNEL.sub("", stem), path.name}:
            index.by_stem[_folded(name)].append(image)
        if with_uids and is_dicom(path):
            try:
                index.by_uid[read_source(path).sop_instance] = image
            except ReadError:
                continue
    return index


def pair(index: ImageIndex, mask: ForeignMask) -> tuple[str, ForeignMask]:
    """Return the image of a mask, and the mask with the frames that its name tells.

    Raises
    ------
    ReadError
        If there is no such image, or more than one.
    """
    if mask.source_uid:
        image = index.by_uid.get(mask.source_uid)
        if image is None:
            raise ReadError(
                mask.path,
                "the image that it belongs to is not in the project.",
                mask_name(mask),
            )
        return image, mask
    for name, frame in _names(mask.name):
        images = index.by_stem.get(_folded(name), [])
        if len(images) > 1:
            images = _in_same_folder(index, mask, images)
        if len(images) == 1:
            if frame is not None and mask.frames is None:
                mask = replace(mask, frames=(frame,))
            return images[0], mask
        if images:
            raise ReadError(
                mask.path,
                f"{len(images)} images of the project have this name. Give the folder "
                "of the masks, with subfolders as the images have.",
                mask_name(mask),
            )
    raise ReadError(
        mask.path, "no image of the project has this name.", mask_name(mask)
    )


def _names(stem: str) -> Iterator[tuple[str, int | None]]:
    """Yield what the image may be called, the likeliest first, and the frame."""
    frame = None
    yield stem, frame
    if match := _FRAME.search(stem):
        stem, frame = stem[: match.start()], int(match[1])
        yield stem, frame
    if Path(stem).suffix.lower() in SUFFIXES:  # a.png.tif
        stem = stem_of(Path(stem))
        yield stem, frame
    while (shorter := _ADDED.sub("", stem)) not in ("", stem):
        stem = shorter
        yield stem, frame


def _in_same_folder(
    index: ImageIndex, mask: ForeignMask, images: list[str]
) -> list[str]:
    """Return the images whose folders end as the mask's do."""
    parts = tuple(map(_folded, mask.relative.parent.parts))
    same = [
        image
        for image in images
        if parts
        and tuple(map(_folded, index.paths[image].parent.parts))[-len(parts) :] == parts
    ]
    return same or images


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def mask_name(mask: ForeignMask) -> str:
    """Return the name of a mask as it may be shown."""
    if mask.kind == "DICOM SEG":
        from napari_cmunet.io.dicom.identity import safe_name

        return safe_name(mask.path)
    inner = f" [{display_name(mask.name)}]" if mask.kind == "COCO" else ""
    return display_name(mask.path) + inner
