"""Broken DICOM files: altered elements, lengths, nesting, fragments, codestreams."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import data as pydicom_data

from napari_cmunet.io.dicom.identity import patient_key, safe_name
from napari_cmunet.io.discovery import find_images
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.fuzzing.mutations import NAMES, number_bytes, spoil
from tests.fuzzing.picture_inputs import LIMITS, look
from tests.io.dicom_making import SYNTAXES, make_dataset

if TYPE_CHECKING:
    from random import Random

_LARGEST = 200_000
_LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"UC", b"OL", b"OD", b"OV", b"UR")
_KINDS = (*_LONG, b"US", b"IS", b"DS", b"UI", b"LO", b"CS", b"FD", b"AT", b"SS", b"XX")
_TAGS = ((0x28, 2), (0x28, 4), (0x28, 8), (0x28, 0x10), (0x28, 0x11), (0x28, 0x100))
_TAGS += ((0x28, 0x101), (0x28, 0x102), (0x28, 0x103), (0x28, 0x1050), (0x28, 0x3010))
_TAGS += ((0x28, 0x1201), (0x28, 0x1101), (0x28, 0x3000), (0x28, 0x1053), (8, 5))
_TAGS += ((0x7FE0, 1), (0x7FE0, 8), (0x7FE0, 0x10), (0x5200, 0x9229), (0x10, 0x10))
_TAGS += ((0x28, 0x30), (0x18, 0x1063), (4, 0x1220), (2, 0x10), (0xFFFE, 0xE000))


class Dicom:
    """DICOM images and a DICOMDIR."""

    limit = LIMITS.max_decoded_bytes

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = [*_phantoms(), *_test_files()]
        self._name, self._identity = "input.dcm", True

    def write(self, random: Random) -> None:
        for path in self.paths():
            path.unlink(missing_ok=True)
        data = random.choice(self.corpus)
        self._name = "input.dcm"
        if random.random() < 0.05:
            self._name = "DICOMDIR"
            data = file_list([_names(random) for _ in range(random.choice((1, 50)))])
        self._identity = random.random() < 0.2
        kind = random.random()
        if kind < 0.7:
            data = _alter(random, data)
        if kind > 0.6:
            data = spoil(random, data, self.corpus)
        (self.folder / self._name).write_bytes(data)

    def read(self) -> None:
        path = self.folder / self._name
        if self._identity:
            patient_key(path)
            assert "/" not in safe_name(path)
        if self._name == "DICOMDIR":
            for file in find_images([path]):
                assert ".." not in file.relative.parts
                assert not file.relative.is_absolute()
        look(path)

    def paths(self) -> list[Path]:
        return [self.folder / self._name]


def _phantoms() -> list[bytes]:
    cine = make_cine(PhantomConfig(frames=3, size=64, seed=3, bits=12)).frames
    small = (cine >> 4).astype(np.uint8)
    made = []
    for syntax in SYNTAXES:
        stack = small if syntax == "JPEG baseline" else cine
        bits = 8 if syntax == "JPEG baseline" else 12
        made.append(_bytes_of(make_dataset(stack, syntax, bits=bits)))
    window = {"WindowCenter": 900, "WindowWidth": 500, "RescaleSlope": 2}
    made.append(_bytes_of(make_dataset(cine, bits=12, RescaleIntercept=-9, **window)))
    made.append(_bytes_of(make_dataset(cine.astype(np.int16), bits=12)))
    shared, measures = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [0.2, 0.2]
    shared.PixelMeasuresSequence = [measures]
    made.append(
        _bytes_of(make_dataset(cine, bits=12, SharedFunctionalGroupsSequence=[shared]))
    )
    return made


def _bytes_of(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    # Not a new one each time: a seed is to give the same inputs.
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _test_files() -> list[bytes]:
    """The small ones among those that come with pydicom; nothing is downloaded."""
    found = []
    folder = Path(pydicom_data.__file__).parent / "test_files"
    for path in sorted(folder.glob("*.dcm")):
        if path.stat().st_size < _LARGEST:
            found.append(path.read_bytes())
    return found


def file_list(images: list[list[str]]) -> bytes:
    """A DICOMDIR that lists images, each by the parts of its path."""
    made = pydicom.Dataset()
    records = []
    for parts in images:
        record = pydicom.Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = [
            p.encode("latin-1", "replace").decode("latin-1") for p in parts
        ]
        records.append(record)
    made.DirectoryRecordSequence = records
    made.file_meta = pydicom.FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return _bytes_of(made)


def _names(random: Random) -> list[str]:
    return [random.choice((*NAMES, "IM1", "A")) for _ in range(random.choice((1, 3)))]


def _alter(random: Random, data: bytes) -> bytes:
    """Spoil elements of a file in Explicit VR Little Endian; others as bytes."""
    elements = _elements(data)
    if len(elements) < 3:
        return spoil(random, data)
    for _ in range(random.choice((1, 1, 2, 3))):
        at, header, length = random.choice(elements)
        kind = random.randrange(8)
        made = bytearray(data)
        if kind == 0:
            group, element = random.choice(_TAGS)
            made[at : at + 4] = group.to_bytes(2, "little") + element.to_bytes(
                2, "little"
            )
        elif kind == 1:
            made[at + 4 : at + 6] = random.choice(_KINDS)
        elif kind == 2:
            size = 4 if header == 12 else 2
            made[at + header - size : at + header] = number_bytes(random, size)
        elif kind == 3:
            made[at:at] = _nested(random)
        elif kind == 4:
            made[at:at] = _many(random)
        elif kind == 5:
            del made[at : at + header + length]
        elif kind == 6:
            made[at:at] = data[at : at + header + length]
        else:
            value = bytes(made[at + header : at + header + length])
            new = spoil(random, value or b"\0")
            if length == 2:
                new = number_bytes(random, 2)
            elif length < 30 and random.random() < 0.5:
                new = random.choice(
                    (b"-1", b"1e400", b"0", b"NaN", b"99999999999", b"")
                )
            new = new[:length].ljust(length, b"\0")
            made[at + header : at + header + length] = new
        data = bytes(made)
    return data


def _elements(data: bytes) -> list[tuple[int, int, int]]:
    """Start, length of the header and of the value of each element, as far as whole."""
    at, found = 132, []
    while at + 8 <= len(data) and len(found) < 300:
        kind = data[at + 4 : at + 6]
        if not kind.isalpha():
            break
        header = 12 if kind in _LONG else 8
        size = 4 if header == 12 else 2
        length = int.from_bytes(data[at + header - size : at + header], "little")
        if length == 0xFFFFFFFF or at + header + length > len(data):
            found.append((at, header, 0))
            break
        found.append((at, header, length))
        at += header + length
    return found


def _nested(random: Random) -> bytes:
    """A sequence in a sequence in a sequence, ended or not."""
    depth = random.choice((1, 5, 60, 1500))
    group, element = random.choice(((0x5200, 0x9229), (0x28, 0x3010), (0x40, 0x275)))
    start = group.to_bytes(2, "little") + element.to_bytes(2, "little")
    start += b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return start * depth + (end * depth if random.random() < 0.5 else b"")


def _many(random: Random) -> bytes:
    """Many small elements."""
    group, element = random.choice(_TAGS)
    start = group.to_bytes(2, "little") + element.to_bytes(2, "little")
    one = start + random.choice((b"LO\0\0", b"US\x02\0\0\0", b"IS\x02\x001 "))
    return one * random.choice((2, 100, 3000))
