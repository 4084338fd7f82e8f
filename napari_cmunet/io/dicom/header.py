"""The header of a DICOM file: the elements that are needed, and no others.

Whatever else a file says, the patient's name first of all, is not even read.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

    from napari_cmunet.io.sniffing import Source

# What pydicom warns of, and what it logs, quotes the values of a file: names, dates.
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
# Tables and vectors are far smaller; what is larger is no element of a header.
_MOST_ELEMENT_BYTES = 2**22
# Reading takes some 5 µs each, and a file may be gone through three times.
_MOST_READS = 100_000
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA = Tag("PixelData")
_FLOAT_PIXELS = (Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))


@dataclass(frozen=True)
class Header:
    """What a DICOM file says about its pixels, and where they begin."""

    dataset: Dataset
    transfer_syntax: uid.UID
    data_start: int  # of the pixel data's value
    data_bytes: int | None  # None if it is encapsulated: a sequence of fragments
    pixel_vr: str  # OB or OW


class _Bounded:
    """A file whose declared lengths can ask for no more than there is in it."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self._size, self._reads = handle, size, 0
        self.seek, self.tell = handle.seek, handle.tell

    def read(self, count: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise ValueError("more elements than any image has")
        left = max(0, self._size - self.tell())
        return self._handle.read(left if count < 0 else min(count, left))


def read_header(source: Source) -> Header:
    """Read a file's header, up to its pixels.

    Raises
    ------
    ReadError
        If the file holds no pixels, or in a form that is not read.
    """
    dataset = read_elements(source, KEYWORDS)
    syntax = _transfer_syntax(dataset)
    start = source.handle.tell()
    _require_pixels(source, dataset, start)
    explicit = not dataset.is_implicit_VR
    order = "little" if dataset.is_little_endian else "big"
    source.handle.seek(start)
    group = int.from_bytes(source.handle.read(2), order)
    element = int.from_bytes(source.handle.read(2), order)
    if Tag(group, element) in _FLOAT_PIXELS:
        raise source.error(
            "its pixels are fractions (Float Pixel Data), which no angiography system "
            "writes. Export it with 8 to 16 bits."
        )
    vr = source.handle.read(4)[:2].decode("latin-1") if explicit else "OW"
    length = int.from_bytes(source.handle.read(4), order)
    return Header(
        dataset,
        syntax,
        source.handle.tell(),
        None if length == _UNDEFINED_LENGTH else length,
        vr if vr in ("OB", "OW") else "OW",
    )


def read_elements(source: Source, keywords: Iterable[str]) -> Dataset:
    """Read these elements and no others, up to the pixels.

    The file's handle is left where the pixels' element begins.
    """
    bounded = _Bounded(source.handle, source.size)
    _refuse_deflated(source)
    source.handle.seek(0)
    return pydicom.dcmread(
        bounded,
        defer_size=_MOST_ELEMENT_BYTES,
        stop_before_pixels=True,
        force=True,
        specific_tags=list(keywords),
    )


def _refuse_deflated(source: Source) -> None:
    """Refuse what would be inflated as a whole, to whatever size, before it is read."""
    source.handle.seek(0)
    bounded = _Bounded(source.handle, source.size)
    read_preamble(bounded, force=True)
    meta = read_dataset(
        bounded, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2
    )
    if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
        raise source.error(
            "it is compressed as a whole (deflated), which this version does not "
            "read. Export it without compression."
        )


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    named = dataset.file_meta.get("TransferSyntaxUID")
    if named:
        return uid.UID(named)
    # Without the file's meta information, pydicom has found this out by looking.
    if dataset.is_implicit_VR:
        return uid.ImplicitVRLittleEndian
    if dataset.is_little_endian:
        return uid.ExplicitVRLittleEndian
    return uid.ExplicitVRBigEndian


def _require_pixels(source: Source, dataset: Dataset, start: int) -> None:
    if start < source.size - 8:
        return
    what = uid.UID(
        str(
            dataset.get("SOPClassUID")
            or dataset.file_meta.get("MediaStorageSOPClassUID", "")
        )
    )
    name = f" ({what.name})" if what in uid.UID_dictionary else ""
    if "EncryptedAttributesSequence" in dataset:
        raise source.error(
            "its content is encrypted. Export it without encryption from the system "
            "that it came from."
        )
    if what == uid.MediaStorageDirectoryStorage:
        raise source.error(
            "it is a list of images (DICOMDIR). Open it as such, or the folder of it."
        )
    if "Rows" in dataset:
        raise source.error(
            "its header is there but its pixels are missing. Copy or export it again."
        )
    raise source.error(f"it is a DICOM object without a picture{name}.")
