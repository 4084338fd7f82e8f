"""COCO annotations: write masks as run lengths, read polygons and run lengths.

Polygons are drawn as COCO's own tools draw them, pixel for pixel. The annotations of an
image are taken together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.provenance import NOTICE, program_version
from napari_cmunet.util.safe_files import atomic_write, read_plain
from napari_cmunet.util.text import parse_json
from napari_cmunet.vessels.segments import UNNAMED, VALUES, vessel_title

if TYPE_CHECKING:
    from pathlib import Path

ARTERY = 1
"""Id of the only COCO category where vessels are not named."""

_MAX_BYTES = 2**28
_FINE = 5
_FARTHEST = 2**17  # pixels, of a corner
_LONGEST = 2**22  # pixels, of an outline
_Side = Annotated[int, Field(gt=0, lt=2**20)]


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


# -- reading -----------------------------------------------------------------------


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file."""

    id: int | str
    file_name: str
    height: _Side
    width: _Side


@dataclass(frozen=True)
class CocoAnnotation:
    """An outlined object of an image."""

    image_id: int | str
    category_id: int | str
    segmentation: Any = None  # polygons, or run lengths; None: a box alone
    iscrowd: int = 0  # 1: a region that evaluation ignores


@dataclass(frozen=True)
class _Category:
    id: int | str
    name: str


@dataclass(frozen=True)
class CocoAnnotations:
    """The content of a COCO file."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[_Category]

    def names(self) -> list[str]:
        """Return the names of the categories that annotations have."""
        used = {a.category_id for a in self.annotations}
        known = {c.id: c.name for c in self.categories}
        return [known.get(i, str(i)) for i in sorted(used, key=str)]

    def of(self, image: CocoImage, names: list[str]) -> list[CocoAnnotation]:
        """Return the annotations of an image in these categories."""
        known = {c.id: c.name for c in self.categories}
        return [
            a
            for a in self.annotations
            if a.image_id == image.id
            and known.get(a.category_id, str(a.category_id)) in names
        ]


_CONTENT = TypeAdapter(CocoAnnotations)


def read_coco(path: Path) -> CocoAnnotations | None:
    """Read a COCO file; None if the JSON is of another kind.

    Raises
    ------
    ReadError
        If the file cannot be read, or is damaged.
    """
    try:
        data = read_plain(path, _MAX_BYTES)
    except OSError as error:
        raise ReadError(path, "it cannot be read. Check the name.") from error
    if data is None:
        raise ReadError(path, "it is too large for annotations. Split it.")
    try:
        values = parse_json(data)
    except ValueError as error:
        raise ReadError(path, "it is no JSON, or damaged. Export it again.") from error
    if not isinstance(values, dict) or not {"images", "annotations"} <= values.keys():
        return None
    try:
        return _CONTENT.validate_python({"categories": [], **values})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise ReadError(
            path, f"its annotations are damaged ({where}). Export it again."
        ) from error


def draw_mask(
    path: Path, image: CocoImage, annotations: list[CocoAnnotation]
) -> np.ndarray:
    """Return the mask of an image, bool (Y, X); raises ReadError."""
    if image.height * image.width > ReadLimits().max_frame_pixels:
        raise ReadError(path, "an image in it is larger than any angiogram.")
    mask = np.zeros((image.height, image.width), bool)
    for annotation in annotations:
        try:
            _draw(mask, annotation.segmentation)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ReadError(
                path, "the outline of an artery in it is damaged. Export it again."
            ) from error
    return mask


def _draw(mask: np.ndarray, segmentation: Any) -> None:
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        if (height, width) != mask.shape:
            raise ValueError("run lengths of another size")
        mask |= decode_run_lengths(segmentation["counts"], mask.shape)
        return
    if not segmentation:
        raise ValueError("a box without an outline")
    for outline in segmentation:
        points = np.asarray(outline, np.float64).reshape(-1, 2)
        if len(points) < 3 or not (np.abs(points) < _FARTHEST).all():
            raise ValueError("no polygon")
        if np.abs(np.diff(points, axis=0)).sum() > _LONGEST:
            raise ValueError("an outline that is longer than any artery's")
        mask |= _inside(points, mask.shape)


def _inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which pixels have their centre in a polygon of (x, y), even-odd.

    COCO rounds corners to fifths of a pixel. Walking down each column of pixels, every
    crossing of the outline begins or ends a run.
    """
    height, width = shape
    corners = np.trunc(_FINE * points + 0.5).astype(np.int64)
    steps = [_line(a, b) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    x, y = np.concatenate(steps).T
    crossing = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[crossing], x[crossing + 1]) + 0.5) / _FINE - 0.5
    row = (np.minimum(y[crossing], y[crossing + 1]) + 0.5) / _FINE - 0.5
    centred = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    rows = np.ceil(np.clip(row[centred], 0, height)).astype(np.int64)
    at = column[centred].astype(np.int64) * height + rows
    toggles = np.bincount(at, minlength=height * width + 1)[: height * width]
    return (np.cumsum(toggles) % 2 == 1).reshape(shape, order="F")


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the grid points (x, y) of a line, both ends included."""
    across = np.abs(end - start)
    long = 0 if across[0] >= across[1] else 1
    backward = start[long] > end[long]
    first, last = (end, start) if backward else (start, end)
    along = np.arange(across[long] + 1)
    slope = (last - first)[1 - long] / max(across[long], 1)
    found = np.empty((len(along), 2), np.int64)
    found[:, long] = first[long] + along
    found[:, 1 - long] = np.trunc(first[1 - long] + slope * along + 0.5)
    return found[::-1] if backward else found


def decode_run_lengths(counts: list[int] | str, shape: tuple[int, int]) -> np.ndarray:
    """Decode the run lengths of a mask, plain or in COCO's compressed form."""
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    lengths = np.asarray(runs, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() > shape[0] * shape[1]:
        raise ValueError("run lengths that do not fit")
    drawn = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    flat = np.zeros(shape[0] * shape[1], bool)
    flat[: len(drawn)] = drawn
    return flat.reshape(shape, order="F")


def _uncompressed(text: str) -> list[int]:
    """Decode COCO's text: six bits a character, from the third run as differences."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value = shift = 0
        more = True
        while more:
            if at >= len(text) or shift > 60:
                raise ValueError("run lengths cut short")
            bits = ord(text[at]) - 48
            if not 0 <= bits < 64:
                raise ValueError("no run lengths")
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            at, shift = at + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
