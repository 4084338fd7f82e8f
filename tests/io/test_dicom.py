"""DICOM: every transfer syntax, depth and photometric, to the same pixels."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, fragment_frame

from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.lazy_frames import LazyFrames
from tests.io.conftest import CINE
from tests.io.dicom_making import (
    LOSSY,
    SYNTAXES,
    encode,
    make_dataset,
    with_extended_offsets,
    without_preamble,
    write_dicom,
)

EIGHT = (CINE >> 4).astype(np.uint8)
SIGNED = CINE.astype(np.int16) - 2048


def read(path) -> np.ndarray:
    return np.asarray(read_angiogram(path).frames)


DEPTHS = {"8": (EIGHT, 8), "12": (CINE, 12), "16": (CINE * 16, 16)}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_gives_the_same_pixels(tmp_path, syntax, depth):
    frames, bits = DEPTHS[depth]
    if (syntax == "JPEG baseline" and bits > 8) or (
        syntax == "JPEG extended" and bits > 12
    ):
        pytest.skip("the codec has no more bits")
    path = write_dicom(tmp_path / "a.dcm", frames, syntax, bits=bits)
    found = read(path)
    assert found.shape == frames.shape
    assert found.dtype == frames.dtype
    if syntax in LOSSY:
        error = np.abs(found.astype(float) - frames).mean()
        assert error < 2 ** (bits - 8) * 2
    else:
        assert np.array_equal(found, frames)


@pytest.mark.parametrize(
    "syntax", [s for s in SYNTAXES if s not in LOSSY], ids=lambda s: s
)
def test_signed_pixels(tmp_path, syntax):
    path = write_dicom(tmp_path / "a.dcm", SIGNED, syntax, bits=12)
    assert np.array_equal(read(path), SIGNED)


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_without_preamble_and_meta_information(tmp_path, syntax):
    path = without_preamble(write_dicom(tmp_path / "IM1", CINE, syntax, bits=12))
    assert np.array_equal(read(path), CINE)


def test_a_single_frame_is_no_cine(tmp_path):
    image = read_angiogram(write_dicom(tmp_path / "a.dcm", CINE[0], bits=12))
    assert not image.is_cine
    assert image.shape == (64, 64)


def test_monochrome1_is_turned_so_that_it_is_seen_as_meant(tmp_path):
    turned = write_dicom(
        tmp_path / "a.dcm",
        4095 - CINE,
        bits=12,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert np.array_equal(read(turned), CINE)
    signed = write_dicom(
        tmp_path / "b.dcm",
        -1 - SIGNED,
        bits=12,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert np.array_equal(read(signed), SIGNED)


def test_bits_above_the_stored_ones_are_no_pixels(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CINE | 0x4000, bits=12)
    assert np.array_equal(read(path), CINE)


def test_modality_rescale_and_lut(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", CINE, bits=12, RescaleSlope="2", RescaleIntercept="-100"
    )
    assert np.array_equal(read(path), CINE.astype(np.int32) * 2 - 100)
    made = make_dataset(CINE, bits=12)
    made.ModalityLUTSequence = [lut(np.arange(4096)[::-1], 16)]
    made.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "b.dcm"), 4095 - CINE)


def test_a_rescaling_that_gives_no_numbers_is_left_out(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", CINE, bits=12, RescaleSlope="1e300", RescaleIntercept="0"
    )
    image = read_angiogram(path)
    assert np.isfinite(image.frames[0]).all()
    assert any("rescaling" in note for note in image.notes)


def lut(table: np.ndarray, bits: int) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(table), 0, bits]
    item["LUTDescriptor"].VR = "US"
    item.ModalityLUTType = "US"
    item.LUTData = table.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


def test_voi_lut_is_applied_and_a_window_is_only_shown(tmp_path):
    curve = np.sqrt(np.arange(4096) / 4095) * 4095
    made = make_dataset(CINE, bits=12)
    made.VOILUTSequence = [lut(curve, 12)]
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "a.dcm"), curve.astype(np.uint16)[CINE])
    path = write_dicom(
        tmp_path / "b.dcm",
        CINE,
        bits=12,
        WindowCenter=["2000", "1"],
        WindowWidth="1001",
    )
    image = read_angiogram(path)
    assert np.array_equal(np.asarray(image.frames), CINE)
    assert image.window == (1499.5, 2499.5)
    turned = write_dicom(
        tmp_path / "c.dcm",
        CINE,
        bits=12,
        WindowCenter="2000",
        WindowWidth="1001",
        PhotometricInterpretation="MONOCHROME1",
    )
    assert read_angiogram(turned).window == (4095 - 2499.5, 4095 - 1499.5)


def test_a_grey_picture_saved_in_colour_is_read(tmp_path):
    made = make_dataset(EIGHT)
    made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
    made.PhotometricInterpretation = "RGB"
    made.PixelData = np.repeat(EIGHT[..., None], 3, axis=-1).tobytes()
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "a.dcm"), EIGHT)


# Where frames begin


def test_fragments_with_and_without_an_offset_table(tmp_path):
    made = make_dataset(CINE, "JPEG lossless SV1", bits=12)
    codestreams = [encode(f, made.file_meta.TransferSyntaxUID, made) for f in CINE]
    odd = [[*fragment_frame(c, n)] for c, n in zip(codestreams, (2, 1, 3), strict=True)]
    assert len(odd[0]) > 1
    for name, data in {
        "none": encapsulate(codestreams, has_bot=False),
        "table": encapsulate(codestreams, fragments_per_frame=2),
        "neither": encapsulate(codestreams, fragments_per_frame=2, has_bot=False),
    }.items():
        made.PixelData = data
        made.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
        assert np.array_equal(read(tmp_path / f"{name}.dcm"), CINE), name
    with_extended_offsets(made, codestreams)
    made.save_as(tmp_path / "extended.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "extended.dcm"), CINE)


# pydicom's own files, made by other programs


@pytest.mark.parametrize(
    "name",
    [
        "JPEG-lossy.dcm",
        "JPEG2000.dcm",
        "JPGExtended.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
        "JPEGLSNearLossless_08.dcm",
        "JPEGLSNearLossless_16.dcm",
        "J2K_pixelrep_mismatch.dcm",
    ],
)
def test_files_of_other_programs(name):
    path = get_testdata_file(name)
    image = read_angiogram(path, ReadLimits(min_side=8))
    expected = pydicom.dcmread(path)
    if name in ("JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000.dcm") or (
        "jp2k" in name or "jpeg" in name or "J2K" in name or "JPEGLS" in name
    ):
        stored = expected.file_meta.TransferSyntaxUID
        assert stored.is_compressed
    if name.startswith("MR_small"):
        reference = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
        assert np.array_equal(image.frames[0], reference)
    assert image.frames.shape[1:] == (expected.Rows, expected.Columns)
    assert image.frames[0].std() > 0


# Frames when they are needed


def test_frames_are_decoded_when_looked_at(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", CINE, "RLE", bits=12)
    image = read_angiogram(path)
    assert isinstance(image.frames, LazyFrames)
    assert image.frames.nbytes == CINE.nbytes
    assert np.array_equal(image.frames[1, 5:9, ::2], CINE[1, 5:9, ::2])
    assert np.array_equal(image.frames[-1], CINE[-1])
    assert np.array_equal(image.frames[1:], CINE[1:])
    assert np.array_equal(image.frames[..., 3], CINE[..., 3])
    assert np.array_equal(image.frames[[2, 0]], CINE[[2, 0]])
    with pytest.raises(IndexError):
        image.frames[3]
    with pytest.raises(ValueError, match="read-only"):
        image.frames[0][0, 0] = 1
    assert sum(1 for _ in image.frames) == 3


def test_frame_rate(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CINE, bits=12)
    assert read_angiogram(path).frames_per_second == pytest.approx(15, abs=0.01)
    path = write_dicom(tmp_path / "b.dcm", CINE, bits=12, CineRate=30)
    assert read_angiogram(path).frames_per_second == 30
    path = write_dicom(
        tmp_path / "c.dcm", CINE, bits=12, FrameTime=None, FrameTimeVector=[0, 80, 80]
    )
    assert read_angiogram(path).frames_per_second == 12.5
