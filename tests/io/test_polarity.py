"""Bright arteries are noticed; inverting an image twice changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.polarity import invert, invert_window, polarity
from napari_cmunet.synthetic import PhantomConfig, make_frame
from tests.io.conftest import CINE
from tests.io.dicom_making import write_dicom


@pytest.fixture(scope="module")
def frames():
    return [make_frame(PhantomConfig(size=256, seed=seed))[0] for seed in range(6)]


def test_the_score_changes_its_sign_with_the_image(frames):
    for frame in frames:
        score = polarity(frame)
        assert score > 0
        assert polarity(255 - frame) == pytest.approx(-score, abs=1e-3)
        assert polarity(frame * 3.5 - 100) == pytest.approx(score, abs=1e-3)


def test_frames_without_structure_have_no_polarity(frames):
    slope = np.add.outer(np.arange(200.0), np.arange(200.0))
    for frame in (np.zeros((200, 200)), slope, frames[0][:100, :100]):
        assert polarity(frame) == pytest.approx(0, abs=0.01)


def test_an_inverted_export_is_noticed(frames, tmp_path):
    frame = max(frames, key=polarity)
    path = tmp_path / "a.npy"
    np.save(path, frame)
    assert not read_angiogram(path).has_bright_vessels()
    np.save(path, 255 - frame)
    image = read_angiogram(path)
    assert image.has_bright_vessels()
    turned = image.inverted()
    assert np.array_equal(turned.frames[0], frame)
    assert turned.is_inverted
    assert not turned.has_bright_vessels()
    assert turned.sha256 == image.sha256


def test_a_cine_is_inverted_frame_by_frame(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", CINE, bits=12, WindowCenter="2000", WindowWidth="1001"
    )
    image = read_angiogram(path)
    turned = image.inverted()
    assert np.array_equal(np.asarray(turned.frames), 65535 - CINE)
    assert turned.window == (65535 - 2499.5, 65535 - 1499.5)
    back = turned.inverted()
    assert np.array_equal(np.asarray(back.frames), CINE)
    assert (back.window, back.is_inverted) == (image.window, False)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_inverting_keeps_the_type(dtype):
    values = np.array([[0, 1, 100], [7, 3, 2]], dtype)
    turned = invert(values)
    assert turned.dtype == values.dtype
    assert np.array_equal(invert(turned), values)
    assert (
        np.diff(turned.ravel().astype(float)) == -np.diff(values.ravel().astype(float))
    ).all()
    low, high = invert_window((1, 100), values.dtype)
    assert (high, low) == (turned[0, 1], turned[0, 2])
