"""Read the elements of a DICOM header that are needed, and no others.

Everything else, such as the patient's name, is not even read.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

    from napari_cmunet.io.sniffing import SniffedFile

# Warnings and log records of pydicom quote values of the file: names, dates.
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module=r"pydicom\b")

PIXEL_KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_OTHER_KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "PixelIntensityRelationship",
    "BurnedInAnnotation",
    "EncryptedAttributesSequence",
    # Brightness
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PresentationLUTShape",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    # Pixel size
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "EstimatedRadiographicMagnificationFactor",
    "SharedFunctionalGroupsSequence",
    # Time
    "RecommendedDisplayFrameRate",
    "CineRate",
    "FrameTime",
    "FrameTimeVector",
)
KEYWORDS = PIXEL_KEYWORDS + _OTHER_KEYWORDS
# Larger than any table or vector of an image.
_MOST_ELEMENT_BYTES = 2**22
# Bounds the time for a hostile header: reads take about 5 µs each.
_MOST_READS = 100_000
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD")
_PIXELS = Tag("PixelData")
_FLOAT_PIXELS = (Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))


@dataclass(frozen=True)
class Header:
    """Elements that describe the pixels, and where the pixel data starts."""

    dataset: Dataset
    transfer_syntax: uid.UID
    data_start: int  # offset of the value of the pixel data
    data_bytes: int | None  # None if encapsulated
    pixel_vr: str  # OB or OW


class _Bounded:
    """A file whose reads are clipped to its size, whatever lengths it declares."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self._size, self._reads = handle, size, 0
        self.seek, self.tell = handle.seek, handle.tell

    def read(self, count: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise ValueError("more elements than any image has")
        left = max(0, self._size - self.tell())
        return self._handle.read(left if count < 0 else min(count, left))


def read_header(file: SniffedFile) -> Header:
    """Read a file's header up to the pixel data.

    Raises
    ------
    ReadError
        If the file has no pixels, or in an unsupported form.
    """
    dataset = read_elements(file, KEYWORDS)
    syntax = _transfer_syntax(dataset)
    start = file.handle.tell()
    order: Literal["little", "big"] = "little" if dataset.is_little_endian else "big"
    file.handle.seek(start)
    element = file.handle.read(12)
    tag = Tag(int.from_bytes(element[:2], order), int.from_bytes(element[2:4], order))
    if len(element) < 8 or tag not in (_PIXELS, *_FLOAT_PIXELS):
        raise _without_pixels(file, dataset)
    if tag in _FLOAT_PIXELS:
        raise file.error(
            "its pixels are fractions (Float Pixel Data), which no angiography system "
            "writes. Export it with 8 to 16 bits."
        )
    # The element itself tells explicit from implicit VR; the meta information may err.
    # As the length of implicit VR, these letters would be odd numbers.
    explicit = element[4:6] in _PIXEL_VRS
    length = int.from_bytes(element[8:12] if explicit else element[4:8], order)
    vr = element[4:6].decode() if explicit else "OW"
    return Header(
        dataset,
        syntax,
        start + (12 if explicit else 8),
        None if length == _UNDEFINED_LENGTH else length,
        vr if vr in ("OB", "OW") else "OW",
    )


def read_elements(file: SniffedFile, keywords: Iterable[str]) -> Dataset:
    """Read only these elements, up to the pixel data.

    The file handle is left at the start of the pixel data element.
    """
    bounded = cast("BinaryIO", _Bounded(file.handle, file.size))
    _refuse_deflated(file)
    file.handle.seek(0)
    return pydicom.dcmread(
        bounded,
        defer_size=_MOST_ELEMENT_BYTES,
        stop_before_pixels=True,
        force=True,
        specific_tags=list(keywords),
    )


def _refuse_deflated(file: SniffedFile) -> None:
    """Refuse deflated files: pydicom would inflate them whole, to any size."""
    file.handle.seek(0)
    bounded = cast("BinaryIO", _Bounded(file.handle, file.size))
    read_preamble(bounded, force=True)
    meta = read_dataset(
        bounded, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2
    )
    if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
        raise file.error(
            "it is compressed as a whole (deflated), which this version does not "
            "read. Export it without compression."
        )


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    named = dataset.file_meta.get("TransferSyntaxUID")
    if named:
        return uid.UID(named)
    # Without file meta information, pydicom has detected the encoding.
    if dataset.is_implicit_VR:
        return uid.ImplicitVRLittleEndian
    if dataset.is_little_endian:
        return uid.ExplicitVRLittleEndian
    return uid.ExplicitVRBigEndian


def _without_pixels(file: SniffedFile, dataset: Dataset) -> Exception:
    """Return an error that says what there is instead of pixels."""
    what = uid.UID(
        str(
            dataset.get("SOPClassUID")
            or dataset.file_meta.get("MediaStorageSOPClassUID", "")
        )
    )
    name = f" ({what.name})" if what in uid.UID_dictionary else ""
    if "EncryptedAttributesSequence" in dataset:
        return file.error(
            "its content is encrypted. Export it without encryption from the system "
            "that it came from."
        )
    if what == uid.MediaStorageDirectoryStorage:
        return file.error(
            "it is a list of images (DICOMDIR). Open it as such, or the folder of it."
        )
    if "Rows" in dataset:
        return file.error(
            "its header is there but its pixels are missing. Copy or export it again."
        )
    return file.error(f"it is a DICOM object without a picture{name}.")
