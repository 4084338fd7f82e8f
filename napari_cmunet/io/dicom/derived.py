"""DICOM objects derived from an angiogram: the parts that they have in common.

They refer to their source by unique identifiers. The patient's name and other
identifying elements stay empty: an archive knows the patient of the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom import Dataset, FileDataset, FileMetaDataset, uid
from pydicom.valuerep import DSfloat

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.header import read_elements
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.util.safe_files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.io.provenance import Provenance

PATIENT_AND_STUDY = (
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
"""Required of every object, and empty in those that are written here."""

_UNIQUE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class DicomSource:
    """The image that an object is derived from."""

    sop_class: str
    sop_instance: str
    study: str
    series: str
    frames: int  # as its header declares

    def reference(self) -> Dataset:
        """Return the elements of a reference to the whole instance."""
        made = Dataset()
        made.ReferencedSOPClassUID = self.sop_class
        made.ReferencedSOPInstanceUID = self.sop_instance
        return made

    def image_reference(self, frame: int) -> Dataset:
        """Return an item of Source Image Sequence.

        Parameters
        ----------
        frame : int
            Index, from 0. It is left out for a single frame, as PS3.3 table 10-3 has
            it.
        """
        made = self.reference()
        if self.frames > 1:
            made.ReferencedFrameNumber = frame + 1
        made.SpatialLocationsPreserved = "YES"
        made.PurposeOfReferenceCodeSequence = [
            coded("121322", "DCM", "Source image for image processing operation")
        ]
        return made


def read_source(path: Path, last_frame: int = 0) -> DicomSource:
    """Read what a derived object says of its source.

    Parameters
    ----------
    last_frame : int
        Index of the last frame that will be referred to.

    Raises
    ------
    ReadError
        If nothing can refer to the file; with the reason.
    """
    with open_sniffed(path) as file:
        if file.kind != "DICOM":
            raise file.error("its image is no DICOM file")
        dataset = read_elements(file, (*_UNIQUE, "NumberOfFrames"))
        if any(not dataset.get(keyword) for keyword in _UNIQUE):
            raise file.error("its image lacks unique identifiers to refer to")
        frames = int(dataset.get("NumberOfFrames") or 1)
        if last_frame >= frames:
            raise file.error(
                f"its header declares {frames} frame(s), and a frame beyond them "
                "cannot be referred to"
            )
    sop_class, instance, study, series = (str(dataset[k].value) for k in _UNIQUE)
    return DicomSource(sop_class, instance, study, series, frames)


def make_derived(
    source: DicomSource,
    provenance: Provenance,
    sop_class: uid.UID,
    modality: str,
    description: str,
    pixel_size_mm: tuple[float, float] | None,
) -> FileDataset:
    """Return an image in a series of its own, in the study of its source."""
    made = make_object(source, provenance, sop_class, modality, description)
    made.PatientOrientation = ""
    made.BodyPartExamined = "HEART"
    if pixel_size_mm is not None:
        made.PixelSpacing = [DSfloat(side, auto_format=True) for side in pixel_size_mm]
    made.ImageType = ["DERIVED", "PRIMARY"]
    series = Dataset()
    series.SeriesInstanceUID = source.series
    series.ReferencedInstanceSequence = [source.reference()]
    made.ReferencedSeriesSequence = [series]
    return made


def make_object(
    source: DicomSource,
    provenance: Provenance,
    sop_class: uid.UID,
    modality: str,
    description: str,
) -> FileDataset:
    """Return what every object has, in a series of its own in its source's study."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid.generate_uid(None)
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for keyword in PATIENT_AND_STUDY:
        setattr(made, keyword, "")
    made.StudyInstanceUID = source.study
    made.SeriesInstanceUID = uid.generate_uid(None)
    made.SeriesNumber = made.InstanceNumber = 1
    made.Modality = modality
    made.SeriesDescription = f"Research only: {description}"
    now = datetime.now()
    made.ContentDate, made.ContentTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    made.Manufacturer = made.ManufacturerModelName = provenance.program
    made.DeviceSerialNumber = "none"
    made.SoftwareVersions = provenance.version
    return made


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return an item of a code sequence."""
    made = Dataset()
    made.CodeValue = value
    made.CodingSchemeDesignator = scheme
    made.CodeMeaning = meaning
    return made


def save_derived(
    path: Path, made: FileDataset, verify: Callable[[Path], None] | None = None
) -> None:
    """Write the object atomically; raises WriteError."""
    with atomic_write(path, verify=verify) as handle:
        made.save_as(handle, enforce_file_format=True)


def why_not(path: Path, last_frame: int = 0) -> str:
    """Return why nothing can be derived from a file; empty if it can."""
    try:
        read_source(path, last_frame)
    except ReadError as error:
        return error.reason
    return ""
