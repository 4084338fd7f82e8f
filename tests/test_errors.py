from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from napari_cmunet.errors import CMUNetError, ReadError, WriteError, display_name


@pytest.mark.parametrize("kind", [ReadError, WriteError])
def test_message_shows_the_name_and_no_folder(kind):
    error = kind(Path("/home/Smith John/heart.tif"), "not a TIFF file.")
    assert isinstance(error, CMUNetError)
    assert str(error) == "heart.tif: not a TIFF file."
    assert "Smith" not in repr(error)
    assert error.path == Path("/home/Smith John/heart.tif")


def test_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ReadError("a/b.png", "the file is empty.")))
    assert isinstance(error, ReadError)
    assert (error.path, error.reason) == (Path("a/b.png"), "the file is empty.")
    assert str(error) == "b.png: the file is empty."


def test_odd_names_stay_on_one_printable_line():
    name = display_name("x/a\nb\x1b[31m\udcff.png")
    assert name.isprintable()
    name.encode("utf-8")
