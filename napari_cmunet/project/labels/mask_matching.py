"""Match masks of other programs to images: by name, then in size and orientation."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy

from napari_cmunet.errors import ProjectError, ReadError, display_name
from napari_cmunet.io.discovery import stem_of
from napari_cmunet.io.sniffing import SUFFIXES, is_dicom
from napari_cmunet.util.text import folded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.files import LargeMasks
    from napari_cmunet.io.masks.foreign_masks import ForeignMask, MaskPages
    from napari_cmunet.project.project import Project

# -- by name -----------------------------------------------------------------------

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
            index.by_stem[folded(name)].append(image)
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
        images = index.by_stem.get(folded(name), [])
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
    parts = tuple(map(folded, mask.relative.parent.parts))
    same = [
        image
        for image in images
        if parts
        and tuple(map(folded, index.paths[image].parent.parts))[-len(parts) :] == parts
    ]
    return same or images


def mask_name(mask: ForeignMask) -> str:
    """Return the name of a mask as it may be shown."""
    if mask.kind == "DICOM SEG":
        from napari_cmunet.io.dicom.identity import safe_name

        return safe_name(mask.path)
    inner = f" [{display_name(mask.name)}]" if mask.kind == "COCO" else ""
    return display_name(mask.path) + inner


# -- in size, frames and orientation -----------------------------------------------


@dataclass(frozen=True)
class FittedMask:
    """A mask as the frames of its image."""

    image: Angiogram
    frames: dict[int, np.ndarray]  # bool (Y, X)
    pages: MaskPages
    reviewed: dict[int, np.ndarray | None]


def fit_to_image(
    mask: ForeignMask,
    angiogram: Angiogram,
    *,
    large_masks: LargeMasks = "refuse",
    any_orientation: bool = False,
) -> FittedMask:
    """Read a mask and check that it fits its image; raises ReadError."""
    try:
        fitted = read_for_image(mask, angiogram, large_masks=large_masks)
    except ReadError as error:
        raise _explained(error, mask, angiogram) from error
    made = fitted.pages.provenance
    if made and made.source_sha256 not in (None, angiogram.sha256):
        raise ReadError(mask.path, "it was made of another image file.")
    if not any_orientation:
        frames = fitted.frames
        fullest = max(frames, key=lambda frame: int(frames[frame].sum()))
        pixels = np.asarray(angiogram.frames[fullest])
        if wrong := better_orientation(pixels, frames[fullest]):
            raise ReadError(
                mask.path,
                f"it fits its image better {wrong} than as it is. Export it on the "
                "image's own grid.",
            )
    return fitted


def read_for_image(
    mask: ForeignMask,
    angiogram: Angiogram,
    *,
    large_masks: LargeMasks = "refuse",
) -> FittedMask:
    """Read a mask that may be turned, or of another file with the same picture.

    Raises
    ------
    ReadError
    """
    count, *size = angiogram.frames.shape
    numbers = mask.frames or None
    if numbers is not None and len(numbers) > 1 and not angiogram.is_cine:
        raise ReadError(mask.path, "it has several frames, its image only one.")
    if numbers and max(numbers) >= count:
        raise ReadError(
            mask.path, f"it is of frame {max(numbers)}; its image has {count} frame(s)."
        )
    if numbers is None:
        shape = angiogram.shape
    else:
        shape = (len(numbers), *size) if len(numbers) > 1 else tuple(size)
    pages = mask.read(shape, large_masks)
    made = pages.provenance
    stack = pages.mask.reshape(-1, *size)
    seen = None if pages.reviewed is None else pages.reviewed.reshape(stack.shape)
    named = range(count) if numbers is None else numbers
    corrected = made is not None and made.corrected
    frames = {
        frame: page
        for n, (frame, page) in enumerate(zip(named, stack, strict=True))
        # A frame of a stack that nobody labelled is empty.
        if page.any()
        or len(stack) == 1
        or corrected
        or (numbers is not None and seen is not None and seen[n].any())
    }
    if not frames:
        raise ReadError(mask.path, "no artery is marked in any frame.")
    reviewed = {
        frame: None if seen is None or seen[n].all() else seen[n]
        for n, frame in enumerate(named)
    }
    for frame in frames:
        part = reviewed[frame]
        if part is not None and not part.any():
            raise ReadError(mask.path, f"nothing of frame {frame} was reviewed.")
    return FittedMask(angiogram, frames, pages, reviewed)


def _explained(error: ReadError, mask: ForeignMask, image: Angiogram) -> ReadError:
    if mask.frames is None and image.is_cine and " x " in error.reason:
        text = f"{error.reason} For one frame of a cine, end its name in _frame_0007."
        return ReadError(error.path, text, error.shown)
    return error


def mask_problem(mask: ForeignMask, error: Exception) -> str:
    """Return why a mask cannot be used, in a sentence with its name."""
    reason = error.reason if isinstance(error, ReadError) else str(error)
    return f"{mask_name(mask)}: {reason}"


_FINE, _COARSE = 1.0, 12.0  # standard deviations, in pixels of 512
_CLEARLY = 0.1
"""Correlation that another orientation must have more than the mask's own."""
_TURNS = {
    "upside down": lambda mask: mask[::-1],
    "mirrored": lambda mask: mask[:, ::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
    "with rows and columns exchanged": lambda mask: mask.T,
    "turned by 90 degrees": lambda mask: np.rot90(mask),
    "turned by 270 degrees": lambda mask: np.rot90(mask, 3),
    "exchanged along the other diagonal": lambda mask: mask[::-1, ::-1].T,
}


def better_orientation(frame: np.ndarray, mask: np.ndarray) -> str:
    """Return how a mask seems to lie wrongly on its frame; empty if it does not.

    Arteries differ from what is around them, so that the mask correlates with the local
    contrast. Of a mask that was mirrored or turned, another orientation does.

    Parameters
    ----------
    frame : array (Y, X)
    mask : bool array (Y, X)
    """
    if not mask.any() or mask.all():
        return ""
    contrast = _local_contrast(frame)
    own = _correlation(contrast, mask)
    found = {
        name: _correlation(contrast, turned)
        for name, turn in _TURNS.items()
        if (turned := turn(mask)).shape == mask.shape
    }
    name = max(found, key=lambda n: found[n])
    return name if found[name] > max(2 * own, own + _CLEARLY) else ""


def _local_contrast(frame: np.ndarray) -> np.ndarray:
    scale = max(frame.shape) / 512
    grey = frame.astype(np.float32)
    difference = scipy.ndimage.gaussian_filter(
        grey, _FINE * scale
    ) - scipy.ndimage.gaussian_filter(grey, _COARSE * scale)
    # Robust against devices and letters.
    limit = 3 * float(np.std(difference)) or 1.0
    return np.clip(difference, -limit, limit)


def _correlation(contrast: np.ndarray, mask: np.ndarray) -> float:
    spread, share = float(contrast.std()), float(mask.mean())
    if not spread:
        return 0.0
    inside = float(contrast[mask].mean() - contrast.mean())
    return abs(inside) / spread * (share / (1 - share)) ** 0.5
