from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_cmunet.errors import ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.sniffing import SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")

FRAME = np.random.default_rng(1).integers(0, 256, (64, 80), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "NPY":
        np.save(buffer, FRAME)
    elif kind.startswith("TIFF"):
        stack = np.stack([FRAME, FRAME.T.reshape(64, 80), 255 - FRAME])
        options = {
            "TIFF plain": {},
            "TIFF zlib": {"compression": "zlib", "rowsperstrip": 16},
            "TIFF tiles": {"compression": "zlib", "tile": (32, 32)},
            "TIFF ImageJ": {"imagej": True, "metadata": {"axes": "TYX"}},
            "TIFF big": {"bigtiff": True, "metadata": None},
        }[kind]
        tifffile.imwrite(buffer, stack, photometric="minisblack", **options)
    else:
        Image.fromarray(FRAME).save(buffer, kind)
    return buffer.getvalue()


KINDS = {
    "NPY": ".npy",
    "PNG": ".png",
    "JPEG": ".jpg",
    "BMP": ".bmp",
    "WebP": ".webp",
    "TIFF plain": ".tif",
    "TIFF zlib": ".tif",
    "TIFF tiles": ".tif",
    "TIFF ImageJ": ".tif",
    "TIFF big": ".tif",
}


def one_line(error: pytest.ExceptionInfo[ReadError], path: Path) -> str:
    text = str(error.value)
    assert text.startswith(f"{path.name}: ")
    assert "\n" not in text
    assert str(path.parent) not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_and_text_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ReadError) as error:
        read_angiogram(path)
    assert "the file is empty" in one_line(error, path)
    path.write_text("Grüße,\nnot an image\n" * 50, encoding="utf-8")
    with pytest.raises(ReadError) as error:
        read_angiogram(path)
    text = one_line(error, path)
    assert "it starts with text" in text
    assert text.startswith(f"a{suffix}: not a")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b"%PDF-1.7 \xff\xfe", "PDF"),
        (b"PK\x03\x04\x00\x00", "ZIP"),
        (b"GIF89a\x01\x00", "GIF"),
        (b"\x80\x04\x95\x00", "never run"),
        (bytes(3000), "nothing but zeros"),
        (b"\x01\xfe\xff\x00\x9c" * 10, "no image format"),
        (b"BM is how this text begins", "text"),
        (bytes(128) + b"DICM" + bytes(20), "a DICOM object without a picture"),
        (b"\x30\x82\x01\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", "encrypted"),
    ],
)
def test_strangers_are_called_what_they_are(tmp_path, content, words):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=words) as error:
        read_angiogram(path)
    one_line(error, path)


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(encoded("PNG"))
    assert (read_angiogram(path).frames[0] == FRAME).all()
    path = tmp_path / "b"
    path.write_bytes(encoded("NPY"))
    assert (read_angiogram(path).frames[0] == FRAME).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path, kind):
    whole = encoded(kind)
    path = tmp_path / f"a{KINDS[kind]}"
    path.write_bytes(whole)
    expected = read_angiogram(path).frames
    step = max(1, len(whole) // 150)
    for length in [*range(1, len(whole), step), len(whole) - 40]:
        path.write_bytes(whole[:length])
        try:
            found = read_angiogram(path).frames
        except ReadError as error:
            assert str(error).startswith(f"{path.name}: ")
        else:  # only what follows the pixels was lost
            assert length > len(whole) - 600
            assert found.shape == expected.shape
            assert (found == expected).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_damaged_bytes_never_escape_as_another_error(tmp_path_factory, kind, data):
    content = bytearray(encoded(kind))
    places = st.integers(0, min(len(content), 400) - 1) | st.integers(
        max(0, len(content) - 400), len(content) - 1
    )
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged{KINDS[kind]}"
    path.write_bytes(content)
    try:
        frames = read_angiogram(path).frames
    except ReadError as error:
        assert "\n" not in str(error)
    else:
        assert frames.ndim == 3
        assert np.isfinite(frames).all()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ReadError, match=r"^none\.png: there is no such file"):
        read_angiogram(tmp_path / "none.png")
    folder = tmp_path / "x.png"
    folder.mkdir()
    with pytest.raises(ReadError, match=r"^x\.png: no image was found in this folder"):
        read_angiogram(folder)
    (folder / "a.png").write_bytes(encoded("PNG"))
    with pytest.raises(ReadError, match=r"^x\.png: this is a folder"):
        read_angiogram(folder)
    with pytest.raises(ReadError, match="no such file"):
        read_angiogram(folder / "a.png" / "b.png")


def test_impossible_names(tmp_path):
    with pytest.raises(ReadError, match="not a possible file name"):
        read_angiogram(tmp_path / "a\0b.png")
    with pytest.raises(ReadError, match=r"too long|no such file"):
        read_angiogram(tmp_path / ("a" * 400 + ".png"))


@posix
def test_links(tmp_path):
    dangling = tmp_path / "a.png"
    dangling.symlink_to(tmp_path / "none.png")
    with pytest.raises(ReadError, match="link to a file that is not there"):
        read_angiogram(dangling)
    circle = tmp_path / "b.png"
    circle.symlink_to(circle)
    with pytest.raises(ReadError, match="link leads back to itself"):
        read_angiogram(circle)


@posix
def test_pipes_and_devices_do_not_hang(tmp_path):
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    with pytest.raises(ReadError, match="a pipe, a device or a socket"):
        read_angiogram(pipe)
    with pytest.raises(ReadError, match="a pipe, a device or a socket"):
        read_angiogram("/dev/zero")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "reading it is not permitted"),
        (errno.EIO, "the disk or network failed"),
    ],
)
def test_what_the_system_refuses(tmp_path, monkeypatch, code, words):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))

    def refuse(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("napari_cmunet.io.sniffing.without_waiting", refuse)
    with pytest.raises(ReadError, match=words):
        read_angiogram(path)


def test_a_disk_that_fails_while_decoding(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    path.write_bytes(encoded("NPY"))

    def fail(*_args, **_kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("numpy.lib.format.read_array", fail)
    with pytest.raises(ReadError, match="the disk or network failed"):
        read_angiogram(path)


def test_memory_that_is_not_there(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    path.write_bytes(encoded("NPY"))

    def fail(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr("numpy.lib.format.read_array", fail)
    with pytest.raises(ReadError, match="not enough free memory"):
        read_angiogram(path)
