"""Write masks as DICOM Segmentation objects with highdicom, an optional extra.

They refer to their source by unique identifiers alone; the patient's name and other
identifying elements stay empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import Dataset, uid

from napari_cmunet.errors import ReadError, UsageError, WriteError
from napari_cmunet.io.dicom.header import read_elements
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.util.atomic import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.io.provenance import Provenance

_UNIQUE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
)
_GRID = ("Rows", "Columns", "NumberOfFrames")
# Type 2: required, may be empty.
_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def require_highdicom() -> None:
    """Raise UsageError with instructions if highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "DICOM segmentations need highdicom. Install it with: "
            'pip install "napari-cmunet[dicom-seg]"'
        ) from error


def why_no_segmentation(path: Path, pixel_size_mm: tuple[float, float] | None) -> str:
    """Return why a file can have no DICOM segmentation; empty if it can."""
    try:
        with open_sniffed(path) as source:
            if source.kind != "DICOM":
                return "its image is no DICOM file"
            dataset = read_elements(source, _UNIQUE + _GRID)
    except ReadError as error:
        return error.reason
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return (
            "its image is a cine without a place in space (Frame of Reference), for "
            "which highdicom makes none"
        )
    if any(not dataset.get(keyword) for keyword in _UNIQUE):
        return "its image lacks unique identifiers to refer to"
    if pixel_size_mm is None and _is_multiframe_kind(dataset):
        return "its pixel size is not known"
    return ""


def write_segmentation(
    path: Path,
    source_path: Path,
    mask: np.ndarray,
    provenance: Provenance,
    pixel_size_mm: tuple[float, float] | None,
) -> None:
    """Write a mask (Y, X) as a DICOM Segmentation, and verify it by reading back.

    Parameters
    ----------
    source_path : Path
        The DICOM file of the image; see :func:`why_no_segmentation`.

    Raises
    ------
    WriteError
    """
    import highdicom
    from highdicom.seg import Segmentation, SegmentationTypeValues

    made = Segmentation(
        source_images=[_anonymous_source(source_path, pixel_size_mm)],
        pixel_array=mask[np.newaxis],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(provenance)],
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=provenance.program,
        manufacturer_model_name=provenance.program,
        software_versions=provenance.version,
        device_serial_number="none",
        series_description="Research only: arteries found by CM-UNet",
    )

    def verify(temporary: Path) -> None:
        found = pydicom.dcmread(temporary).pixel_array
        if not np.array_equal(found.reshape(mask.shape) != 0, mask):
            raise WriteError(path, "what was read back is not what was written.")

    with atomic_write(path, verify=verify) as handle:
        made.save_as(handle)


def _anonymous_source(path: Path, size: tuple[float, float] | None) -> Dataset:
    """Return only the elements of the source that a reference needs."""
    with open_sniffed(path) as source:
        read = read_elements(source, _UNIQUE + _GRID)
    made = Dataset()
    for keyword in (*_UNIQUE, "Rows", "Columns"):
        setattr(made, keyword, read[keyword].value)
    for keyword in _EMPTY:
        setattr(made, keyword, "")
    made.Modality = "XA"
    if size is not None:
        made.PixelSpacing = [float(f"{side:.10g}") for side in size]
    if _is_multiframe_kind(read):
        made.NumberOfFrames = 1
        measures, shared = Dataset(), Dataset()
        measures.PixelSpacing = made.PixelSpacing
        measures.SliceThickness = (
            None  # a projection has none; highdicom requires the element
        )
        shared.PixelMeasuresSequence = [measures]
        made.SharedFunctionalGroupsSequence = [shared]
        made.PerFrameFunctionalGroupsSequence = [Dataset()]
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return made


def _is_multiframe_kind(dataset: Dataset) -> bool:
    """Whether objects of this class may hold several frames, such as XA."""
    return dataset.SOPClassUID != uid.SecondaryCaptureImageStorage


def _description(provenance: Provenance):
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    corrected = provenance.corrected or not provenance.model
    automatic = SegmentAlgorithmTypeValues.AUTOMATIC
    return SegmentDescription(
        segment_number=1,
        segment_label="Coronary artery",
        segmented_property_category=CodedConcept(
            "91723000", "SCT", "Anatomical structure"
        ),
        segmented_property_type=CodedConcept("41801008", "SCT", "Coronary artery"),
        algorithm_type=(
            SegmentAlgorithmTypeValues.SEMIAUTOMATIC if corrected else automatic
        ),
        algorithm_identification=AlgorithmIdentificationSequence(
            provenance.model or provenance.program,
            codes.DCM.ArtificialIntelligence,
            provenance.version,
        ),
    )
