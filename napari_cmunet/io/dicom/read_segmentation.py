"""Read DICOM Segmentation objects: which frames of which images are segmented."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydicom
from pydicom import uid

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.header import read_elements
from napari_cmunet.io.dicom.identity import shielded
from napari_cmunet.io.dicom.values import integer, items, text, value_of
from napari_cmunet.io.formats.decoded import Declared, ReadLimits
from napari_cmunet.io.sniffing import open_sniffed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from pydicom import Dataset

    from napari_cmunet.io.sniffing import SniffedFile

_KEYWORDS = (
    "SOPClassUID",
    "SegmentationType",
    "SegmentSequence",
    "MaximumFractionalValue",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_LIMITS = ReadLimits(min_side=1, max_decoded_bytes=2**30)
_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_KINDS = (uid.SegmentationStorage, _LABEL_MAP)


@dataclass(frozen=True)
class SegmentedFrame:
    """A frame of a segmentation."""

    index: int  # in the segmentation
    segment: int | None  # None: pixels are numbers of segments
    source_uid: str  # of the image that it belongs to; empty if that is not said
    source_frame: int  # index in that image


@dataclass(frozen=True)
class Segmentation:
    """What a segmentation says of itself."""

    path: Path
    kind: str  # BINARY, FRACTIONAL or LABELMAP
    segments: dict[int, str]  # labels by number
    frames: list[SegmentedFrame]
    shape: tuple[int, int]
    full: int  # value of a pixel that is certain, of a FRACTIONAL one


def is_segmentation(path: Path) -> bool:
    """Whether a DICOM file is a segmentation; raises ReadError."""
    try:
        with open_sniffed(path) as file:
            found = text(read_elements(file, ("SOPClassUID",)), "SOPClassUID")
            return found in _KINDS
    except ReadError as error:
        raise shielded(error) from None
    except Exception:  # noqa: BLE001 - whatever pydicom raises
        return False


def read_segmentation(path: Path) -> Segmentation:
    """Read the header of a segmentation; raises ReadError."""
    with _shielding(path), open_sniffed(path) as file:
        return _read(file, read_elements(file, _KEYWORDS))


@contextlib.contextmanager
def _shielding(path: Path) -> Iterator[None]:
    """Turn errors of pydicom, which quote values of the file, into one of our own."""
    try:
        yield
    except ReadError as error:
        raise shielded(error) from None
    except (MemoryError, OSError):
        raise
    except Exception:  # noqa: BLE001
        reason = "the segmentation is damaged. Copy or export it again."
        raise shielded(ReadError(path, reason)) from None


def _read(file: SniffedFile, dataset: Dataset) -> Segmentation:
    shape = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    count = integer(dataset, "NumberOfFrames") or 1
    Declared(count, *shape).check(file, _LIMITS)
    segments = {
        number: str(value_of(item, "SegmentLabel") or number)[:64]
        for item in items(dataset, "SegmentSequence")
        if (number := integer(item, "SegmentNumber")) is not None
    }
    kind = text(dataset, "SegmentationType")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or not segments:
        raise file.error("it does not say what its segments are. Export it again.")
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(groups) != count:
        raise file.error("it does not say what its frames are. Export it again.")
    frames = [
        _frame(file, index, [group, *shared], kind)
        for index, group in enumerate(groups)
    ]
    full = integer(dataset, "MaximumFractionalValue") or 255
    return Segmentation(file.path, kind, segments, frames, shape, full)


def _frame(
    file: SniffedFile, index: int, groups: list[Dataset], kind: str
) -> SegmentedFrame:
    segment = None
    for group in groups:
        for item in items(group, "SegmentIdentificationSequence")[:1]:
            segment = integer(item, "ReferencedSegmentNumber")
    if segment is None and kind != "LABELMAP":
        raise file.error("a frame of it belongs to no segment. Export it again.")
    for group in groups:
        for derivation in items(group, "DerivationImageSequence"):
            for source in items(derivation, "SourceImageSequence")[:1]:
                number = integer(source, "ReferencedFrameNumber") or 1
                name = str(value_of(source, "ReferencedSOPInstanceUID") or "")
                return SegmentedFrame(index, segment, name, number - 1)
    return SegmentedFrame(index, segment, "", 0)


def read_segments(found: Segmentation) -> np.ndarray:
    """Read the pixels of all frames.

    Returns
    -------
    array (T, Y, X)
        bool; numbers of segments of a LABELMAP. A FRACTIONAL pixel is set from half of
        the largest value on.

    Raises
    ------
    ReadError
    """
    shape = len(found.frames), *found.shape
    with _shielding(found.path), open_sniffed(found.path) as file:
        dataset = pydicom.dcmread(file.handle, force=True)
        needed = math.prod(shape) * dataset.BitsAllocated // 8
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed and len(dataset.PixelData) < needed:
            raise file.error("it is cut short. Copy or export it again.")
        pixels = dataset.pixel_array.reshape(shape)
    if found.kind == "LABELMAP":
        return pixels
    if found.kind == "FRACTIONAL":
        return pixels >= (found.full + 1) // 2
    return pixels != 0
