"""Preprocessing: exact geometry, and a result that the detector's scale cannot move."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import center_of_mass, gaussian_filter

from napari_cmunet.model.card import (
    ModelCard,
    Preprocessing,
    card_from_json,
    card_to_json,
)
from napari_cmunet.model.preprocess import (
    exposed_field,
    geometry,
    prepare,
    prepare_mask,
    resample,
    restore,
)
from napari_cmunet.synthetic import PhantomConfig, make_frame

PREP = Preprocessing(grid=128)
SIZES = [
    (128, 128),
    (64, 64),
    (127, 129),
    (33, 517),
    (517, 33),
    (256, 256),
    (1024, 1024),
    (1000, 600),
    (475, 475),
    (91, 300),
]


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """The middle of a phantom, without blades: (160, 200), uint16, 12 bits."""
    return make_frame(PhantomConfig(size=300, seed=3, bits=12))[0][70:230, 50:250]


# Geometry


@pytest.mark.parametrize("shape", SIZES)
def test_grid_holds_the_frame_and_a_multiple_of_16(shape):
    geo = geometry(shape, PREP.grid)
    assert geo.shape == shape
    assert max(geo.inner) == PREP.grid
    for side, inner, padded in zip(shape, geo.inner, geo.padded, strict=True):
        assert padded % 16 == 0
        assert 0 <= padded - inner < 16
        # The aspect ratio is kept but for rounding, or for the 16 px that are needed.
        assert inner == 16 or abs(inner - side * PREP.grid / max(shape)) <= 0.5


@pytest.mark.parametrize("shape", SIZES)
def test_a_ramp_comes_back_where_it_was(shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for ramp in (rows, columns):
        geo = geometry(shape, PREP.grid)
        on_grid = prepare_mask(ramp, geo)
        back = restore(on_grid, geo)[0, 0].numpy()
        assert back.shape == shape
        # Beside the edge, a resampled ramp flattens out by construction.
        coarse = max(s / i for s, i in zip(shape, geo.inner, strict=True))
        margin = int(np.ceil(2 * max(1, coarse)))
        inside = (slice(margin, -margin), slice(margin, -margin))
        error = np.abs(back - ramp)[inside]
        assert error.max() < 0.05 * max(1, coarse)
        assert abs((back - ramp)[inside].mean()) < 0.005 * max(1, coarse)


@pytest.mark.parametrize("shape", SIZES)
def test_a_blob_does_not_move(shape):
    geo = geometry(shape, PREP.grid)
    pitch = np.array(shape) / np.array(geo.inner)  # own pixels in a grid pixel
    centre = np.array([shape[0] * 0.43, shape[1] * 0.61])
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    sigma = np.maximum(2 * pitch, 2)
    blob = np.exp(
        -0.5
        * (
            ((rows - centre[0]) / sigma[0]) ** 2
            + ((columns - centre[1]) / sigma[1]) ** 2
        )
    ).astype(np.float32)
    on_grid = prepare_mask(blob, geo)
    # Pixel centres: own coordinate y lies at (y + 1/2) / pitch - 1/2 on the grid.
    expected = (np.array(center_of_mass(blob)) + 0.5) / pitch - 0.5
    assert np.abs(center_of_mass(on_grid[0, 0].numpy()) - expected).max() < 0.05
    back = restore(on_grid, geo)[0, 0].numpy()
    moved = np.array(center_of_mass(back)) - np.array(center_of_mass(blob))
    assert np.abs(moved / pitch).max() < 0.05


@pytest.mark.parametrize("shape", SIZES)
def test_a_mask_survives_the_way_there_and_back(shape):
    noise = np.random.default_rng(0).standard_normal(shape)
    geo = geometry(shape, PREP.grid)
    pitch = max(s / i for s, i in zip(shape, geo.inner, strict=True))
    mask = gaussian_filter(noise, 4 * max(1, pitch)) > 0
    back = restore(prepare_mask(mask, geo), geo)[0, 0].numpy() > 0.5
    overlap = 2 * (back & mask).sum() / (back.sum() + mask.sum())
    assert overlap > 0.97


def test_restore_cuts_the_padding_away():
    geo = geometry((100, 60), 128)
    assert geo.padded == (128, 80)
    maps = torch.zeros(2, 3, *geo.padded)
    maps[..., geo.inner[0] :, :] = 9
    maps[..., :, geo.inner[1] :] = 9
    back = restore(maps, geo)
    assert back.shape == (2, 3, 100, 60)
    assert (back == 0).all()


def test_own_grid_is_passed_through_untouched():
    x = torch.rand(1, 1, 128, 128)
    assert resample(x, (128, 128)) is x


def test_shrinking_averages_instead_of_skipping():
    # A line one pixel wide on a frame eight times the grid keeps its weight.
    line = np.zeros((1024, 1024), np.float32)
    line[:, 511] = 1
    on_grid = prepare_mask(line, geometry(line.shape, 128))
    assert on_grid[0, 0, 64].sum() == pytest.approx(1 / 8, rel=1e-3)


def test_masks_of_any_memory_layout():
    mask = np.random.default_rng(0).random((64, 48)) > 0.5
    geo = geometry(mask.shape, 64)
    expected = prepare_mask(mask.copy(), geo)
    read_only = mask.copy()
    read_only.flags.writeable = False
    assert torch.equal(prepare_mask(read_only, geo), expected)
    assert torch.equal(prepare_mask(mask[::-1][::-1], geo), expected)
    assert torch.equal(prepare_mask(torch.from_numpy(mask), geo), expected)
    assert torch.equal(prepare_mask(mask[None], geo), expected)


# Standardisation


def test_zero_mean_and_unit_variance_inside(frame):
    x, geo = prepare(frame, PREP)
    inside = x[0, 0, : geo.inner[0], : geo.inner[1]]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-3)
    assert float(inside.std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert (x[0, 0, geo.inner[0] :] == 0).all()


def assert_same(a: np.ndarray, b: np.ndarray, within: float = 1e-3) -> None:
    torch.testing.assert_close(
        prepare(a, PREP)[0], prepare(b, PREP)[0], rtol=0, atol=within
    )


@pytest.mark.parametrize(
    ("gain", "offset"), [(1, 1000), (16, 0), (0.001, 0), (3.7, -500), (1e-20, 0)]
)
def test_gain_and_offset_do_not_matter(frame, gain, offset):
    assert_same(frame, frame * gain + offset)


@pytest.mark.parametrize(
    "dtype", ["u2", ">u2", "i2", "i4", "u4", "i8", "u8", "f4", "f8", ">f4", ">f8"]
)
def test_dtype_does_not_matter(frame, dtype):
    assert_same(frame, frame.astype(dtype), 1e-5)


def test_8_and_16_bits_of_one_picture_agree(frame):
    eight = np.round(frame / frame.max() * 255).astype(np.uint8)
    sixteen = eight.astype(np.uint16) * 257
    assert_same(eight, sixteen, 1e-5)
    # And 12 bits differ from 8 by no more than the rounding to 8 bits does.
    assert_same(frame, eight, 0.05)


@pytest.mark.parametrize("pedestal", [2**31 - 4096, -(2**31)])
def test_32_bit_integers_keep_small_differences(frame, pedestal):
    assert_same(frame, (frame.astype(np.int64) + pedestal).astype(np.int32), 1e-5)


def test_full_32_bit_range_does_not_wrap_round(frame):
    wide = frame.astype(np.float64) / frame.max() * (2**32 - 1) - 2**31
    assert_same(frame, wide.astype(np.int32))


def test_float64_keeps_small_differences_on_a_large_offset(frame):
    assert_same(frame, frame.astype(np.float64) + 1e9)


def shut_in(frame: np.ndarray, black: np.ndarray | float) -> np.ndarray:
    """The frame with a collimator's blades shut around it, (220, 280)."""
    framed = np.broadcast_to(np.asarray(black, np.float32), (220, 280)).copy()
    framed[30:190, 40:240] = frame
    return framed


def test_black_borders_do_not_enter_the_statistics(frame):
    x, _ = prepare(shut_in(frame, 0), Preprocessing(grid=280))
    inside = x[0, 0, 30:190, 40:240]
    assert float(inside.mean()) == pytest.approx(0, abs=0.02)
    assert float(inside.std()) == pytest.approx(1, abs=0.02)
    outside = x[0, 0].clone()
    outside[25:195, 35:245] = 0
    assert (outside == 0).all()
    # Nearly the picture that it would be without blades; the blur beside them differs.
    alone, _ = prepare(frame, Preprocessing(grid=200, radius=60 / 475 * 1.4))
    both = np.corrcoef(inside.flatten(), alone[0, 0, :160, :200].flatten())
    assert both[0, 1] > 0.99


def test_how_black_the_borders_are_does_not_matter(frame):
    noise = np.random.default_rng(0).random((220, 280)) * 0.02 * np.ptp(frame)
    a, _ = prepare(shut_in(frame, 0), Preprocessing(grid=280))
    b, _ = prepare(shut_in(frame, noise), Preprocessing(grid=280))
    core = (..., slice(40, 180), slice(50, 230))
    assert (a - b)[core].abs().max() < 0.02


def test_exposed_field_follows_straight_blades_not_dark_vessels():
    x = torch.full((1, 1, 100, 120), 0.6)
    x[..., :10, :] = 0
    x[..., :, -15:] = 0
    x[..., 10:, 50:54] = 0.01  # a dark vessel from blade to edge
    field = exposed_field(x, 0.04)[0, 0]
    assert (field[:10] == 0).all()
    assert (field[:, -15:] == 0).all()
    assert field[20:90, 40:60].all()


def test_a_dark_frame_is_exposed_everywhere():
    x = torch.zeros(1, 1, 64, 64)
    x[..., 30:34, 30:34] = 1
    assert exposed_field(x, 0.04).all()


@pytest.mark.parametrize("shape", [(512, 512), (300, 413), (64, 64)])
@pytest.mark.parametrize(
    "value", [np.uint8(200), np.uint16(65535), np.float32(0.1), np.float64(1e9 + 0.3)]
)
def test_a_constant_frame_is_zero(shape, value):
    x, _ = prepare(np.full(shape, value), PREP)
    assert (x == 0).all()


def test_frames_of_a_batch_do_not_touch_each_other(frame):
    other = np.random.default_rng(0).random(frame.shape) * 1e6
    both, geo = prepare(np.stack([frame.astype(float), other]), PREP)
    assert both.shape == (2, 1, *geo.padded)
    torch.testing.assert_close(both[:1], prepare(frame.astype(float), PREP)[0])
    torch.testing.assert_close(both[1:], prepare(other, PREP)[0])


def test_the_frame_itself_is_not_changed(frame):
    for array in (frame, frame.astype(np.float32), frame.astype(np.uint8)):
        before = array.copy()
        prepare(array, PREP)
        assert np.array_equal(array, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_read_only_and_reversed_arrays(frame, dtype):
    array = frame.astype(dtype)
    expected = prepare(array.copy(), PREP)[0]
    array.flags.writeable = False
    assert torch.equal(prepare(array, PREP)[0], expected)
    reverse = np.ascontiguousarray(array[::-1])[::-1]
    assert torch.equal(prepare(reverse, PREP)[0], expected)


def test_a_tensor_is_prepared_as_an_array_is(frame):
    as_tensor = torch.from_numpy(frame.astype(np.float32))
    torch.testing.assert_close(prepare(as_tensor, PREP)[0], prepare(frame, PREP)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_a_value_that_is_no_number_spoils_nothing_else(frame, bad):
    spoilt = frame.astype(np.float32)
    spoilt[40:42, 50:52] = bad
    x, _ = prepare(spoilt, PREP)
    clean, _ = prepare(frame, PREP)
    assert torch.isfinite(x).all()
    far = torch.ones_like(x, dtype=torch.bool)
    far[..., 15:45, 20:50] = False
    assert (x - clean)[far].abs().max() < 0.1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    array=hnp.arrays(
        dtype=st.one_of(
            hnp.integer_dtypes(endianness="?"),
            hnp.unsigned_integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?"),
            hnp.boolean_dtypes(),
        ),
        shape=hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70),
    )
)
def test_never_a_nan_whatever_comes_in(array):
    x, geo = prepare(array, Preprocessing(grid=48))
    assert x.dtype == torch.float32
    assert x.shape[-2:] == geo.padded
    assert torch.isfinite(x).all()
    back = restore(x, geo)
    assert back.shape[-2:] == array.shape
    assert torch.isfinite(back).all()


@pytest.mark.slow
def test_memory_for_a_large_frame_is_a_few_bytes_a_pixel():
    """In a process of its own, so that nothing else counts in its peak."""
    code = """
import resource, numpy as np, torch
from napari_cmunet.model.card import Preprocessing
from napari_cmunet.model.preprocess import prepare, restore
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
prepare(np.zeros((64, 64), np.uint16), Preprocessing())
frame = np.zeros((5000, 5000), np.uint16)
frame[::3] = 7
before = peak()
x, geo = prepare(frame, Preprocessing())
restore(x, geo)
print((peak() - before) / frame.size)
"""
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 8.5  # bytes a pixel: one float32 frame, hardly more


# The card


def test_card_round_trip():
    made = Preprocessing(grid=320, radius=0.2, amount=2, border=0)
    card = ModelCard("one", "artery", 8, made)
    assert card_from_json(card_to_json(card)) == card
    empty = card_to_json(card) | {"preprocessing": {}}
    assert card_from_json(empty).preprocessing == Preprocessing()


@pytest.mark.parametrize(
    "values",
    [
        {"grid": 8},
        {"grid": 5000},
        {"grid": float("inf")},
        {"grid": "384"},
        {"grid": 384.5},
        {"grid": True},
        {"grid": None},
        {"radius": 0},
        {"radius": float("nan")},
        {"amount": -1},
        {"amount": [3]},
        {"border": 1},
        {"blur": 3},
        {"__class__": 1},
    ],
)
def test_card_with_bad_values_is_refused(values):
    card = card_to_json(ModelCard("one", "artery", 8, Preprocessing()))
    with pytest.raises(ValueError, match="preprocessing"):
        card_from_json(card | {"preprocessing": values})
