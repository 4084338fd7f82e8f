"""Files for other programs: COCO annotations, CSV tables, PNG overlays."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_cmunet.io.provenance import NOTICE, program_version
from napari_cmunet.util.atomic import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ARTERY = 1
"""Id of the only COCO category."""
# Start of a formula, in full width too, at the start of a cell; also of one that a
# spreadsheet makes by itself, since many take semicolons for separators.
_FORMULA = re.compile(r"(^|[;|\t\r\n])(?=\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
# Orange that lets the vessel through and suits every kind of colour vision.
COLOUR, _OPACITY = (255, 140, 0), 0.45


class CocoFile:
    """COCO annotations of many frames: one JSON file with masks as run lengths.

    Each frame with arteries has one annotation, which holds all of them.
    """

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, mask: np.ndarray, **facts: Any) -> None:
        """Add a frame.

        Parameters
        ----------
        name : str
            Name of its image file, ``file_name``.
        mask : bool array (Y, X)
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
        if not mask.any():
            return
        rows, columns = np.nonzero(mask)
        left, top = int(columns.min()), int(rows.min())
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": number,
                "category_id": ARTERY,
                "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
                "area": int(mask.sum()),
                "bbox": [
                    left,
                    top,
                    int(columns.max()) - left + 1,
                    int(rows.max()) - top + 1,
                ],
                "iscrowd": 0,
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
                {"id": ARTERY, "name": "coronary artery", "supercategory": "vessel"}
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


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> None:
    """Write rows as CSV, atomically, with no cell that a spreadsheet runs as formula.

    A column that a row lacks stays empty.

    Raises
    ------
    WriteError
    """
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(column, "")) for column in columns])


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode()  # names of files may be no text
    return _FORMULA.sub(r"\1'", text)


def write_overlay(
    path: Path,
    frame: np.ndarray,
    mask: np.ndarray,
    window: tuple[float, float] | None = None,
) -> None:
    """Write a PNG of a frame (Y, X) with its mask (Y, X, bool) in orange.

    Parameters
    ----------
    window : (low, high), optional
        Grey values to show as black and white; nearly all of the frame's by default.

    Raises
    ------
    WriteError
    """
    colour = np.repeat(grey_levels(frame, window)[..., None], 3, axis=-1)
    mixed = (1 - _OPACITY) * colour + _OPACITY * np.array(COLOUR)
    colour[mask] = mixed[mask]
    with atomic_write(path) as handle:
        Image.fromarray(colour.round().astype(np.uint8)).save(handle, "PNG")


def grey_levels(
    frame: np.ndarray, window: tuple[float, float] | None = None
) -> np.ndarray:
    """Return a frame (Y, X) as it is shown, float64 from 0 to 255.

    Parameters
    ----------
    window : (low, high), optional
        Grey values to show as black and white; nearly all of the frame's by default.
    """
    low, high = window or np.percentile(frame, (0.5, 99.5))
    scale = 255 / max(high - low, 1e-9)
    return np.clip((frame.astype(np.float64) - low) * scale, 0, 255)
