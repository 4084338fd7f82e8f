"""DICOM files that are broken, absurd or no angiograms: one line each, at once."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.io.images import read_angiogram
from tests.io.conftest import CINE
from tests.io.dicom_making import IDENTITY, encode, make_dataset, write_dicom

# As the program has it; pytest sets the warnings anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


def refused(path, words: str) -> str:
    """Read a file that is not to be read; returns the message."""
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(ReadError, match=words) as error:
        read_angiogram(path)
    seconds = time.perf_counter() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 64 * 2**20
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    for value in IDENTITY.values():
        assert value not in text
    return text


def save(tmp_path, made, name="a.dcm"):
    pydicom.dcmwrite(tmp_path / name, made, enforce_file_format=True)
    return tmp_path / name


@pytest.mark.parametrize("syntax", ["explicit", "JPEG lossless SV1", "RLE"])
def test_absurd_size_in_a_small_file(tmp_path, syntax):
    made = make_dataset(CINE, syntax, bits=12, Rows=65535, Columns=65535)
    refused(save(tmp_path, made), "65535 x 65535 pixels, more than the limit")
    # Within the limits, but not what the file holds.
    made.Rows = made.Columns = 9000
    made.NumberOfFrames = 3
    refused(save(tmp_path, made), r"it is cut short or damaged|could not be decoded")


def test_a_codestream_that_is_larger_than_the_header_says(tmp_path):
    for syntax in ("JPEG lossless SV1", "JPEG-LS", "JPEG 2000 lossless"):
        made = make_dataset(CINE, syntax, bits=12)
        huge = np.zeros((4096, 4096), np.uint16)
        stream = encode(huge, made.file_meta.TransferSyntaxUID, made)
        made.PixelData = encapsulate([stream] * 3)
        refused(save(tmp_path, made), "could not be decoded")


def test_more_frames_than_there_are(tmp_path):
    for syntax in ("explicit", "JPEG lossless SV1"):
        for count in (30, 2**31 - 1):
            made = make_dataset(CINE, syntax, bits=12, NumberOfFrames=count)
            image = read_angiogram(save(tmp_path, made))
            assert np.array_equal(np.asarray(image.frames), CINE)
            assert f"declares {count} frame(s) and holds 3" in image.notes[0]


@pytest.mark.parametrize("count", ["0", "-3"])
def test_zero_frames(tmp_path, count):
    made = make_dataset(CINE, bits=12, NumberOfFrames=count)
    image = read_angiogram(save(tmp_path, made))
    assert np.array_equal(np.asarray(image.frames), CINE)
    assert "how many frames" in image.notes[0]


def test_zero_rows(tmp_path):
    refused(save(tmp_path, make_dataset(CINE, bits=12, Rows=0)), "no pixels")


@pytest.mark.parametrize("syntax", ["explicit", "RLE", "JPEG-LS"])
def test_truncated_wherever_it_was_cut(tmp_path, syntax):
    whole = write_dicom(tmp_path / "whole.dcm", CINE, syntax, bits=12).read_bytes()
    path = tmp_path / "a.dcm"
    for length in [*range(1, len(whole), max(1, len(whole) // 60)), len(whole) - 20]:
        path.write_bytes(whole[:length])
        try:
            image = read_angiogram(path)
        except CMUNetError as error:
            assert str(error).startswith("a.dcm: ")
        else:  # whole frames at the beginning
            found = np.asarray(image.frames)
            assert 1 <= len(found) < len(CINE)
            assert np.array_equal(found, CINE[: len(found)])
            assert "may be cut short" in image.notes[0]


def test_a_codestream_without_its_end_is_refused_at_once(tmp_path):
    made = make_dataset(CINE, "JPEG-LS", bits=12)
    streams = [encode(f, made.file_meta.TransferSyntaxUID, made) for f in CINE]
    for length in range(110, len(streams[1]) - 2, 601):
        cut = [streams[0], streams[1][:length], streams[2]]
        made.PixelData = encapsulate(cut)
        refused(save(tmp_path, made), "could not be decoded")


def test_no_pixels(tmp_path):
    made = make_dataset(CINE, bits=12)
    del made.PixelData
    refused(save(tmp_path, made), "its pixels are missing")
    for keyword in ("Rows", "Columns"):
        delattr(made, keyword)
    made.SOPClassUID = pydicom.uid.EnhancedSRStorage
    refused(save(tmp_path, made), r"without a picture \(Enhanced SR Storage\)")
    made.EncryptedAttributesSequence = [pydicom.Dataset()]
    refused(save(tmp_path, made), "its content is encrypted")


def test_an_encrypted_file(tmp_path):
    path = tmp_path / "a.dcm"
    oid = bytes.fromhex("06092a864886f70d010703")
    for start in (bytes.fromhex("3082ffff"), bytes.fromhex("3080")):
        path.write_bytes(start + oid + bytes(range(256)) * 8)
        refused(path, "it is encrypted")


def test_pixels_of_other_kinds(tmp_path):
    for elements, words in (
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 of 32 bits"),
        ({"PhotometricInterpretation": "HSV"}, "kind of colour"),
        ({"SamplesPerPixel": 4}, "kind of colour"),
        ({"BitsStored": 1, "HighBit": 0}, "1 of 16 bits"),
        ({"BitsAllocated": None, "BitsStored": None}, "how many bits"),
        ({"Rows": None}, "how many rows"),
    ):
        made = make_dataset(CINE, **{"bits": 12, **elements})
        refused(save(tmp_path, made), words)


def test_video_and_deflated_files(tmp_path):
    made = make_dataset(CINE, "JPEG-LS", bits=12)
    made.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    refused(save(tmp_path, made), "stored as video")
    made = make_dataset(CINE, bits=12)
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    refused(save(tmp_path, made), "compressed as a whole")
    made = make_dataset(CINE, "JPEG-LS", bits=12)
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.3.4.5")
    refused(save(tmp_path, made), "which this version does not read")


def test_a_damaged_transfer_syntax_is_named_in_one_line(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CINE, "JPEG lossless SV1", bits=12)
    syntax = b"1.2.840.10008.1.2.4.70"
    content = path.read_bytes()
    assert content.count(syntax) == 1
    path.write_bytes(content.replace(syntax, syntax[:1] + b"\n" + syntax[2:]))
    with pytest.raises(ReadError, match="which this version does not read") as info:
        read_angiogram(path)
    assert "\n" not in str(info.value)


def test_a_file_that_changes_after_it_was_opened(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.tile(CINE, (10, 1, 1)), bits=12)
    frames = read_angiogram(path).frames
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReadError, match="has changed since it was opened"):
        frames[29]  # the first, the middle one and the next ones are decoded by now


@pytest.mark.parametrize("syntax", ["explicit", "JPEG lossless SV1", "JPEG 2000"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.slow
def test_damaged_bytes_never_escape_as_another_error(tmp_path_factory, syntax, data):
    folder = tmp_path_factory.getbasetemp()
    path = folder / f"damaged-{syntax.replace(' ', '')}.dcm"
    whole = _WHOLE.get(syntax)
    if whole is None:
        whole = write_dicom(path, CINE, syntax, bits=12).read_bytes()
        _WHOLE[syntax] = whole
    content = bytearray(whole)
    header = content.index(b"\xe0\x7f\x10\x00") + 60
    for place in data.draw(st.lists(st.integers(128, header), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        image = read_angiogram(path)
        frames = np.asarray(image.frames)
    except CMUNetError as error:
        assert "\n" not in str(error)
    else:
        assert frames.ndim == 3
        assert np.isfinite(frames).all()


_WHOLE: dict[str, bytes] = {}
