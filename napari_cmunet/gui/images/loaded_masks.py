"""Masks of other programs as the masks of open images, to be corrected."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.foreign_masks import find_masks
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.labels.mask_matching import (
    fit_to_image,
    index_files,
    mask_name,
    mask_problem,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.images.open_images import OpenImages
    from napari_cmunet.gui.jobs import Report, ShouldStop


@dataclass(frozen=True)
class LoadedMask:
    """A mask that was read for an open image."""

    path: Path  # of the image
    name: str  # of the mask's file
    frames: dict[int, np.ndarray]  # bool (Y, X)
    provenance: Provenance


@dataclass
class LoadedMasks:
    """The masks that fit an open image, and why others do not."""

    masks: list[LoadedMask] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_masks(
    inputs: Sequence[Path],
    images: Sequence[Path],
    shown: Path | None,
    report: Report,
    should_stop: ShouldStop,
) -> LoadedMasks:
    """Read masks for open images, paired by name; for workers.

    Parameters
    ----------
    inputs : sequence of Path
        Files and folders of masks.
    images : sequence of Path
        The files of the open images.
    shown : Path, optional
        The image that a single mask of any name is for.
    """
    found = find_masks(inputs)
    loaded = LoadedMasks(problems=list(found.problems))
    with_uids = any(mask.source_uid for mask in found.masks)
    index = index_files({str(path): path for path in images}, with_uids=with_uids)
    for number, mask in enumerate(found.masks):
        if should_stop():
            break
        report(number, len(found.masks))
        try:
            try:
                key, mask = pair(index, mask)
                path = index.paths[key]
            except ReadError:
                if shown is None or len(found.masks) > 1 or mask.source_uid:
                    raise
                path = shown
            fitted = fit_to_image(mask, read_angiogram(path))
            made = replace(
                fitted.pages.provenance or Provenance(),
                imported_from=mask.kind,
                imported_sha256=mask.sha256(),
            )
        except (CMUNetError, OSError) as error:
            text = mask_problem(mask, error)
            loaded.problems.append(text.replace("of the project ", "that is open "))
            continue
        loaded.masks.append(LoadedMask(path, mask_name(mask), fitted.frames, made))
    return loaded


def show_masks(
    images: OpenImages, masks: Sequence[tuple[ImageState, LoadedMask]]
) -> None:
    """Let masks be those of open images, each frame in one undo step."""
    for image_state, mask in masks:
        for frame, pixels in mask.frames.items():
            image_state.own_masks[frame] = pixels.copy()
            image_state.origins[frame] = mask.provenance
            if image_state.usable_mask:
                image_state.replace(frame, pixels)
        if not image_state.usable_mask:
            images.add_mask(image_state)
