"""The test files of pydicom: its own grey values, or refused for the true reason.

They come with pydicom; nothing is downloaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import data as pydicom_data
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.images import read_angiogram

pytestmark = pytest.mark.filterwarnings("ignore")
_ROOT = Path(pydicom_data.__file__).parent
_FILES = sorted(p for p in _ROOT.rglob("*") if p.is_file() and p.suffix in (".dcm", ""))
_LIMITS = ReadLimits(min_side=1)


@pytest.mark.parametrize("path", _FILES, ids=lambda p: str(p.relative_to(_ROOT)))
def test_every_file_is_read_or_refused_for_its_reason(path):
    reason, image = "", None
    try:
        image = read_angiogram(path, _LIMITS, hashed=False)
    except ReadError as error:
        reason = error.reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if image is None:
            assert _is_true(reason, dataset), reason
            return
        expected = _grey_values(dataset)
    found = np.asarray(image.frames)
    expected = expected.reshape(found.shape)
    tolerance = 1.0 if dataset.SamplesPerPixel == 3 else 1e-3
    assert np.abs(expected - found).max() <= tolerance


def _grey_values(dataset) -> np.ndarray:
    """Pixels after pydicom's own look-up tables, in grey."""
    pixels = dataset.pixel_array
    if dataset.SamplesPerPixel == 3:
        return pixels.astype(float) @ (0.299, 0.587, 0.114)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, dataset)[..., :3]
        return np.rint(colours.astype(float) @ (0.299, 0.587, 0.114))
    seen = apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence") or dataset.get("VOILUTFunction") == "SIGMOID":
        seen = apply_voi_lut(seen, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        signed, bits = dataset.PixelRepresentation, dataset.BitsStored
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])
        ends = apply_modality_lut(ends if signed else ends + 2 ** (bits - 1), dataset)
        seen = ends.sum() - seen
    return seen.astype(float)


def _is_true(reason: str, dataset) -> bool:
    """Whether a file has what it was refused for."""
    pixels = any(k in dataset for k in ("PixelData", "FloatPixelData"))
    if "not an image file" in reason or "not a DICOM file" in reason:
        return not pixels
    if "without a picture" in reason or "pixels are missing" in reason:
        return not pixels
    if "list of images" in reason:
        return "DirectoryRecordSequence" in dataset
    if "colour picture" in reason:
        spread = np.ptp(dataset.pixel_array.astype(int), axis=-1)
        return dataset.SamplesPerPixel == 3 and bool((spread > 0).any())
    if "bits for each pixel" in reason:
        return dataset.BitsAllocated not in (8, 16)
    if "compressed as a whole" in reason:
        return dataset.file_meta.TransferSyntaxUID.is_deflated
    if "how many rows" in reason:
        return "Rows" not in dataset or "Columns" not in dataset
    # Damaged or cut short: pydicom cannot make pixels of it either.
    with pytest.raises(Exception):  # noqa: B017 - of every kind
        _ = dataset.pixel_array
    return True
