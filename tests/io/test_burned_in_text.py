from __future__ import annotations

import functools

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from napari_cmunet.io.images import has_text
from napari_cmunet.synthetic import PhantomConfig, make_frame


@functools.cache
def phantom(seed: int) -> np.ndarray:
    return make_frame(PhantomConfig(size=384, seed=seed))[0]


def written(frame: np.ndarray, text: str, place, tone: int = 255) -> np.ndarray:
    picture = Image.fromarray(frame)
    font = ImageFont.load_default(size=frame.shape[0] // 28)
    ImageDraw.Draw(picture).text(place, text, fill=tone, font=font)
    return np.asarray(picture)


@pytest.mark.parametrize("seed", range(6))
def test_a_name_in_a_corner_is_seen_and_vessels_are_no_text(seed):
    frame = phantom(seed)
    assert not has_text(frame)
    assert has_text(written(frame, "DOE JOHN 1950-01-01", (6, 6)))
    assert has_text(written(frame, "ID 4711-0815", (200, 350)))


def test_deep_frames_and_the_middle_of_the_frame():
    frame = phantom(1)
    deep = written(frame, "DOE JOHN 1950-01-01", (6, 6)).astype(np.uint16) * 16
    assert has_text(deep)
    assert not has_text(written(frame, "DOE JOHN", (150, 190)))
    assert not has_text(np.zeros((64, 64), np.uint8))


def test_text_stands_still_over_a_cine():
    frame = phantom(1)
    one = written(frame, "DOE JOHN 1950-01-01", (6, 6))
    assert has_text(one, written(frame, "DOE JOHN 1950-01-01", (6, 6)))
    assert not has_text(one, frame)
