"""The window's speed is measured as it says."""

from __future__ import annotations

import os

import pytest

from benchmarks import window_speed
from napari_cmunet.cli.bench import alone

pytestmark = pytest.mark.slow


def test_a_window_is_read_in_and_its_beats_are_sorted():
    if not os.environ.get("DISPLAY"):
        pytest.skip("no display")
    found = alone(window_speed.reading_times, 128, 1, 2.0)
    assert 0 < found["accept_s"] < 60
    for name in ("alone", "reading", "training"):
        gaps = found[name]
        assert gaps["beats"] > 5
        assert 0 < gaps["median_ms"] <= gaps["p99_ms"] <= gaps["longest_ms"]
        assert 0 <= gaps["share_over_50_ms"] <= 1


def test_beats_are_counted_over_fifty_milliseconds():
    found = window_speed.figures_of([10, 10, 60, 100])
    assert found["share_over_50_ms"] == 0.5
    assert found["longest_ms"] == 100
