from __future__ import annotations

import hashlib
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.images import read_angiogram


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_pictures_are_read_as_they_are(tmp_path, frame, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(frame).save(path)
    image = read_angiogram(path)
    assert image.shape == frame.shape
    assert image.frames.shape == (1, *frame.shape)
    assert image.frames.dtype == np.uint8
    assert not image.is_cine
    assert (image.frames[0] == frame).all()
    assert image.pixel_size_mm is None
    assert image.pixel_size_source == "unknown"
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.notes == ()


def test_lossless_webp_has_equal_channels(tmp_path, frame):
    path = tmp_path / "a.webp"
    Image.fromarray(frame).save(path, lossless=True)
    assert (read_angiogram(path).frames[0] == frame).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_pictures_come_close(tmp_path, suffix):
    ramp = np.tile(np.arange(0, 192, 3, dtype=np.uint8), (40, 1))
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.stack([ramp] * 3, -1)).save(path, quality=90)
    image = read_angiogram(path)
    assert image.notes == ()
    assert np.abs(image.frames[0].astype(int) - ramp).max() < 12


def test_16_bit_png(tmp_path):
    deep = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 30
    path = tmp_path / "a.png"
    Image.fromarray(deep).save(path)
    image = read_angiogram(path)
    assert image.frames.dtype == np.uint16
    assert (image.frames[0] == deep).all()


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA", "CMYK"])
def test_grey_in_other_modes(tmp_path, frame, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    grey = Image.fromarray(np.where(frame > 125, 255, 0).astype(np.uint8))
    grey.convert(mode).save(path, **({"quality": 100} if mode == "CMYK" else {}))
    found = read_angiogram(path).frames[0]
    assert found.shape == frame.shape
    assert ((found > found.max() // 2) == (frame > 125)).all()


@pytest.mark.parametrize(
    "dtype",
    ["?", "u1", "i1", "<u2", ">u2", "<i2", "<u4", ">i4", "<i8", "<f2", ">f4", "<f8"],
)
def test_number_types_keep_their_values(saved, frame, dtype):
    array = (frame // 2).astype(dtype)
    image = read_angiogram(saved(array))
    assert image.frames.dtype.isnative
    assert image.frames.dtype.itemsize <= 4 or image.frames.dtype == np.float64
    assert image.frames.dtype != bool
    assert (image.frames[0] == array).all()


def test_large_64_bit_numbers_become_floats(saved, frame):
    image = read_angiogram(saved(frame.astype(np.int64) * 2**40))
    assert image.frames.dtype == np.float64
    assert image.frames.max() == float(frame.max()) * 2**40


@pytest.mark.parametrize(
    ("shape", "expected", "is_cine"),
    [
        ((40, 48), (40, 48), False),
        ((1, 40, 48), (40, 48), False),
        ((1, 1, 40, 48), (40, 48), False),
        ((40, 48, 1), (40, 48), False),
        ((40, 48, 3), (40, 48), False),
        ((40, 48, 4), (40, 48), False),
        ((3, 40, 48), (3, 40, 48), True),
        ((6, 40, 48, 3), (6, 40, 48), True),
        ((1, 6, 40, 48), (6, 40, 48), True),
    ],
)
def test_axes_of_arrays(saved, shape, expected, is_cine):
    image = read_angiogram(saved(np.ones(shape, np.uint8)))
    assert image.shape == expected
    assert image.is_cine is is_cine
    assert image.frames.ndim == 3


def test_fortran_order(saved, cine):
    image = read_angiogram(saved(np.asfortranarray(cine)))
    assert (image.frames == cine).all()


@pytest.mark.parametrize(
    "shape", [(2, 3, 40, 48), (2, 3, 4, 40, 48), (48,), (), (2, 2, 40, 48, 3)]
)
def test_other_shapes_are_named(saved, shape):
    words = " x ".join(map(str, shape)) or "a single number"
    with pytest.raises(ReadError, match=f"its shape is {words};"):
        read_angiogram(saved(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (31, 512), (512, 31)])
def test_too_small(saved, shape):
    with pytest.raises(ReadError, match=f"{shape[0]} x {shape[1]} pixels, too small"):
        read_angiogram(saved(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("shape", [(0, 40, 48), (0, 0)])
def test_no_pixels(saved, shape):
    with pytest.raises(ReadError, match="no pixels"):
        read_angiogram(saved(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((40, 48), complex), "complex numbers"),
        (np.zeros((40, 48), [("a", "u1")]), "a table"),
        (np.full((40, 48), "x"), "no numbers"),
    ],
)
def test_what_is_not_grey_values(saved, array, words):
    with pytest.raises(ReadError, match=words):
        read_angiogram(saved(array))


def test_a_pickle_in_an_array_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    path = tmp_path / "a.npy"
    array = np.empty((40, 48), object)
    array[0, 0] = Trap()
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ReadError, match="Python objects"):
        read_angiogram(path)


def test_nan_and_infinity_become_the_median(saved):
    frames = np.full((2, 40, 48), 7, np.float32)
    frames[0, 0, :3] = np.nan, np.inf, -np.inf
    frames[0, 1, 0] = 3e38
    frames[1] = np.nan
    image = read_angiogram(saved(frames))
    assert (image.frames == 7).all()
    assert image.notes[0].startswith("1924 values (NaN or infinite) replaced")


def test_no_finite_value_at_all(saved):
    with pytest.raises(ReadError, match="none of its values is a usable number"):
        read_angiogram(saved(np.full((40, 48), np.nan)))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_constant_image_is_read_with_a_note(saved, dtype):
    image = read_angiogram(saved(np.full((3, 40, 48), 9, dtype)))
    assert (image.frames == 9).all()
    assert any("the same value" in note for note in image.notes)


def test_opaque_alpha_is_dropped_without_a_word(tmp_path, frame):
    path = tmp_path / "a.png"
    alpha = np.full_like(frame, 255)
    Image.fromarray(np.stack([frame] * 3 + [alpha], -1)).save(path)
    image = read_angiogram(path)
    assert (image.frames[0] == frame).all()
    assert image.notes == ()


def test_varying_alpha_is_dropped_with_a_note(tmp_path, frame):
    path = tmp_path / "a.png"
    Image.fromarray(np.stack([frame, frame], -1)).save(path)
    image = read_angiogram(path)
    assert (image.frames[0] == frame).all()
    assert image.notes == ("its transparency was ignored",)


def test_true_colour_is_refused(tmp_path):
    path = tmp_path / "a.png"
    colours = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(colours).save(path)
    with pytest.raises(ReadError, match=r"colour picture \(\d+ % of its pixels"):
        read_angiogram(path)


def test_a_coloured_mark_is_converted_with_a_note(tmp_path, frame):
    path = tmp_path / "a.png"
    colours = np.stack([frame] * 3, -1)
    colours[:2, :5] = 255, 0, 0
    Image.fromarray(colours).save(path)
    image = read_angiogram(path)
    assert (image.frames[0, 2:] == frame[2:]).all()
    assert image.frames[0, 0, 0] == 76
    assert image.notes == ("coloured marks in it were converted to grey",)


def test_slight_tint_becomes_luminance(saved, frame):
    colours = np.stack([frame + 5, frame, frame], -1)
    image = read_angiogram(saved(colours))
    assert image.notes == ()
    assert (image.frames[0] == np.rint(frame + 5 * 0.299)).all()


def test_deep_colour_png_says_that_it_lost_bits(tmp_path, frame):
    imagecodecs = pytest.importorskip("imagecodecs")
    path = tmp_path / "a.png"
    deep = np.stack([frame.astype(np.uint16) * 257] * 3, -1)
    path.write_bytes(imagecodecs.png_encode(deep))
    image = read_angiogram(path)
    assert (image.frames[0] == frame).all()
    assert "16-bit colour" in image.notes[0]


def test_an_animation_is_no_cine(tmp_path, cine):
    path = tmp_path / "a.png"
    pages = [Image.fromarray(page) for page in cine]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(ReadError, match="animation of 5 pictures"):
        read_angiogram(path)


def test_limits_hold_before_decoding(saved, tmp_path, frame, cine):
    path = tmp_path / "a.png"
    Image.fromarray(frame).save(path)
    small = ReadLimits(max_frame_pixels=1000)
    with pytest.raises(ReadError, match="40 x 48 pixels, more than the limit"):
        read_angiogram(path, small)
    with pytest.raises(ReadError, match="5 frames, more than the limit of 4"):
        read_angiogram(saved(cine), ReadLimits(max_frames=4))
    with pytest.raises(ReadError, match="GB"):
        read_angiogram(saved(cine), ReadLimits(max_decoded_bytes=cine.nbytes - 1))


def test_absurd_declared_sizes_ask_for_no_memory(tmp_path):
    path = tmp_path / "a.npy"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }"
    for shape in (b"65535, 65535", b"999999, 512, 512", b"9" * 30 + b", 512, 512"):
        text = header % shape
        text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
        path.write_bytes(
            b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
        )
        with pytest.raises(ReadError, match="limit"):
            read_angiogram(path)


def test_a_png_that_declares_too_much(tmp_path, frame):
    path = tmp_path / "a.png"
    Image.fromarray(frame).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (65535).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(ReadError, match="65535 x 65535 pixels, more than the limit"):
        read_angiogram(path)


@pytest.mark.slow
def test_the_largest_frame_allowed_makes_no_warning(tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (10_000, 10_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_angiogram(path).shape == (10_000, 10_000)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["u1", "i2", "u2", "f4", "f8"]),
        st.tuples(st.integers(32, 40), st.integers(32, 40)),
        elements=None,
    )
)
@pytest.mark.slow
def test_any_array_is_read_finite_or_refused_in_a_sentence(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("any") / "a.npy"
    np.save(path, array)
    try:
        image = read_angiogram(path)
    except ReadError as error:
        assert "usable number" in str(error)
        assert not np.isfinite(array.astype(np.float32)).any()
    else:
        assert np.isfinite(image.frames).all()
        assert image.shape == array.shape
