"""COCO annotations: masks as run lengths in one JSON file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.io.provenance import NOTICE, program_version
from napari_cmunet.util.atomic import atomic_write
from napari_cmunet.vessels.segments import UNNAMED, VALUES, vessel_title

if TYPE_CHECKING:
    from pathlib import Path

ARTERY = 1
"""Id of the only COCO category where vessels are not named."""


class CocoFile:
    """COCO annotations of many frames: one JSON file with masks as run lengths.

    Each frame with arteries has one annotation, which holds all of them. What was not
    reviewed is a crowd region (``iscrowd`` 1), which evaluation ignores.

    Parameters
    ----------
    named : bool
        Whether each SYNTAX segment is a category, with one annotation in a frame.
    """

    def __init__(self, *, named: bool = False) -> None:
        self._named = named
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        mask: np.ndarray,
        reviewed: np.ndarray | None = None,
        values: np.ndarray | None = None,
        **facts: Any,
    ) -> None:
        """Add a frame.

        Parameters
        ----------
        name : str
            Name of its image file, ``file_name``.
        mask : bool array (Y, X)
        reviewed : bool array (Y, X), optional
            Where the mask is known; everywhere by default.
        values : uint8 array (Y, X), optional
            Map of the segments' values, for a named file.
        **facts
            Further JSON values for the image.
        """
        height, width = mask.shape
        number = len(self._images) + 1
        self._images.append(
            {
                "id": number,
                "file_name": name,
                "height": height,
                "width": width,
                **facts,
            }
        )
        if reviewed is not None:
            self._annotate(number, ~reviewed, crowd=True)
            mask = mask & reviewed
        if values is None:
            self._annotate(number, mask)
            return
        for value in np.unique(values[mask]).tolist():
            self._annotate(number, mask & (values == value), value)

    def _annotate(
        self,
        image: int,
        mask: np.ndarray,
        category: int | None = None,
        *,
        crowd: bool = False,
    ) -> None:
        if not mask.any():
            return
        rows, columns = np.nonzero(mask)
        left, top = int(columns.min()), int(rows.min())
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": image,
                "category_id": category or (UNNAMED if self._named else ARTERY),
                "segmentation": {
                    "size": list(mask.shape),
                    "counts": run_lengths(mask),
                },
                "area": int(mask.sum()),
                "bbox": [
                    left,
                    top,
                    int(columns.max()) - left + 1,
                    int(rows.max()) - top + 1,
                ],
                "iscrowd": int(crowd),
            }
        )

    def write(self, path: Path) -> None:
        """Write the file atomically; raise WriteError on failure."""
        content = {
            "info": {
                "description": f"Coronary arteries. {NOTICE}",
                "version": program_version(),
                "contributor": "napari-cmunet",
            },
            "licenses": [],
            "categories": [
                {"id": value, "name": vessel_title(name), "supercategory": "vessel"}
                for value, name in (
                    [(value, value) for value in (*VALUES.values(), UNNAMED)]
                    if self._named
                    else [(ARTERY, UNNAMED)]
                )
            ],
            "images": self._images,
            "annotations": self._annotations,
        }
        with atomic_write(path, "w") as file:
            json.dump(content, file)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Encode a mask as run lengths in column-major order, starting with False."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], edges, [mask.size]])
    lengths = np.diff(ends).tolist()
    # The last run of False is left out where there is none.
    return lengths[:-1] if lengths[-1] == 0 else lengths
