from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_cmunet.io.images import read_angiogram

FRAME = np.zeros((40, 48), np.uint8)


def size_of(path, **options):
    tifffile.imwrite(path, FRAME, photometric="minisblack", **options)
    image = read_angiogram(path)
    return image.pixel_size_mm, image.pixel_size_source


@pytest.mark.parametrize(
    ("unit", "per_mm", "words"),
    [("CENTIMETER", 10, "per cm"), (4, 1, "per mm"), ("INCH", 25.4, "per inch")],
)
def test_resolution_tags(tmp_path, unit, per_mm, words):
    size, source = size_of(
        tmp_path / "a.tif",
        resolution=(per_mm / 0.25, per_mm / 0.31),
        resolutionunit=unit,
    )
    assert size == pytest.approx((0.31, 0.25), rel=1e-6)
    assert source == f"resolution tags ({words})"


@pytest.mark.parametrize(
    ("density", "unit"),
    [(72, "INCH"), (96, "INCH"), (300, "INCH"), (28.35, 3), (118.11, 3)],
)
def test_a_printing_density_is_no_pixel_size(tmp_path, density, unit):
    size, source = size_of(
        tmp_path / "a.tif", resolution=(density, density), resolutionunit=unit
    )
    assert size is None
    assert source.startswith("unknown (")
    assert "printing density" in source


@pytest.mark.parametrize(("value", "unit"), [(1, 3), (1e6, 3), (0.01, 2)])
def test_sizes_that_no_angiogram_has(tmp_path, value, unit):
    size, source = size_of(
        tmp_path / "a.tif", resolution=(value, value * 0.01), resolutionunit=unit
    )
    assert size is None
    assert source.startswith("unknown")


def test_no_unit_is_unknown(tmp_path):
    assert size_of(tmp_path / "a.tif", resolution=(4, 4), resolutionunit="NONE") == (
        None,
        "unknown",
    )
    assert size_of(tmp_path / "b.tif") == (None, "unknown")


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("cm", 10), ("um", 1e-3), ("\\u00B5m", 1e-3)]
)
def test_imagej_calibration(tmp_path, unit, mm):
    size, source = size_of(
        tmp_path / "a.tif",
        imagej=True,
        resolution=(mm / 0.25, mm / 0.31),
        metadata={"unit": unit},
    )
    assert size == pytest.approx((0.31, 0.25), rel=1e-5)
    assert source.startswith("ImageJ calibration")


@pytest.mark.parametrize("unit", ["pixel", "", "sec"])
def test_imagej_without_a_length(tmp_path, unit):
    size, source = size_of(
        tmp_path / "a.tif", imagej=True, resolution=(4, 4), metadata={"unit": unit}
    )
    assert (size, source) == (None, "unknown")


@pytest.mark.parametrize(("unit", "value"), [("mm", 0.25), ("µm", 250.0), (None, 250)])
def test_ome_metadata(tmp_path, unit, value):
    metadata = {"axes": "YX", "PhysicalSizeX": value, "PhysicalSizeY": value * 1.2}
    if unit:
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    size, source = size_of(tmp_path / "a.ome.tif", ome=True, metadata=metadata)
    assert size == pytest.approx((0.3, 0.25))
    assert source == "OME metadata"


@pytest.mark.parametrize(
    "text",
    [
        '{"program": "napari-cmunet", "pixel_size_mm": null}',
        '{"program": "napari-cmunet", "pixel_size_mm": ["a", 1]}',
        '{"program": "napari-cmunet", "pixel_size_mm": [NaN, 1]}',
        '{"program": "napari-cmunet", ' + "[" * 5000,
    ],
)
def test_damaged_records_give_no_size(tmp_path, text):
    size, _ = size_of(tmp_path / "a.tif", description=text, metadata=None)
    assert size is None
