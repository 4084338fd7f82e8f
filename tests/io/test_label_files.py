from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tifffile

from napari_cmunet.errors import ReadError
from napari_cmunet.io.masks.files import write_mask
from napari_cmunet.io.masks.label_file import Label, read_label, write_label
from napari_cmunet.io.provenance import Provenance


@pytest.fixture
def mask():
    return np.random.default_rng(1).random((40, 48)) < 0.2


def test_a_label_comes_back_as_it_was(tmp_path, mask):
    path = tmp_path / "a.tif"
    origin = Provenance(source_sha256="a" * 64, frames=(7,), corrected=True)
    write_label(path, Label(mask, None, origin, (0.2, 0.3), {"base": "x"}))
    found = read_label(path)
    assert np.array_equal(found.mask, mask)
    assert found.reviewed is None
    assert found.provenance == origin
    assert found.pixel_size_mm == pytest.approx((0.2, 0.3), rel=1e-6)
    assert found.note == {"base": "x"}


def test_reviewed_part_is_the_second_page(tmp_path, mask):
    path = tmp_path / "a.tif"
    reviewed = np.zeros(mask.shape, bool)
    reviewed[:20] = True
    write_label(path, Label(mask, reviewed, Provenance()))
    found = read_label(path)
    assert np.array_equal(found.mask, mask)
    assert np.array_equal(found.reviewed, reviewed)
    with tifffile.TiffFile(path) as tif:  # as any program sees it
        assert [page.dtype for page in tif.pages] == [np.uint8, np.uint8]
        assert np.array_equal(tif.pages[0].asarray(), mask * np.uint8(255))
        assert np.array_equal(tif.pages[1].asarray(), reviewed * np.uint8(255))


def test_a_large_label_takes_little_memory(tmp_path):
    path = tmp_path / "a.tif"
    some = np.zeros((2048, 2048), bool)
    some[::3] = True
    write_label(path, Label(some, ~some, Provenance()))
    tracemalloc.start()
    found = read_label(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found.mask, some)
    assert np.array_equal(found.reviewed, ~some)
    assert peak < 1.8 * 2 * some.nbytes


def test_plain_masks_and_other_files_are_refused(tmp_path, mask):
    path = tmp_path / "a.tif"
    write_mask(path, mask, Provenance())
    with pytest.raises(ReadError, match="pages differ"):
        read_label(path)
    tifffile.imwrite(path, mask.astype(np.uint8))
    with pytest.raises(ReadError, match="record of origin"):
        read_label(path)
    path.write_bytes(b"II*\0")
    with pytest.raises(ReadError):
        read_label(path)


def test_a_label_of_other_values_is_damaged(tmp_path, mask):
    path = tmp_path / "a.tif"
    write_label(path, Label(mask, None, Provenance()))
    with tifffile.TiffFile(path) as tif:
        description = tif.pages.first.description
    tifffile.imwrite(path, mask * np.uint8(7), description=description, metadata=None)
    with pytest.raises(ReadError, match="0 and 255"):
        read_label(path)


def test_every_cut_is_refused(tmp_path, mask):
    path = tmp_path / "a.tif"
    reviewed = ~mask
    write_label(path, Label(mask, reviewed, Provenance()))
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 37):
        path.write_bytes(data[:length])
        with pytest.raises(ReadError):
            read_label(path)


def test_wrong_arrays_are_a_mistake_of_the_caller(tmp_path, mask):
    for label in (
        Label(mask.astype(np.uint8), None, Provenance()),
        Label(mask[None], None, Provenance()),
        Label(mask, np.ones((3, 3), bool), Provenance()),
    ):
        with pytest.raises(TypeError):
            write_label(tmp_path / "a.tif", label)
    assert list(tmp_path.iterdir()) == []
