"""Small files that ask for much: refused by what they declare, before it is made."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.identity import safe_name
from napari_cmunet.io.discovery import find_images
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.fuzzing.dicom_inputs import file_list
from tests.io.dicom_making import make_dataset, write_dicom

# As the program has it; pytest sets the warnings anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom", "ignore:Reading")
LIMITS = ReadLimits(max_frame_pixels=2**20, max_decoded_bytes=2**22)
CINE = make_cine(PhantomConfig(frames=3, size=64, seed=3)).frames
LARGE = np.zeros((2500, 2500), np.uint8)

# Codecs whose pieces are pictures in themselves, decoded to the size that they say.
PICTURES = {
    "JPEG": (7, imagecodecs.jpeg8_encode),
    "JPEG 2000": (34712, imagecodecs.jpeg2k_encode),
    "PNG": (34933, imagecodecs.png_encode),
    "JPEG XL": (50002, lambda a: imagecodecs.jpegxl_encode(a, effort=1)),
    "JPEG XR": (22610, imagecodecs.jpegxr_encode),
    "LERC": (34887, imagecodecs.lerc_encode),
}


@pytest.mark.parametrize("codec", PICTURES)
def test_a_tile_that_is_larger_than_its_place(tmp_path, codec):
    number, encode = PICTURES[codec]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(
            iter([encode(LARGE)]),
            shape=(64, 64),
            dtype=np.uint8,
            compression=number,
            photometric="minisblack",
            rowsperstrip=64,
        )
    words = "larger than the picture|this version does not read"
    with pytest.raises(ReadError, match=words):
        read_angiogram(path, LIMITS)


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "zlib", "lzma", "zstd"])
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}, {"rowsperstrip": 16}])
def test_compressed_tiffs_are_read(tmp_path, codec, layout):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CINE, compression=codec, photometric="minisblack", **layout)
    frames = np.asarray(read_angiogram(path).frames, np.int32)
    assert frames.shape == CINE.shape
    assert abs(frames - CINE).mean() < (3 if codec == "jpeg" else 1e-6)


def test_a_strip_that_inflates_to_more_than_its_place(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(
            iter([zlib.compress(bytes(2**26))]),
            shape=(64, 64),
            dtype=np.uint8,
            compression="zlib",
            photometric="minisblack",
            rowsperstrip=64,
        )
    with pytest.raises(ReadError, match="could not be decoded"):
        read_angiogram(path, LIMITS)


def test_a_header_that_claims_gigabytes(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(200))
    tracemalloc.start()
    with pytest.raises(ReadError, match="header is damaged"):
        read_angiogram(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_png_whose_last_piece_claims_gigabytes(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(CINE[0]).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT")
    data[at - 4 : at] = b"\x7f\xff\xff\xff"
    path.write_bytes(data)
    tracemalloc.start()
    with contextlib.suppress(ReadError):  # its pixels may all be there
        read_angiogram(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_the_header_of_an_old_npy_file_is_read(tmp_path):
    file = io.BytesIO()
    np.save(file, CINE[0])
    data = file.getvalue().replace(b"(64, 64), }  ", b"(64L, 64L), }")
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    assert read_angiogram(path).shape == (64, 64)


@pytest.mark.slow
def test_a_dicom_file_of_a_million_elements(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CINE)
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x16\x00UI")
    path.write_bytes(data[:at] + b"\x28\0\x11\x10LO\0\0" * 1_000_000 + data[at:])
    began = time.process_time()
    with pytest.raises(ReadError, match="could not be decoded"):
        read_angiogram(path)
    assert time.process_time() - began < 5


def test_a_table_of_frames_that_claims_gigabytes(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CINE, "JPEG baseline")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xfe\xff\x00\xe0")
    data[at + 4 : at + 8] = b"\xf0\xff\xff\x7f"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ReadError, match="cut short"):
        read_angiogram(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.slow
def test_names_that_are_too_large_to_be_looked_for(tmp_path):
    path = write_dicom(tmp_path / "Mustermann-a.dcm", CINE)
    assert safe_name(path) == "anon-a.dcm"
    made = make_dataset(CINE, PatientAddress="x")
    made["PatientAddress"].VR = "UT"
    made.PatientAddress = "a" * 5_000_000  # so long that pydicom reads it later
    made.save_as(path)
    assert safe_name(path) == "anon-a.dcm"
    made.PatientAddress = "a b " * 100_000
    made.OtherPatientNames = "\\".join(f"x{n}" for n in range(4000))
    made.save_as(path)
    began = time.process_time()
    assert safe_name(path) == "anon-a.dcm"
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "parts",
    [
        ["x" * 300],
        ["A" * 100] * 60,
        ["CON"],
        ["IMAGES", "aux.1"],
        ["COM1"],
        ["..", "secret.dcm"],
        ["/etc", "passwd"],
        ["C:", "x"],
        ["a/../../secret.dcm"],
        [""],
    ],
)
def test_a_dicomdir_leads_nowhere_else(tmp_path, parts):
    write_dicom(tmp_path / "secret.dcm", CINE)
    disc = tmp_path / "disc"
    disc.mkdir()
    (disc / "DICOMDIR").write_bytes(file_list([parts]))
    for file in find_images([disc / "DICOMDIR"]):
        assert ".." not in file.relative.parts
        assert not file.relative.is_absolute()
        # Nothing is there that could be read, but for the list itself.
        with pytest.raises(ReadError):
            read_angiogram(file.path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_nothing_waits_for_a_pipe(tmp_path):
    from napari_cmunet.errors import CMUNetError
    from napari_cmunet.model.card import CARD
    from napari_cmunet.model.importer import read_checkpoint
    from napari_cmunet.model.registry import WEIGHTS, load_model
    from napari_cmunet.project.patients import read_patients

    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / CARD)
    os.mkfifo(tmp_path / "a.pth")
    other = tmp_path / "other"
    other.mkdir()
    card = '{"name": "other", "kind": "ssl", "width": 4, "preprocessing": {}}'
    (other / CARD).write_text(card)
    os.mkfifo(other / WEIGHTS)
    refused = []

    def read() -> None:
        for act, given in (
            (load_model, folder),
            (load_model, other),
            (read_checkpoint, tmp_path / "a.pth"),
            (read_patients, tmp_path / "a.pth"),
        ):
            with pytest.raises(CMUNetError) as error:
                act(given)
            refused.append(str(error.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert len(refused) == 4
    assert all("no plain file" in text or "not a model" in text for text in refused)


def test_numbers_that_are_none_are_no_warning(tmp_path):
    # Signalling NaN and values beyond float16, which NumPy remarks upon when it casts.
    colour = np.repeat(CINE[0][..., None], 3, -1).astype(np.float32)
    colour[3, 3] = np.array([0x7FA00000, 0x7F800000, 0], np.uint32).view(np.float32)
    small = colour.astype(np.float16)
    small[5, 5] = 65504, 65000, 64000
    for number, array in enumerate((colour, small)):
        path = tmp_path / f"{number}.npy"
        np.save(path, array)
        assert np.isfinite(read_angiogram(path).frames).all()
