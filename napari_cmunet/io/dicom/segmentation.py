"""Write masks as DICOM Segmentation objects, of single frames and of cines.

X-ray projections have no Frame of Reference. Then each pixel of a segmentation
belongs to a pixel of a referenced image (PS3.3 A.51.5.1): every frame names the frame
that it was derived from, and there is no plane geometry. Pixel Measures are tied to a
Frame of Reference too (table A.51-2), so that a known pixel size is stored as Pixel
Spacing of the whole object: an addition of the kind that PS3.2 allows to a Standard
Extended SOP Class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import Dataset, uid
from pydicom.pixels import pack_bits

from napari_cmunet.errors import WriteError
from napari_cmunet.io.dicom.derived import (
    coded,
    make_derived,
    read_source,
    save_derived,
)
from napari_cmunet.vessels.segments import UNNAMED, vessel_code, vessel_title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import FileDataset

    from napari_cmunet.io.dicom.derived import DicomSource
    from napari_cmunet.io.provenance import Provenance

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
