"""A short random walk in a real window; ``tests/endurance`` has the long ones."""

from __future__ import annotations

import pytest

from tests.endurance.random_walks import Walk, make_files


@pytest.mark.slow
def test_a_short_random_walk(window, tmp_path, monkeypatch):
    viewer, panel, _ = window
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    make_files(tmp_path)
    walk = Walk(viewer, panel, tmp_path, seed=1)
    monkeypatch.setattr(walk, "_redock", lambda: None)  # the fixture's panel stays
    assert walk.run(25) == []
