"""What an export makes of the labels of one file: a stack, and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ProjectError
from napari_cmunet.io.label_file import Label
from napari_cmunet.io.provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.project import Project


def stack_labels(labels: Mapping[FrameKey, Label]) -> Label:
    """Put the labels of one image on each other, in their order.

    A single one stays as it is. What is not the same for all is not said of the stack:
    a model, a threshold, a pixel size.

    Returns
    -------
    Label
        Mask and reviewed part are (T, Y, X), a page for each label.

    Raises
    ------
    ProjectError
        If they are not of one size.
    """
    parts = list(labels.values())
    if len(parts) == 1:
        return parts[0]
    if len({part.mask.shape for part in parts}) > 1:
        raise ProjectError(
            "the masks of this cine are not of one size; export its frames as files of "
            "their own."
        )
    reviewed = None
    if any(part.reviewed is not None for part in parts):
        reviewed = np.stack(
            [
                np.ones_like(part.mask) if part.reviewed is None else part.reviewed
                for part in parts
            ]
        )
    origins = [part.provenance for part in parts]
    return Label(
        np.stack([part.mask for part in parts]),
        reviewed,
        Provenance(
            model=_common(origin.model for origin in origins),
            model_sha256=_common(origin.model_sha256 for origin in origins),
            threshold=_common(origin.threshold for origin in origins),
            device=_common(origin.device for origin in origins),
            source_sha256=_common(origin.source_sha256 for origin in origins),
            frames=tuple(frame for _, frame in labels),
            corrected=any(origin.corrected for origin in origins),
            created=max(origin.created for origin in origins),
        ),
        _common(part.pixel_size_mm for part in parts),
        {
            "pixel_size_source": _common(
                part.note.get("pixel_size_source") for part in parts
            )
        },
    )


def pixels_changed(project: Project) -> dict[FrameKey, int]:
    """How many pixels the reader changed in each label, as far as the journal knows."""
    changed: dict[FrameKey, int] = {}
    for entry in project.journal():
        if entry.what != "accepted" or entry.image is None or entry.frame is None:
            continue
        key = (entry.image, entry.frame)
        count = entry.details.get("pixels_changed")
        # The latest counts, also where it says nothing.
        changed.pop(key, None)
        same = entry.details.get("sha256") == project.labels.hash(*key)
        if same and type(count) is int:
            changed[key] = count
    return changed


def _common(values):
    """What all have, None if they differ."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else None
