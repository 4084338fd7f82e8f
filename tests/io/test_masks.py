from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage import io as skimage_io

from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks import files as masks
from napari_cmunet.io.masks.files import (
    read_mask,
    read_provenance,
    write_mask,
    write_probability,
)
from napari_cmunet.io.provenance import Provenance

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = Provenance(
    model="cmunet-artery",
    model_sha256="ab" * 32,
    threshold=0.5,
    source_sha256="cd" * 32,
    corrected=True,
)


def some_mask(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).random(shape) > 0.7


def pillow_pages(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pages = []
        for index in range(image.n_frames):
            image.seek(index)
            pages.append(np.array(image))
    return np.squeeze(np.stack(pages))


@pytest.mark.parametrize("shape", [(40, 48), (7, 40, 48), (3, 40, 48), (4, 40, 4)])
@pytest.mark.parametrize("high", [255, 1])
def test_every_reader_sees_the_same(tmp_path, shape, high):
    path, mask = tmp_path / "a.tif", some_mask(*shape)
    write_mask(path, mask, ORIGIN, (0.3, 0.25), values=(0, high))
    expected = mask * np.uint8(high)
    for found in (
        tifffile.imread(path),
        pillow_pages(path),
        # scikit-image guesses that three or four frames are colours.
        None if shape[0] in (3, 4) else skimage_io.imread(path),
    ):
        if found is None:
            continue
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)
    assert np.array_equal(read_mask(path), mask)
    assert read_mask(path).dtype == bool


def test_what_stands_in_the_tags(tmp_path):
    path = tmp_path / "a.tif"
    write_mask(path, some_mask(6, 40, 48), ORIGIN, (0.3, 0.25))
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "TYX"
        assert len(tif.pages) == 6
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        descriptions = [t for t in tif.pages[0].tags.values() if t.code == 270]
        assert len(descriptions) == 1
        record = json.loads(descriptions[0].value)
        for page in tif.pages:
            x, y = page.tags["XResolution"].value, page.tags["YResolution"].value
            assert x[0] / x[1] == pytest.approx(40)
            assert y[0] / y[1] == pytest.approx(100 / 3)
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
    assert record["pixel_size_mm"] == [0.3, 0.25]
    assert record["model"] == "cmunet-artery"
    assert record["artery"] == 255
    with Image.open(path) as image:
        assert json.loads(image.tag_v2[270]) == record
    assert Provenance.from_dict(record) == ORIGIN
    assert read_provenance(path) == ORIGIN


def test_unknown_pixel_size_claims_nothing(tmp_path):
    path = tmp_path / "a.tif"
    write_mask(path, some_mask(40, 48), ORIGIN)
    with tifffile.TiffFile(path) as tif:
        assert tif.pages[0].tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE
    assert read_angiogram(path).pixel_size_mm is None


def test_pixel_size_comes_back_exactly(tmp_path):
    path = tmp_path / "a.tif"
    size = (0.254, 0.254)  # in the tags alone it would pass for 100 dots per inch
    write_mask(path, some_mask(40, 48), ORIGIN, size)
    assert read_angiogram(path).pixel_size_mm == size


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=12, min_side=1))
)
@pytest.mark.slow
def test_any_mask_comes_back(tmp_path_factory, mask):
    path = tmp_path_factory.getbasetemp() / "any.tif"
    write_mask(path, mask, ORIGIN)
    expected = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    found = read_mask(path)
    assert found.shape == expected.shape
    assert (found == expected).all()


def test_views_and_reversed_arrays(tmp_path):
    path, mask = tmp_path / "a.tif", some_mask(48, 40)
    write_mask(path, mask.T[::-1], ORIGIN)
    assert (read_mask(path) == mask.T[::-1]).all()


@pytest.mark.parametrize("shape", [(40, 48), (5, 40, 48)])
def test_probability(tmp_path, shape):
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_probability(path, values, ORIGIN, (0.3, 0.3))
    assert (tifffile.imread(path) == values).all()
    with tifffile.TiffFile(path) as tif:
        content = json.loads(tif.pages[0].description)["content"]
    assert content == "artery probability"
    with pytest.raises(ReadError, match="not a mask of two values"):
        read_mask(path)


def test_wrong_arguments(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(TypeError):
        write_mask(path, np.zeros((40, 48), np.uint8), ORIGIN)
    with pytest.raises(TypeError):
        write_probability(path, np.zeros((40, 48)), ORIGIN)
    with pytest.raises(ValueError, match="values"):
        write_mask(path, some_mask(4, 4), ORIGIN, values=(0, 2))
    with pytest.raises(WriteError, match="shape"):
        write_mask(path, some_mask(2, 3, 4, 4), ORIGIN)
    assert not path.exists()


def test_a_full_disk_keeps_the_older_mask(tmp_path, monkeypatch):
    path, older = tmp_path / "a.tif", some_mask(40, 48)
    write_mask(path, older, ORIGIN)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"^a\.tif: the disk is full"):
        write_mask(path, ~older, ORIGIN)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_file_that_reads_back_differently_is_not_kept(tmp_path, monkeypatch, exists):
    path, mask = tmp_path / "a.tif", some_mask(40, 48)
    if exists:
        write_mask(path, mask, ORIGIN)
    real = tifffile.TiffWriter.write

    def faulty(self, data, **kwargs):
        wrong = data.copy()
        wrong[3, 3] ^= 255
        return real(self, wrong, **kwargs)

    monkeypatch.setattr(tifffile.TiffWriter, "write", faulty)
    with pytest.raises(WriteError, match="read back is not what was written"):
        write_mask(path, ~mask, ORIGIN)
    assert path.exists() is exists
    if exists:
        assert (read_mask(path) == mask).all()
    assert len(list(tmp_path.iterdir())) == exists


def test_a_file_that_cannot_be_read_back_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    real = masks.atomic_write

    def cutting(path, mode="wb", verify=None):
        def cut_then_verify(temporary):
            content = temporary.read_bytes()
            temporary.write_bytes(content[: len(content) // 2])
            verify(temporary)

        return real(path, mode, cut_then_verify)

    monkeypatch.setattr(masks, "atomic_write", cutting)
    with pytest.raises(WriteError, match="read back"):
        write_mask(path, some_mask(400, 480), ORIGIN)
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path):
    with pytest.raises(WriteError, match="its folder does not exist"):
        write_mask(tmp_path / "none" / "a.tif", some_mask(4, 4), ORIGIN)


@pytest.mark.parametrize("high", [1, 7, 255])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.bmp", "a.webp"])
def test_masks_of_other_programs(tmp_path, name, high):
    path, mask = tmp_path / name, some_mask(20, 30)
    pixels = mask * np.uint8(high)
    if name == "a.npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, lossless=True)
    assert (read_mask(path) == mask).all()
    assert read_provenance(path) is None


@pytest.mark.parametrize("dtype", [bool, np.uint16, np.int64, np.float32])
def test_masks_of_other_types(tmp_path, dtype):
    path, mask = tmp_path / "a.npy", some_mask(5, 20, 30)
    np.save(path, mask.astype(dtype))
    assert (read_mask(path) == mask).all()


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA"])
def test_masks_in_other_modes(tmp_path, mode):
    path, mask = tmp_path / "a.png", some_mask(20, 30)
    Image.fromarray(mask * np.uint8(255)).convert(mode).save(path)
    assert (read_mask(path) == mask).all()


def test_palette_masks_mean_their_indices(tmp_path):
    path, mask = tmp_path / "a.png", some_mask(20, 30)
    image = Image.fromarray(mask.view(np.uint8), mode="P")
    image.putpalette([10, 10, 10, 255, 0, 0])
    image.save(path)
    assert (read_mask(path) == mask).all()


def test_a_mask_of_one_value(tmp_path):
    for value in (0, 255):
        path = tmp_path / "a.png"
        Image.fromarray(np.full((20, 30), value, np.uint8)).save(path)
        assert (read_mask(path, large="keep") == (value > 0)).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1, 2], "0 and 1, 2"),
        ([0, 1, 255], "0 and 1, 255"),
        ([0, 3, 80, 128, 255], "0 and 3, 80, 128"),
    ],
)
def test_more_than_two_values_are_refused(tmp_path, values, words):
    path = tmp_path / "a.png"
    pixels = np.resize(np.array(values, np.uint8), (20, 30))
    Image.fromarray(pixels).save(path)
    with pytest.raises(ReadError, match=f"two values: it holds {words}"):
        read_mask(path)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_negative_values_and_nan_are_no_mask(tmp_path, value):
    path = tmp_path / "a.npy"
    pixels = np.zeros((20, 30), np.float32)
    pixels[3, 3] = value
    np.save(path, pixels)
    with pytest.raises(ReadError, match=r"mask|negative"):
        read_mask(path)


def test_a_mask_in_one_colour_is_read_and_in_two_refused(tmp_path):
    mask = some_mask(20, 30)
    path = tmp_path / "a.png"
    drawn = np.zeros((20, 30, 3), np.uint8)
    drawn[mask] = (200, 0, 30)
    Image.fromarray(drawn).save(path)
    assert np.array_equal(read_mask(path), mask)
    transparent = np.dstack([drawn, mask * np.uint8(255)])
    Image.fromarray(transparent).save(path)
    assert np.array_equal(read_mask(path), mask)
    drawn[0] = (0, 200, 30)
    Image.fromarray(drawn).save(path)
    with pytest.raises(ReadError, match="colour picture"):
        read_mask(path)


def test_a_jpeg_mask_is_refused(tmp_path):
    mask = some_mask(20, 30) * np.uint8(255)
    path = tmp_path / "a.jpg"
    Image.fromarray(mask).save(path)
    with pytest.raises(ReadError, match="JPEG changes the values"):
        read_mask(path)


def curve() -> np.ndarray:
    y, x = np.mgrid[:256, :256]
    return abs(y - 128 - 40 * np.sin(x / 30)) < 11


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_an_inverting_look_up_table_does_not_invert_a_mask(tmp_path, dtype):
    """ImageJ writes masks so; every other program takes the stored values."""
    path, mask = tmp_path / "a.tif", curve()
    pixels = mask * np.uint8(255) if dtype == np.uint8 else mask
    tifffile.imwrite(path, pixels, photometric="miniswhite")
    assert np.array_equal(read_mask(path), mask)


def test_a_mask_that_is_mostly_artery_is_asked_about(tmp_path):
    path, mask = tmp_path / "a.tif", curve()
    tifffile.imwrite(path, (~mask).astype(np.uint8) * 255)
    with pytest.raises(masks.LargeMaskError, match="of it is artery"):
        read_mask(path)
    assert np.array_equal(read_mask(path, large="invert"), mask)
    assert np.array_equal(read_mask(path, large="keep"), ~mask)
    # One frame of a cine is enough, and a third is not.
    tifffile.imwrite(path, np.stack([mask, ~mask]).astype(np.uint8))
    with pytest.raises(masks.LargeMaskError):
        read_mask(path)
    third = np.zeros((30, 30), np.uint8)
    third[:10] = 255
    tifffile.imwrite(path, third)
    assert read_mask(path).sum() == 300


def test_a_mask_of_this_program_is_believed(tmp_path):
    path, mask = tmp_path / "a.tif", curve()
    write_mask(path, ~mask, ORIGIN)
    assert np.array_equal(read_mask(path), ~mask)


@pytest.mark.parametrize("colour", [(255,), (255, 0, 0)], ids=["LA", "RGBA"])
def test_what_is_transparent_is_background(tmp_path, colour):
    mask = np.zeros((64, 64), bool)
    mask[20:30] = True
    drawn = np.broadcast_to(np.uint8(colour), (*mask.shape, len(colour)))
    alpha = np.uint8(255) * mask[..., None]
    Image.fromarray(np.concatenate([drawn, alpha], -1)).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), mask)


def test_values_side_by_side(tmp_path):
    mask = curve()
    for name, value in (("a", 1), ("b", 255)):
        Image.fromarray(mask * np.uint8(value)).save(tmp_path / f"{name}.png")
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), mask)


@pytest.mark.parametrize("text", ["", "a scan", "[1]", '{"shape": [20, 30]}'])
def test_files_of_others_have_no_record(tmp_path, text):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((20, 30), np.uint8), description=text, metadata=None
    )
    assert read_provenance(path) is None


def test_a_newer_record_is_an_error_of_its_own(tmp_path):
    path = tmp_path / "a.tif"
    text = json.dumps(ORIGIN.to_dict() | {"schema": 99})
    tifffile.imwrite(
        path, np.zeros((20, 30), np.uint8), description=text, metadata=None
    )
    with pytest.raises(ReadError, match="newer"):
        read_provenance(path)
    assert not read_mask(path).any()


def test_nothing_of_the_file_or_its_folder_is_written(tmp_path):
    folder = tmp_path / "Smith John 1950"
    folder.mkdir()
    path = folder / "angio_secret.tif"
    origin = Provenance(model=str(folder / "models" / "fine"))
    write_mask(path, some_mask(40, 48), origin, (0.3, 0.3))
    content = path.read_bytes()
    for word in (b"Smith", b"secret", str(tmp_path.name).encode()):
        assert word not in content
