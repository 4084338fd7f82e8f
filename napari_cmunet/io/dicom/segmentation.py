"""Write and read masks as DICOM Segmentation objects, of single frames and of cines.

X-ray projections have no Frame of Reference. Then each pixel of a segmentation
belongs to a pixel of a referenced image (PS3.3 A.51.5.1): every frame names the frame
that it was derived from, and there is no plane geometry. Pixel Measures are tied to a
Frame of Reference too (table A.51-2), so that a known pixel size is stored as Pixel
Spacing of the whole object: an addition of the kind that PS3.2 allows to a Standard
Extended SOP Class.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import Dataset, uid
from pydicom.pixels import pack_bits

from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.dicom.derived import (
    coded,
    make_derived,
    read_source,
    save_derived,
)
from napari_cmunet.io.dicom.header import integer, items, read_elements, text, value_of
from napari_cmunet.io.dicom.identity import shielded
from napari_cmunet.io.formats.decoded import Declared, ReadLimits
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.vessels.segments import UNNAMED, vessel_code, vessel_title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydicom import FileDataset

    from napari_cmunet.io.dicom.derived import DicomSource
    from napari_cmunet.io.provenance import Provenance
    from napari_cmunet.io.sniffing import SniffedFile

# Functional group, attribute, label of each dimension.
_DIMENSIONS = (
    ("SegmentIdentificationSequence", "ReferencedSegmentNumber", "Segment"),
    ("FrameContentSequence", "TemporalPositionIndex", "Time"),
)


def write_segmentation(
    path: Path,
    source_path: Path,
    mask: np.ndarray,
    provenance: Provenance,
    pixel_size_mm: tuple[float, float] | None = None,
    reviewed: np.ndarray | None = None,
    values: np.ndarray | None = None,
) -> None:
    """Write masks as a DICOM Segmentation, and verify it by reading back.

    Parameters
    ----------
    source_path : Path
        The DICOM file of the image.
    mask : bool array (Y, X) or (T, Y, X)
        Pages belong to the frames of ``provenance.frames``; to all by default.
    pixel_size_mm : (y, x), optional
        In the patient.
    reviewed : bool array, optional
        The part that was reviewed, of the mask's shape. What lies outside is unknown.
    values : uint8 array, optional
        Map of SYNTAX segments, of the mask's shape: each becomes a segment of its own.

    Raises
    ------
    ReadError
        If nothing can refer to the source.
    WriteError
    """
    pages = mask if mask.ndim == 3 else mask[np.newaxis]
    frames = provenance.frames or tuple(range(len(pages)))
    source = read_source(source_path, max(frames))
    vessels = {UNNAMED: pages}
    if values is not None and pages.any():
        maps = np.where(pages, values.reshape(pages.shape), 0)
        vessels = {int(value): maps == value for value in np.unique(maps[pages])}
    segments = [_vessel(value, provenance) for value in vessels]
    masks = list(vessels.values())
    if reviewed is not None:
        segments.append(_reviewed_area())
        masks.append(reviewed.reshape(pages.shape))
    for number, segment in enumerate(segments, 1):
        segment.SegmentNumber = number
    made = make_derived(
        source,
        provenance,
        uid.SegmentationStorage,
        "SEG",
        "arteries found by CM-UNet",
        pixel_size_mm,
    )
    _set_image(made, pages.shape)
    made.SegmentSequence = segments
    _set_dimensions(made)
    made.SharedFunctionalGroupsSequence = [Dataset()]
    made.PerFrameFunctionalGroupsSequence = [
        _groups_of_frame(source, number, frame, position)
        for number in range(1, len(segments) + 1)
        for position, frame in enumerate(frames, 1)
    ]
    stack = np.concatenate(masks)
    made.NumberOfFrames = len(stack)
    made.PixelData = pack_bits(stack.astype(np.uint8), pad=True)
    made["PixelData"].VR = "OB"

    def verify(temporary: Path) -> None:
        found = pydicom.dcmread(temporary).pixel_array
        if not np.array_equal(found.reshape(stack.shape) != 0, stack):
            raise WriteError(path, "what was read back is not what was written.")

    save_derived(path, made, verify)


def _set_image(made: FileDataset, shape: Sequence[int]) -> None:
    made.ContentLabel = "ARTERIES"
    made.ContentDescription = "Coronary arteries in an angiogram"
    made.ContentCreatorName = ""
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = shape[1:]
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = made.PixelRepresentation = 0
    made.LossyImageCompression = "00"
    made.SegmentationType = "BINARY"
    made.SegmentsOverlap = "YES"


def _reviewed_area() -> Dataset:
    made = Dataset()
    made.SegmentLabel = "Reviewed area"
    made.SegmentedPropertyCategoryCodeSequence = [
        coded("309825002", "SCT", "Spatial and Relational Concept")
    ]
    made.SegmentedPropertyTypeCodeSequence = [coded("111030", "DCM", "Image Region")]
    made.SegmentAlgorithmType = "MANUAL"
    return made


def _vessel(value: int, provenance: Provenance) -> Dataset:
    made = Dataset()
    title = vessel_title(value)
    made.SegmentLabel = title[0].upper() + title[1:]
    made.SegmentedPropertyCategoryCodeSequence = [
        coded("91723000", "SCT", "Anatomical Structure")
    ]
    code, meaning = vessel_code(value)
    made.SegmentedPropertyTypeCodeSequence = [coded(code, "SCT", meaning)]
    by_reader = provenance.corrected or not provenance.model
    made.SegmentAlgorithmType = "SEMIAUTOMATIC" if by_reader else "AUTOMATIC"
    made.SegmentAlgorithmName = provenance.model or provenance.program
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [
        coded("123110", "DCM", "Artificial Intelligence")
    ]
    algorithm.AlgorithmName = made.SegmentAlgorithmName
    algorithm.AlgorithmVersion = provenance.version
    made.SegmentationAlgorithmIdentificationSequence = [algorithm]
    return made


def _set_dimensions(made: FileDataset) -> None:
    organization = Dataset()
    organization.DimensionOrganizationUID = uid.generate_uid(None)
    made.DimensionOrganizationSequence = [organization]
    indices = []
    for group, attribute, label in _DIMENSIONS:
        index = Dataset()
        index.DimensionIndexPointer = pydicom.tag.Tag(attribute)
        index.FunctionalGroupPointer = pydicom.tag.Tag(group)
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionDescriptionLabel = label
        indices.append(index)
    made.DimensionIndexSequence = indices


def _groups_of_frame(
    source: DicomSource, number: int, frame: int, position: int
) -> Dataset:
    """Return the functional groups of a frame: its segment, and where it is from."""
    content = Dataset()
    content.TemporalPositionIndex = position
    content.DimensionIndexValues = [number, position]
    segment = Dataset()
    segment.ReferencedSegmentNumber = number
    derivation = Dataset()
    derivation.DerivationCodeSequence = [coded("113076", "DCM", "Segmentation")]
    derivation.SourceImageSequence = [source.image_reference(frame)]
    made = Dataset()
    made.FrameContentSequence = [content]
    made.SegmentIdentificationSequence = [segment]
    made.DerivationImageSequence = [derivation]
    return made


# -- reading -----------------------------------------------------------------------

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
