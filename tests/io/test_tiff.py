from __future__ import annotations

import json
import logging
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.images import read_angiogram


def write(path, array, **options):
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "lzw", "rowsperstrip": 7},
        {"tile": (16, 16), "compression": "zlib", "predictor": True},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "TYX"}},
        {"metadata": None},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_cines(tmp_path, cine, options, dtype):
    path = write(tmp_path / "a.tif", cine.astype(dtype), **options)
    image = read_angiogram(path)
    assert image.is_cine
    assert image.shape == cine.shape
    assert image.frames.dtype == dtype
    assert (image.frames == cine).all()
    assert image.notes == ()


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "u4", "f2", "f4", "f8"])
def test_number_types(tmp_path, frame, dtype):
    array = (frame // 2).astype(dtype)
    image = read_angiogram(write(tmp_path / "a.tif", array))
    assert image.shape == frame.shape
    assert (image.frames[0] == array).all()


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((1, 40, 48), "TYX"), ((1, 1, 40, 48), "TZYX"), ((1, 1, 1, 40, 48), "TZCYX")],
)
def test_axes_of_length_one_vanish(tmp_path, shape, axes):
    array = np.ones(shape, np.uint16)
    path = write(tmp_path / "a.ome.tif", array, ome=True, metadata={"axes": axes})
    assert read_angiogram(path).shape == (40, 48)


def test_pages_written_one_by_one(tmp_path, cine):
    path = tmp_path / "a.tif"
    pages = [Image.fromarray(page) for page in cine]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert (read_angiogram(path).frames == cine).all()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_equal_channels(tmp_path, frame, planar):
    colours = np.stack([frame] * 3, -1 if planar == "contig" else 0)
    path = write(tmp_path / "a.tif", colours, photometric="rgb", planarconfig=planar)
    image = read_angiogram(path)
    assert not image.is_cine
    assert (image.frames[0] == frame).all()


def test_equal_channels_of_a_cine_with_alpha(tmp_path, cine):
    colours = np.stack([cine, cine, cine, np.full_like(cine, 255)], -1)
    path = write(
        tmp_path / "a.tif", colours, photometric="rgb", extrasamples=["unassalpha"]
    )
    image = read_angiogram(path)
    assert (image.frames == cine).all()
    assert image.notes == ()


def test_imagej_channels_of_colour(tmp_path, frame):
    array = np.stack([frame] * 3)
    path = write(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "CYX"})
    image = read_angiogram(path)
    assert not image.is_cine
    assert (image.frames[0] == frame).all()


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3, 40, 48), "TZYX"),
        ((2, 40, 48), "CYX"),
        ((2, 3, 4, 40, 48), "TZCYX"),
    ],
)
def test_more_axes_are_refused_by_name(tmp_path, shape, axes):
    array = np.zeros(shape, np.uint8)
    path = write(tmp_path / "a.tif", array, imagej=True, metadata={"axes": axes})
    words = " x ".join(map(str, shape))
    with pytest.raises(ReadError, match=f"its shape is {words}"):
        read_angiogram(path)


def test_complex_pixels_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((40, 48), np.complex64))
    with pytest.raises(ReadError, match="complex numbers"):
        read_angiogram(path)


def test_many_samples_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((40, 48, 7), np.uint8), planarconfig=1)
    with pytest.raises(ReadError, match="7 values for each pixel"):
        read_angiogram(path)


def test_min_is_white_is_turned_round(tmp_path, frame):
    path = write(tmp_path / "a.tif", frame, photometric="miniswhite")
    assert (read_angiogram(path).frames[0] == 255 - frame).all()


def test_palette_of_greys(tmp_path, frame):
    ramp = np.arange(255, -1, -1, dtype=np.uint16) * 257
    colormap = np.stack([ramp] * 3)
    path = write(tmp_path / "a.tif", frame, photometric="palette", colormap=colormap)
    image = read_angiogram(path)
    assert image.frames.dtype == np.uint16
    assert (image.frames[0] == ramp[frame]).all()


def test_palette_of_colours_is_refused(tmp_path, frame):
    colormap = np.zeros((3, 256), np.uint16)
    colormap[0] = np.arange(256) * 257
    path = write(tmp_path / "a.tif", frame, photometric="palette", colormap=colormap)
    with pytest.raises(ReadError, match="colour picture"):
        read_angiogram(path)


def test_the_first_of_several_images(tmp_path, frame):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(frame, photometric="minisblack")
        tif.write(np.zeros((50, 60), np.uint8), photometric="minisblack")
    image = read_angiogram(path)
    assert (image.frames[0] == frame).all()
    assert image.notes == ("the first of 2 images in the file was read",)


@pytest.mark.parametrize("kind", [1, 0])
def test_a_thumbnail_page_is_not_the_image(tmp_path, frame, kind):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        thumbnail = np.ascontiguousarray(255 - frame[::2, ::2])
        tif.write(thumbnail, photometric="minisblack", subfiletype=kind)
        tif.write(frame, photometric="minisblack")
    image = read_angiogram(path, ReadLimits(min_side=1))
    assert (image.frames == frame).all()
    assert "of 2 images in the file was read" in image.notes[0]


_OME_OF_TWO_FILES = """<?xml version="1.0"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8"
 SizeX="48" SizeY="40" SizeC="1" SizeZ="1" SizeT="2">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData FirstT="0" IFD="0"><UUID FileName="b.tif">urn:uuid:1</UUID></TiffData>
<TiffData FirstT="1" IFD="0"><UUID FileName="secret.tif">urn:uuid:2</UUID></TiffData>
</Pixels></Image></OME>"""


def test_other_files_are_not_opened(tmp_path, frame, monkeypatch):
    path = write(
        tmp_path / "a.tif", frame, description=_OME_OF_TWO_FILES, metadata=None
    )
    for name in ("b.tif", "secret.tif"):
        write(tmp_path / name, 255 - frame)
    opened = []
    real = tifffile.TiffFile.__init__

    def watched(self, file, *args, **kwargs):
        opened.append(file)
        real(self, file, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", watched)
    assert (read_angiogram(path).frames == frame).all()
    assert len(opened) == 1


def test_pages_in_a_circle(tmp_path, frame):
    path = write(tmp_path / "a.tif", frame, metadata=None)
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="its pages form a circle"):
        read_angiogram(path)


def test_pages_beyond_the_end(tmp_path, frame):
    path = write(tmp_path / "a.tif", frame, bigtiff=True, metadata=None)
    whole = path.read_bytes()
    (first,) = struct.unpack_from("<Q", whole, 8)
    (entries,) = struct.unpack_from("<Q", whole, first)
    for place in (8, first + 8 + 20 * entries):
        for offset in (len(whole) - 3, 2**40, 2**63 - 1, 2**64 - 1):
            content = bytearray(whole)
            struct.pack_into("<Q", content, place, offset)
            path.write_bytes(content)
            with pytest.raises(ReadError, match="cut short"):
                read_angiogram(path)


def test_no_page_at_all(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(ReadError, match="without an image"):
        read_angiogram(path)


def test_limits(tmp_path, cine):
    path = write(tmp_path / "a.tif", cine, metadata=None)
    with pytest.raises(ReadError, match="more than 4 pages"):
        read_angiogram(path, ReadLimits(max_frames=4))
    with pytest.raises(ReadError, match="GB of memory, more than the limit"):
        read_angiogram(path, ReadLimits(max_decoded_bytes=cine.nbytes - 1))


def test_a_declared_size_that_is_absurd(tmp_path, frame):
    path = write(tmp_path / "a.tif", frame, metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        offsets = [tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
        rows = tags["RowsPerStrip"].valueoffset
    content = bytearray(path.read_bytes())
    for offset in (*offsets, rows):
        struct.pack_into("<H", content, offset, 65535)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="65535 x 65535 pixels, more than the limit"):
        read_angiogram(path)


def test_missing_strips_are_not_black(tmp_path, frame):
    path = write(tmp_path / "a.tif", frame, rowsperstrip=10, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["StripByteCounts"]
        offset, size = tag.valueoffset, tag.valuebytecount // tag.count
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="parts of its picture are missing"):
        read_angiogram(path)


def test_tifffile_writes_no_log_lines(tmp_path, frame, caplog):
    path = write(tmp_path / "Smith.tif", frame)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"shape": [40, 48]', b'"shape": [41, 48]'))
    with caplog.at_level(logging.DEBUG, logger="tifffile"):
        read_angiogram(path)
        assert "Smith" not in caplog.text
        logging.getLogger("tifffile").warning("still there for others")
    assert "still there for others" in caplog.text


_WITHOUT_IMAGECODECS = """
import sys
sys.modules["imagecodecs"] = None
import numpy as np
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import read_mask, write_mask
from napari_cmunet.io.provenance import Provenance
folder = sys.argv[1] + "/"
for name in ("lzw", "jpeg", "zlib"):
    image = read_angiogram(folder + name + ".tif")
    truth = np.load(folder + "truth.npy")
    assert image.shape == truth.shape, image.shape
    worst = np.abs(image.frames.astype(int) - truth).max()
    assert worst <= (0 if name != "jpeg" else 80), (name, worst)
mask = truth > 99
write_mask(folder + "mask.tif", mask, Provenance())
assert (read_mask(folder + "mask.tif") == mask).all()
"""


@pytest.mark.slow
def test_without_imagecodecs(tmp_path, cine):
    """An install has tifffile without its codecs: Pillow reads what it cannot."""
    pages = [Image.fromarray(page) for page in cine]
    for name, codec in (
        ("lzw", "tiff_lzw"),
        ("jpeg", "jpeg"),
        ("zlib", "tiff_deflate"),
    ):
        pages[0].save(
            tmp_path / f"{name}.tif",
            save_all=True,
            append_images=pages[1:],
            compression=codec,
        )
    np.save(tmp_path / "truth.npy", cine)
    subprocess.run(
        [sys.executable, "-c", _WITHOUT_IMAGECODECS, str(tmp_path)],
        check=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "shaped",
    [{"shape": [10**300, 48, 64]}, {"shape": [2, 48, 64], "axes": "a\nb"}],
    ids=["shape beyond all sense", "axes on two lines"],
)
def test_what_a_file_says_of_its_shape_is_told_in_one_short_line(tmp_path, shaped):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for page in range(2):
            file.write(
                np.zeros((48, 64), np.uint8),
                description="" if page else json.dumps(shaped),
                metadata=None,
            )
    with pytest.raises(ReadError) as caught:
        read_angiogram(path)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("axes", [None, "TCYX", "ZCYX", "QQYX"])
@pytest.mark.parametrize("kind", ["shaped", "imagej", "ome"])
def test_axes_of_length_1_are_dropped(tmp_path, kind, axes):
    if kind != "shaped" and axes in (None, "QQYX"):
        pytest.skip("such axes are not written in this kind")
    stack = np.random.default_rng(0).integers(0, 255, (5, 1, 40, 48), np.uint8)
    metadata = {"axes": axes} if axes else {}
    more = {kind: True} if kind != "shaped" else {}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=metadata, **more)
    image = read_angiogram(path)
    assert image.is_cine
    assert np.array_equal(np.asarray(image.frames), stack[:, 0])
