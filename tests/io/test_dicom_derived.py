"""DICOM Segmentation and Secondary Capture, read by the programs they are for."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.derived import why_not
from napari_cmunet.io.dicom.secondary_capture import write_secondary_capture
from napari_cmunet.io.dicom.segmentation import write_segmentation
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.provenance import Provenance
from tests.io.dicom_making import IDENTITY, write_dicom

MODEL = Provenance(model="cmunet-artery")


@pytest.fixture
def make(tmp_path):
    """An image of so many frames, odd in size, and random masks of it."""

    def build(frames, **elements):
        rng = np.random.default_rng(frames)
        pixels = rng.integers(0, 255, (frames, 33, 37), dtype=np.uint8)
        path = tmp_path / "a.dcm"
        write_dicom(path, pixels if frames > 1 else pixels[0], **elements)
        return path, rng.random(pixels.shape) < 0.3

    return build


def complaints(path):
    """Errors of dciodvfy; none where it is not installed (Debian: dicom3tools)."""
    if shutil.which("dciodvfy") is None:
        return []
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("frames", [1, 8, 96])
def test_highdicom_finds_the_mask_of_each_source_frame(tmp_path, make, frames):
    seg = pytest.importorskip("highdicom").seg
    source, masks = make(frames)
    masks[-1] &= frames == 1  # an empty mask says that there is no artery
    path = tmp_path / "a_seg.dcm"
    write_segmentation(path, source, masks if frames > 1 else masks[0], MODEL)
    found = seg.segread(path)
    uid = pydicom.dcmread(source).SOPInstanceUID
    assert [uids[2] for uids in found.get_source_image_uids()] == [uid]
    if frames == 1:
        pixels = found.get_pixels_by_source_instance([uid])
    else:
        numbers = list(range(frames, 0, -1))
        pixels = found.get_pixels_by_source_frame(uid, numbers)[::-1]
    assert np.array_equal(pixels[..., 0] != 0, masks)
    assert found.get_segment_description(1).segment_label == "Coronary artery"
    plain = pydicom.dcmread(path)
    assert np.array_equal(plain.pixel_array.reshape(masks.shape) != 0, masks)
    assert "FrameOfReferenceUID" not in plain
    assert "PixelSpacing" not in plain
    assert complaints(path) == []


def test_frames_of_their_own_and_the_reviewed_part(tmp_path, make):
    seg = pytest.importorskip("highdicom").seg
    source, masks = make(9)
    reviewed = np.ones((2, 33, 37), bool)
    reviewed[1, :, 20:] = False
    path, frames = tmp_path / "a_seg.dcm", (3, 7)
    provenance = Provenance(model="mine", corrected=True, frames=frames)
    write_segmentation(
        path, source, masks[[3, 7]], provenance, (0.25, 1 / 3), reviewed=reviewed
    )
    found = seg.segread(path)
    uid = pydicom.dcmread(source).SOPInstanceUID
    pixels = found.get_pixels_by_source_frame(uid, [4, 8])
    assert np.array_equal(pixels[..., 0] != 0, masks[[3, 7]])
    assert np.array_equal(pixels[..., 1] != 0, reviewed)
    assert [float(side) for side in found.PixelSpacing] == pytest.approx([0.25, 1 / 3])
    kinds = [str(s.SegmentAlgorithmType) for s in found.SegmentSequence]
    assert kinds == ["SEMIAUTOMATIC", "MANUAL"]
    assert complaints(path) == []


@pytest.mark.parametrize("frames", [1, 8])
def test_contours_are_burnt_in(tmp_path, make, frames):
    source, masks = make(frames, PixelSpacing=[0.2, 0.2])
    masks[:] = False
    masks[:, 15:25, 10:30] = True
    image, path = read_angiogram(source), tmp_path / "a_sc.dcm"
    mask = masks if frames > 1 else masks[0]
    write_secondary_capture(path, source, image, mask, MODEL, (0.2, 0.2))
    found = pydicom.dcmread(path)
    pixels = found.pixel_array.reshape(frames, 33, 37, 3)
    assert (pixels[:, 15, 10:30] == (255, 140, 0)).all()
    inside = pixels[:, 17:23, 12:28]
    assert (inside[..., 0] == inside[..., 2]).all()  # grey
    assert (pixels[:, 0:12] == (255, 140, 0)).all(-1).any()  # the notice
    assert [r.get("ReferencedFrameNumber") for r in found.SourceImageSequence] == (
        [None] if frames == 1 else list(range(1, frames + 1))
    )
    if frames > 1:
        assert float(found.FrameTime) == pytest.approx(66.67)
    assert complaints(path) == []


def test_nobody_is_named(tmp_path, make):
    source, masks = make(2)
    write_segmentation(tmp_path / "a_seg.dcm", source, masks, MODEL)
    image = read_angiogram(source)
    write_secondary_capture(tmp_path / "a_sc.dcm", source, image, masks, MODEL)
    for path in tmp_path.glob("a_s*.dcm"):
        content = path.read_bytes().lower()
        for value in IDENTITY.values():
            assert value.split("^")[0].lower().encode() not in content


def test_why_there_can_be_none(tmp_path, make):
    np.save(tmp_path / "a.npy", np.eye(8))
    assert why_not(tmp_path / "a.npy") == "its image is no DICOM file"
    source, masks = make(2)
    assert why_not(source, 1) == ""
    assert "declares 2 frame(s)" in why_not(source, 2)
    provenance = Provenance(frames=(1, 2))
    with pytest.raises(ReadError):
        write_segmentation(tmp_path / "a_seg.dcm", source, masks, provenance)
    assert not (tmp_path / "a_seg.dcm").exists()
    source, _ = make(1, StudyInstanceUID=None)
    assert "lacks unique identifiers" in why_not(source)
