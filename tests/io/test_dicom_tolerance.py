"""Headers as other systems write them: blank, with commas, contradicting themselves."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from napari_cmunet.io.discovery import find_images
from napari_cmunet.io.images import read_angiogram
from tests.fuzzing.dicom_inputs import file_list
from tests.io.conftest import CINE
from tests.io.dicom_making import encode, make_dataset, write_dicom

# As the program has it; pytest sets the warnings anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")
_PLACE = b"9.87"


def save(tmp_path, made, text: bytes | None = None):
    """Write a file; put a text, as it is, in the place of ``9.87``."""
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    if text is not None:
        data = path.read_bytes()
        at = data.index(_PLACE)
        value = text + b" " * (len(text) % 2)
        length = struct.pack("<H", len(value))
        path.write_bytes(data[: at - 2] + length + value + data[at + len(_PLACE) :])
    return path


def check(path, *, notes: bool = False, frames=CINE):
    image = read_angiogram(path)
    assert np.array_equal(np.asarray(image.frames), frames)
    assert bool(image.notes) == notes, image.notes
    return image


# Blank values


def test_blank_lut_items_and_rescale(tmp_path):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", None)
    item.add_new("LUTData", "US", None)
    made = make_dataset(CINE, bits=12, VOILUTSequence=[Dataset()])
    made.ModalityLUTSequence = [item]
    check(save(tmp_path, made))
    for slope, intercept in ((None, None), ("1", None), (None, "0")):
        made = make_dataset(CINE, bits=12)
        made.add_new("RescaleSlope", "DS", slope)
        made.add_new("RescaleIntercept", "DS", intercept)
        check(save(tmp_path, made))


def test_blank_elements_are_absent(tmp_path):
    made = make_dataset(CINE, bits=12)
    for keyword, vr in (
        ("BurnedInAnnotation", "CS"),
        ("PresentationLUTShape", "CS"),
        ("VOILUTFunction", "CS"),
        ("WindowCenter", "DS"),
        ("WindowWidth", "DS"),
        ("PixelRepresentation", "US"),
        ("HighBit", "US"),
        ("FrameTime", "DS"),
        ("RecommendedDisplayFrameRate", "IS"),
        ("CineRate", "IS"),
        ("PixelSpacing", "DS"),
        ("PixelIntensityRelationship", "CS"),
    ):
        made.add_new(keyword, vr, None)
    image = check(save(tmp_path, made))
    assert image.frames_per_second is None
    assert image.window is None


@pytest.mark.parametrize(
    "keyword",
    [
        "PixelRepresentation",
        "HighBit",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
    ],
)
def test_missing_elements_have_their_usual_value(tmp_path, keyword):
    check(save(tmp_path, make_dataset(CINE, bits=12, **{keyword: None})))


def test_missing_bits_stored_are_all_allocated(tmp_path):
    frames = (CINE * 16).astype(np.uint16)
    made = make_dataset(frames, bits=16, BitsStored=None, HighBit=None)
    check(save(tmp_path, made), frames=frames)


# Numbers


@pytest.mark.parametrize(
    ("text", "rate"),
    [(b"66,67", 15), (b"100.0", 10), (b"abc", None), (b"1e999", None), (b"6 6", None)],
)
def test_frame_time_never_refuses_a_file(tmp_path, text, rate):
    made = make_dataset(CINE, bits=12, FrameTime="9.87")
    image = check(save(tmp_path, made, text))
    found = image.frames_per_second
    assert found is None if rate is None else found == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize("keyword", ["RecommendedDisplayFrameRate", "CineRate"])
@pytest.mark.parametrize(
    ("text", "rate"), [(b"7.5", 7.5), (b"15,0", 15), (b"15.0", 15), (b"fast", None)]
)
def test_rates_that_are_no_integers(tmp_path, keyword, text, rate):
    made = make_dataset(CINE, bits=12, FrameTime=None)
    made.add_new(keyword, "DS", "9.87")
    path = save(tmp_path, made, text)
    data = path.read_bytes()
    path.write_bytes(
        data.replace(
            b"DS" + struct.pack("<H", 4) + text, b"IS" + struct.pack("<H", 4) + text
        )
    )
    assert check(path).frames_per_second == rate


@pytest.mark.parametrize(
    "text", [b"0.3", b"0,3\\0,3", b"a\\b", b"0.3\\0.3\\0.3", b"\\"]
)
@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_spacings_never_refuse_a_file(tmp_path, keyword, text):
    made = make_dataset(CINE, bits=12)
    made.add_new(keyword, "DS", "9.87")
    image = check(save(tmp_path, made, text))
    pair = keyword == "PixelSpacing" and text == b"0,3\\0,3"
    assert image.pixel_size_mm == ((0.3, 0.3) if pair else None)


@pytest.mark.parametrize(
    "keyword",
    [
        "DistanceSourceToDetector",
        "DistanceSourceToPatient",
        "EstimatedRadiographicMagnificationFactor",
    ],
)
@pytest.mark.parametrize("text", [b"1,30", b"junk"])
def test_distances_never_refuse_a_file(tmp_path, keyword, text):
    made = make_dataset(CINE, bits=12, ImagerPixelSpacing=["0.3", "0.3"])
    setattr(made, keyword, "9.87")
    check(save(tmp_path, made, text))


def test_a_window_is_never_read_from_a_part_of_its_text(tmp_path):
    for text, window in (
        (b"127,5", (0.0, 254.0)),
        (b"127.5 HU", None),
        (b"127;5", None),
        (b"127.5\\4", (0.0, 254.0)),
        (b"1 27", None),
    ):
        made = make_dataset(CINE, bits=12, WindowCenter="9.87", WindowWidth="255")
        assert check(save(tmp_path, made, text)).window == window


def test_commas_in_a_rescaling(tmp_path):
    made = make_dataset(CINE, bits=12, RescaleSlope="9.87", RescaleIntercept="0")
    check(save(tmp_path, made, b"1,0"))
    check(save(tmp_path, made, b"0,5"), frames=CINE * 0.5)
    check(save(tmp_path, made, b"junk"))


# Contradictions


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("truth", ["implicit", "explicit"])
def test_the_meta_information_names_the_other_vr(tmp_path, side, truth):
    frame = np.tile(CINE[:1], (1, side // 64, side // 64))
    path = write_dicom(tmp_path / "a.dcm", frame, truth, bits=12)
    data = path.read_bytes()
    implicit, explicit = b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0"
    was, said = (implicit, explicit) if truth == "implicit" else (explicit, implicit)
    tag = b"\x02\0\x10\0UI"
    element = tag + struct.pack("<H", len(was)) + was
    assert data.count(element) == 1
    new = tag + struct.pack("<H", len(said)) + said
    (length,) = struct.unpack_from("<I", data, 140)
    head = data[:140] + struct.pack("<I", length + len(new) - len(element))
    path.write_bytes(head + data[144:].replace(element, new))
    check(path, frames=frame)


def reencoded(syntax: str, named: str, **elements):
    """A file whose meta information names another syntax than it has."""
    made = make_dataset(CINE, syntax, bits=12, **elements)
    made.file_meta.TransferSyntaxUID = make_dataset(
        CINE[:1], named, bits=12
    ).file_meta.TransferSyntaxUID
    return made


@pytest.mark.parametrize(
    "syntax", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000 lossless", "RLE"]
)
@pytest.mark.parametrize("named", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000", "RLE"])
def test_the_codestream_decides_what_it_is(tmp_path, syntax, named):
    made = reencoded(syntax, named)
    alike = syntax.removesuffix(" lossless") == named.removesuffix(" lossless")
    image = check(save(tmp_path, made), notes=not alike)
    assert alike or "contradicts" in image.notes[0]


def test_encapsulated_pixels_of_a_syntax_without_compression(tmp_path):
    path = save(tmp_path, make_dataset(CINE, "JPEG lossless SV1", bits=12))
    data = path.read_bytes()
    was, said = b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.1".ljust(22, b"\0")
    path.write_bytes(data.replace(was, said))
    check(path, notes=True)


def test_pixels_without_compression_of_a_syntax_with_it(tmp_path):
    path = save(tmp_path, make_dataset(CINE, "explicit", bits=12))
    data = path.read_bytes()
    was, said = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"
    path.write_bytes(data.replace(was, said))
    check(path, notes=True)


def test_encapsulated_pixels_of_a_defined_length(tmp_path):
    path = save(tmp_path, make_dataset(CINE, "JPEG-LS", bits=12))
    data = path.read_bytes()
    start = data.index(b"\xe0\x7f\x10\0OB\0\0") + 8
    end = len(data) - 8  # without the delimiter
    path.write_bytes(
        data[:start] + struct.pack("<I", end - start - 4) + data[start + 4 : end]
    )
    check(path)
    # And with the delimiter, and with neither.
    path.write_bytes(
        data[:start] + struct.pack("<I", end + 8 - start - 4) + data[start + 4 :]
    )
    check(path)
    path.write_bytes(data[:end])
    check(path)


def fragmented(
    syntax: str, frames, *, pad: bool, empty: bool = False, table: bool = False
):
    """Encapsulate with odd fragments, padded or not, and empty ones."""
    made = make_dataset(CINE, syntax, bits=12)
    transfer = made.file_meta.TransferSyntaxUID
    body, offsets = b"", []
    for frame in frames:
        stream = encode(frame, transfer, made)
        stream = stream if len(stream) % 2 else stream + b"\0"
        item = b"\xfe\xff\0\xe0" + struct.pack("<I", len(stream)) + stream
        offsets.append(len(body))
        body += item + (b"\0" if pad else b"")
        if empty:
            body += b"\xfe\xff\0\xe0" + bytes(4)
    offset_table = struct.pack(f"<{len(offsets)}I", *offsets) if table else b""
    head = b"\xfe\xff\0\xe0" + struct.pack("<I", len(offset_table)) + offset_table
    made.PixelData = head + body
    return made


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("syntax", ["JPEG lossless SV1", "RLE", "JPEG 2000 lossless"])
def test_odd_and_empty_fragments(tmp_path, syntax, pad, empty, table):
    made = fragmented(syntax, CINE, pad=pad, empty=empty, table=table)
    check(save(tmp_path, made))


def test_an_offset_table_that_is_wrong(tmp_path):
    made = fragmented("JPEG-LS", CINE, pad=False, table=True)
    data = made.PixelData
    for offsets in ((0, 5, 9), (7, 8, 9), (0, 0, 0), (0, 2**31, 2**31 + 2)):
        made.PixelData = data[:8] + struct.pack("<3I", *offsets) + data[20:]
        check(save(tmp_path, made))


def test_pixels_of_an_odd_length_without_padding(tmp_path):
    frames = (CINE >> 4).astype(np.uint8)[:1, :63, :63]
    path = save(tmp_path, make_dataset(frames))
    data = path.read_bytes()
    start = data.index(b"\xe0\x7f\x10\0OW\0\0") + 8
    odd = struct.pack("<I", 63 * 63)
    path.write_bytes(data[:start] + odd + data[start + 4 : start + 4 + 63 * 63])
    check(path, frames=frames)


@pytest.mark.parametrize("high", [15, 7, 40, 13])
def test_a_high_bit_that_contradicts_the_bits(tmp_path, high):
    image = check(save(tmp_path, make_dataset(CINE, bits=12, HighBit=high)), notes=True)
    assert "HighBit" in image.notes[0]


@pytest.mark.parametrize(
    ("elements", "noted"),
    [
        ({"PhotometricInterpretation": "MONOCHROME 2"}, False),
        ({"PhotometricInterpretation": "RGB"}, True),
        ({"BitsStored": 0}, True),
        ({"BitsStored": 20, "HighBit": 19}, True),
    ],
    ids=str,
)
def test_colours_and_bits_that_contradict_the_pixels(tmp_path, elements, noted):
    made = make_dataset(CINE, bits=12)
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    check(save(tmp_path, made), notes=noted)


@pytest.mark.parametrize("signed", [True, False])
def test_pixels_above_the_lowest_bits(tmp_path, signed):
    frames = CINE.astype(np.int16) - 2048 if signed else CINE
    made = make_dataset((frames * 16).astype(frames.dtype), bits=12, HighBit=15)
    check(save(tmp_path, made), notes=True, frames=frames)
    # Other things in the bits below, as old overlays are.
    made = make_dataset((frames * 16 + 5).astype(frames.dtype), bits=12, HighBit=15)
    check(save(tmp_path, made), notes=True, frames=frames)


# DICOMDIR


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        (["IMAGES", "IM1"], "images/im1"),
        (["images", "im1"], "IMAGES/IM1"),
        (["IMAGES", "IM1"], "Images/IM1.dcm"),
        (["IMAGES", "IM1"], "Images/im1.DCM"),
        (["IMAGES", "IM1"], "IMAGES/IM1;1"),
        (["IMAGES", "IM1"], "IMAGES/IM1"),
        (["IMAGES", "IM1;1"], "images/im1"),
    ],
)
def test_a_dicomdir_whose_names_a_copy_has_changed(tmp_path, listed, name):
    (tmp_path / name).parent.mkdir()
    path = write_dicom(tmp_path / name, CINE, bits=12)
    (tmp_path / "DICOMDIR").write_bytes(file_list([listed]))
    (found,) = find_images([tmp_path / "DICOMDIR"])
    assert found.path.samefile(path)
    check(found.path)
