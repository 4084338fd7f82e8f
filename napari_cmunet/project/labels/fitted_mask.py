"""Fit a mask of another program to its image: size, frames, orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ReadError
from napari_cmunet.io.masks.orientation import better_orientation
from napari_cmunet.project.labels.mask_pairing import mask_name

if TYPE_CHECKING:
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.files import LargeMasks
    from napari_cmunet.io.masks.foreign_masks import ForeignMask, MaskPages


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
    count, *size = angiogram.frames.shape
    numbers = mask.frames
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
    try:
        pages = mask.read(shape, large_masks)
    except ReadError as error:
        raise _explained(error, mask, angiogram) from error
    made = pages.provenance
    if made and made.source_sha256 not in (None, angiogram.sha256):
        raise ReadError(mask.path, "it was made of another image file.")
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
    if not any_orientation:
        fullest = max(frames, key=lambda frame: int(frames[frame].sum()))
        pixels = np.asarray(angiogram.frames[fullest])
        if wrong := better_orientation(pixels, frames[fullest]):
            raise ReadError(
                mask.path,
                f"it fits its image better {wrong} than as it is. Export it on the "
                "image's own grid.",
            )
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
