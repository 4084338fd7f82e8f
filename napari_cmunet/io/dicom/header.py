"""Read the elements of a DICOM header that are needed, and no others.

Everything else, such as the patient's name, is not even read.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import pydicom
from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.filereader import read_dataset, read_preamble
from pydicom.sequence import Sequence as DicomSequence
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


_TEXT = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_BLANK = " \t\r\n\0"


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """Return the finite numbers of an element; None where one cannot be read."""
    raw = _raw(dataset, keyword)
    if raw is None:
        return []
    value, vr = raw
    if isinstance(value, bytes) and vr in _TEXT:
        return _parse(value.decode("latin-1"))
    value = value_of(dataset, keyword)
    if isinstance(value, str):
        return _parse(value)
    if isinstance(value, (int, float)):
        value = [value]
    try:
        return [_finite(item) for item in value or ()]
    except TypeError:
        return []


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first number of an element, or None."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the first number of an element if it is an integer, or None."""
    value = number(dataset, keyword)
    return None if value is None or not value.is_integer() else int(value)


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value of an element as upper-case text; empty if absent."""
    value = value_of(dataset, keyword)
    if not isinstance(value, str) and hasattr(value, "__getitem__") and len(value):
        value = value[0]
    return value.strip(_BLANK).upper() if isinstance(value, str) else ""


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty if there is none."""
    value = value_of(dataset, keyword)
    return list(value) if isinstance(value, DicomSequence) else []


def content(dataset: Dataset, keyword: str) -> tuple[bytes, bool, str]:
    """Return the bytes of an element, if they are little endian, and its VR."""
    try:
        element = dataset.get_item(Tag(keyword), keep_deferred=True)
    except Exception:  # noqa: BLE001
        return b"", True, ""
    value = getattr(element, "value", None)
    if not isinstance(value, bytes):
        return b"", True, ""
    return value, getattr(element, "is_little_endian", True), element.VR or ""


def _raw(dataset: Dataset, keyword: str) -> tuple[Any, str] | None:
    """Return an element's unconverted value and its VR."""
    tag = Tag(keyword)
    try:
        element = dataset.get_item(tag, keep_deferred=True)
    except Exception:  # noqa: BLE001
        return None
    if element is None or element.value is None:
        return None
    vr = element.VR
    return element.value, dictionary_VR(tag) if vr in (None, "UN") else str(vr)


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return the value that pydicom makes of an element; None if it cannot."""
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - whatever pydicom raises for a bad value
        return None


def _parse(value: str) -> list[float | None]:
    stripped = value.strip(_BLANK)
    if not stripped:
        return []
    return [_number(part.strip(_BLANK)) for part in stripped.split("\\")]


def _number(part: str) -> float | None:
    if not _NUMBER.fullmatch(part):
        return None
    return _finite(float(part.replace(",", ".")))


def _finite(value: Any) -> float | None:
    if isinstance(value, str):
        return _number(value.strip(_BLANK))
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
