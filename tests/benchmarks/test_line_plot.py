"""Plots without a plotting library."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from benchmarks.line_plot import COLOURS, Panel, draw_panels, ticks


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, 3, [3]),
        (-1e-4, 4e-4, [-1e-4, 0, 1e-4, 2e-4, 3e-4, 4e-4]),
    ],
)
def test_ticks_are_round_numbers(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


def test_lines_are_drawn_in_their_colours():
    lines = {"one": [(0, 0), (1, 1)], "two": [(0, 1), (1, float("nan")), (2, 0)]}
    picture = np.asarray(draw_panels([Panel("title", "x", lines)] * 2))
    assert picture.shape == (600, 640, 3)
    for colour in COLOURS[:2]:
        same = (picture == ImageColor.getrgb(colour)).all(-1)
        assert same[:300].sum() > 100
        assert same[300:].sum() > 100


def test_nothing_to_draw_is_drawn():
    assert draw_panels([Panel("empty", "x", {"one": []})]).size == (640, 300)
