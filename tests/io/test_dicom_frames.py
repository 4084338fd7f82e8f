"""Frames: more than declared, fewer, of no declared number, and rotational runs."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate

from napari_cmunet.io.images import read_angiogram
from napari_cmunet.reader import read_layers
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.io.dicom_making import (
    LOSSY,
    SYNTAXES,
    encode,
    make_dataset,
    with_extended_offsets,
)

CINE = make_cine(PhantomConfig(frames=4, size=64, seed=3, bits=12)).frames
LOSSLESS = [s for s in SYNTAXES if s not in LOSSY]


def read(tmp_path, made):
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return read_angiogram(path)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("declared", [None, 1, 3])
def test_more_frames_than_declared_are_all_read(tmp_path, syntax, declared):
    image = read(tmp_path, make_dataset(CINE, syntax, bits=12, NumberOfFrames=declared))
    assert np.array_equal(np.asarray(image.frames), CINE)
    assert image.is_cine
    (note,) = image.notes
    assert "4" in note


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_fewer_frames_than_declared_are_read(tmp_path, syntax):
    image = read(tmp_path, make_dataset(CINE, syntax, bits=12, NumberOfFrames=9))
    assert np.array_equal(np.asarray(image.frames), CINE)
    assert image.notes == ("it declares 9 frame(s) and holds 4: it may be cut short",)


@pytest.mark.parametrize("declared", [None, 1, 3, 4, 9])
@pytest.mark.parametrize("table", ["none", "basic", "extended", "wrong"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_fragments_are_grouped_to_frames(tmp_path, declared, table, pieces):
    made = make_dataset(CINE, "JPEG lossless SV1", bits=12, NumberOfFrames=declared)
    streams = [encode(f, made.file_meta.TransferSyntaxUID, made) for f in CINE]
    if table == "extended":
        with_extended_offsets(made, streams)
    else:
        data = encapsulate(streams, fragments_per_frame=pieces, has_bot=table != "none")
        if table == "wrong":
            data = data[:8] + bytes([1] * 16) + data[24:]
        made.PixelData = data
    image = read(tmp_path, made)
    assert np.array_equal(np.asarray(image.frames), CINE)
    assert bool(image.notes) == (declared != 4)


def test_a_single_frame_without_a_number_is_no_cine(tmp_path):
    for syntax in LOSSLESS:
        image = read(tmp_path, make_dataset(CINE[0], syntax, bits=12))
        assert not image.is_cine
        assert not image.notes


def test_a_rotational_run_plays(tmp_path):
    made = make_dataset(CINE, bits=12, FrameTime=None, CineRate=30)
    made.FrameIncrementPointer = 0x00181520
    made.PositionerPrimaryAngleIncrement = [0.0, 1.5, 3.0, 4.5]
    made.PositionerMotion = "DYNAMIC"
    image = read(tmp_path, made)
    assert image.is_cine
    assert image.frames_per_second == 30
    assert np.array_equal(np.asarray(image.frames), CINE)
    (data, options, kind), *_ = read_layers(str(tmp_path / "a.dcm"))
    assert kind == "image"
    assert data.shape == CINE.shape
    assert options["axis_labels"] == ("t", "y", "x")
    del made.CineRate
    assert read(tmp_path, made).is_cine
