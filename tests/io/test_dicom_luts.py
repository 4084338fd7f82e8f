"""Grey values after look-up tables of every kind, or the stored values with a note."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, uid

from napari_cmunet.errors import ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.reader import read_layers
from napari_cmunet.synthetic import PhantomConfig, make_frame
from tests.io.dicom_making import make_dataset

# As the program has it; pytest sets the warnings anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")
STORED = make_frame(PhantomConfig(size=64, seed=3, bits=10))[0]
RISING = np.rint(255 / (1 + np.exp(-(np.arange(1024) - 512) / 150))).astype(np.uint16)


def save(tmp_path, made) -> str:
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return str(path)


def read(path) -> np.ndarray:
    return np.asarray(read_angiogram(path).frames)[0]


def lut_item(entries, depth, *, vr="US", first=0, count=None) -> Dataset:
    """One item of a LUT sequence; ``entries`` as words, or packed as bytes."""
    item = Dataset()
    count = len(entries) if count is None else count
    item.add_new("LUTDescriptor", "US", [count % 65536, first % 65536, depth])
    item.ModalityLUTType = "US"
    item.add_new("LUTData", vr, entries)
    return item


# Modality LUTs of projections


@pytest.mark.parametrize("relation", ["LOG", "DISP", "LIN"])
@pytest.mark.parametrize(
    "kind",
    [
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
        uid.SecondaryCaptureImageStorage,
    ],
)
def test_modality_lut_of_log_values_is_for_measuring_alone(tmp_path, relation, kind):
    back = np.rint(65535 * np.exp((np.arange(1024) - 1023) / 200)).astype("<u2")
    modality = "OT" if kind == uid.SecondaryCaptureImageStorage else "XA"
    made = make_dataset(
        STORED,
        bits=10,
        SOPClassUID=kind,
        Modality=modality,
        PixelIntensityRelationship=relation,
        ModalityLUTSequence=[lut_item(back.tobytes(), 16, vr="OW", count=1024)],
    )
    expected = STORED
    if relation == "LIN" or modality == "OT":
        expected = back[STORED]
    assert np.array_equal(read(save(tmp_path, made)), expected)


def test_rescaling_of_log_values_is_left_out(tmp_path):
    made = make_dataset(STORED, bits=10, RescaleSlope="-3", RescaleIntercept="9")
    made.PixelIntensityRelationship = "LOG"
    assert np.array_equal(read(save(tmp_path, made)), STORED)


def test_voi_lut_and_window_belong_to_stored_log_values(tmp_path):
    back = np.rint(65535 * np.exp((np.arange(1024) - 1023) / 200)).astype("<u2")
    made = make_dataset(
        STORED,
        bits=10,
        PixelIntensityRelationship="LOG",
        ModalityLUTSequence=[lut_item(back.tobytes(), 16, vr="OW", count=1024)],
        WindowCenter="512",
        WindowWidth="701",
    )
    path = save(tmp_path, made)
    assert np.array_equal(read(path), STORED)
    assert read_layers(path)[0][1]["metadata"]["napari_cmunet"] is not None
    assert read_angiogram(path).window == (161.5, 861.5)
    made.VOILUTSequence = [lut_item(RISING.tolist(), 8)]
    assert np.array_equal(read(save(tmp_path, made)), RISING[STORED])


# Every entry size


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("depth", [8, 12, 16])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_entries_of_each_size_in_words(tmp_path, sequence, depth, vr, syntax):
    entries = np.rint(np.sqrt(np.arange(1024) / 1023) * (2**depth - 1)).astype(int)
    order = ">" if syntax == "big endian" else "<"
    data = entries.tolist() if vr == "US" else entries.astype(f"{order}u2").tobytes()
    made = make_dataset(STORED, syntax, bits=10)
    setattr(made, sequence, [lut_item(data, depth, vr=vr, count=1024)])
    assert np.array_equal(read(save(tmp_path, made)), entries[STORED])


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_entries_of_8_bits_packed_in_words(tmp_path, sequence):
    made = make_dataset(STORED, bits=10)
    packed = RISING.astype(np.uint8).tobytes()
    setattr(made, sequence, [lut_item(packed, 8, vr="OW", count=1024)])
    assert np.array_equal(read(save(tmp_path, made)), RISING[STORED])
    made = make_dataset(STORED, "big endian", bits=10)
    swapped = np.frombuffer(packed, "<u2").astype(">u2").tobytes()
    setattr(made, sequence, [lut_item(swapped, 8, vr="OW", count=1024)])
    assert np.array_equal(read(save(tmp_path, made)), RISING[STORED])


def test_a_table_of_65536_entries(tmp_path):
    stored = STORED.astype(np.uint16) * 64
    entries = np.arange(65536)[::-1].astype("<u2")
    made = make_dataset(stored, bits=16)
    made.VOILUTSequence = [lut_item(entries.tobytes(), 16, vr="OW", count=65536)]
    assert np.array_equal(read(save(tmp_path, made)), 65535 - stored)


@pytest.mark.parametrize("syntax", ["implicit", "explicit"])
def test_a_table_that_begins_at_a_negative_value(tmp_path, syntax):
    stored = STORED.astype(np.int16) - 512
    made = make_dataset(stored, syntax, bits=10)
    made.VOILUTSequence = [lut_item(RISING.tolist(), 8, first=-512)]
    assert np.array_equal(read(save(tmp_path, made)), RISING[STORED])


def test_values_beyond_a_table_have_its_ends(tmp_path):
    made = make_dataset(STORED, bits=10)
    made.VOILUTSequence = [lut_item(list(range(256)), 8, first=300)]
    expected = np.clip(STORED.astype(int) - 300, 0, 255)
    assert np.array_equal(read(save(tmp_path, made)), expected)


# Palettes


def palette(made, entries: bytes, depth: int, count: int, *, segmented: bool = False):
    made.PhotometricInterpretation = "PALETTE COLOR"
    made.SOPClassUID = uid.SecondaryCaptureImageStorage
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        made.add_new(f"{name}Descriptor", "US", [count % 65536, 0, depth])
        made.add_new(f"{'Segmented' * segmented}{name}Data", "OW", entries)
    return made


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("packed", [True, False])
def test_palettes_of_more_than_256_entries(tmp_path, depth, packed):
    entries = np.rint(np.arange(1024) / 1023 * 255).astype(int)
    if packed and depth == 16:
        pytest.skip("16 bits cannot be packed")
    entries = entries * 257 if depth == 16 else entries
    data = entries.astype(np.uint8 if packed else "<u2").tobytes()
    made = palette(make_dataset(STORED, bits=10), data, depth, 1024)
    assert np.array_equal(read(save(tmp_path, made)), entries[STORED])


def test_a_segmented_palette(tmp_path):
    # Discrete 0, 4; linear to 1000 over 498 entries; these two once more.
    words = [0, 2, 0, 4, 1, 498, 1000, 2, 1, 8, 0, 0, 2, 0, 4]
    first = np.around(np.linspace(4, 1000, 499)).astype(int)
    expected = np.concatenate([[0], first, [0, 4]])
    words = [0, 2, 0, 4, 1, 498, 1000, 0, 2, 0, 4]
    made = palette(
        make_dataset(STORED, bits=10),
        np.array(words, "<u2").tobytes(),
        16,
        len(expected),
        segmented=True,
    )
    clipped = np.minimum(STORED, len(expected) - 1)
    assert np.array_equal(read(save(tmp_path, made)), expected[clipped])


def test_a_segmented_palette_that_repeats_a_segment(tmp_path):
    # Two entries; a line of 500 to 1000; the segment at byte 0 and the line again.
    words = [0, 2, 0, 4, 1, 500, 1000, 2, 2, 0, 0]
    line = np.around(np.linspace(4, 1000, 501)).astype(int)
    expected = np.concatenate([[0], line, [0], line])
    made = palette(
        make_dataset(STORED, bits=10),
        np.array(words, "<u2").tobytes(),
        16,
        len(expected),
        segmented=True,
    )
    clipped = np.minimum(STORED, len(expected) - 1)
    assert np.array_equal(read(save(tmp_path, made)), expected[clipped])


def test_a_palette_of_8_bits_in_segments(tmp_path):
    stored = (STORED >> 2).astype(np.uint8)
    made = palette(
        make_dataset(stored), bytes([0, 1, 0, 1, 255, 255]), 8, 256, segmented=True
    )
    assert np.array_equal(read(save(tmp_path, made)), stored)


@pytest.mark.parametrize(
    "data", [b"", bytes(100), np.array([3, 9, 9], "<u2").tobytes()]
)
@pytest.mark.parametrize("segmented", [True, False])
def test_a_broken_palette_is_said(tmp_path, data, segmented):
    made = palette(make_dataset(STORED, bits=10), data, 16, 1024, segmented=segmented)
    with pytest.raises(ReadError, match="its palette is missing or damaged"):
        read_angiogram(save(tmp_path, made))


# What cannot be right


def test_an_incomplete_table_is_left_out_and_said(tmp_path):
    for sequence, name in (
        ("VOILUTSequence", "VOI"),
        ("ModalityLUTSequence", "modality"),
    ):
        made = make_dataset(STORED, bits=10)
        setattr(made, sequence, [lut_item(RISING[:300].tolist(), 16, count=1024)])
        image = read_angiogram(save(tmp_path, made))
        assert np.array_equal(image.frames[0], STORED)
        assert f"its {name} look-up table is incomplete" in image.notes[0]


def test_one_or_two_grey_values_are_suspicious(tmp_path):
    for entries in ([7] * 1024, [0] * 400 + [255] * 624):
        made = make_dataset(STORED, bits=10)
        made.VOILUTSequence = [lut_item(entries, 8)]
        image = read_angiogram(save(tmp_path, made))
        assert np.array_equal(image.frames[0], STORED)
        assert "the stored values are shown" in image.notes[0]
    made.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(read(save(tmp_path, made)), 1023 - STORED)


def test_a_picture_of_two_stored_values_is_as_it_is(tmp_path):
    two = np.where(STORED > 500, 900, 100).astype(np.uint16)
    made = make_dataset(two, bits=10)
    made.VOILUTSequence = [lut_item(RISING.tolist(), 8)]
    image = read_angiogram(save(tmp_path, made))
    assert np.array_equal(image.frames[0], RISING[two])
    assert not image.notes


def test_tables_and_windows_of_stored_values_after_a_rescaling(tmp_path):
    made = make_dataset(STORED, bits=10, RescaleSlope="1", RescaleIntercept="-5000")
    made.WindowCenter, made.WindowWidth = "512", "701"
    path = save(tmp_path, made)
    assert read_angiogram(path).window == (161.5 - 5000, 861.5 - 5000)
    made.VOILUTSequence = [lut_item(RISING.tolist(), 8)]
    assert np.array_equal(read(save(tmp_path, made)), RISING[STORED])


def test_sigmoid_and_inverse(tmp_path):
    made = make_dataset(STORED, bits=10, VOILUTFunction="SIGMOID")
    made.WindowCenter, made.WindowWidth = "512", "600"
    curve = 1023 / (1 + np.exp(-4 * (np.arange(1024) - 512) / 600))
    low, high = curve.min(), curve.max()
    found = read(save(tmp_path, made))
    assert np.abs(found - curve[STORED]).max() < 0.001 * (high - low)
    made = make_dataset(STORED, bits=10, PresentationLUTShape="INVERSE")
    assert np.array_equal(read(save(tmp_path, made)), 1023 - STORED)


def test_a_window_without_width_is_no_window(tmp_path):
    made = make_dataset(STORED, bits=10, WindowCenter="500", WindowWidth="1")
    assert read_angiogram(save(tmp_path, made)).window is None
