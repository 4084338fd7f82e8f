"""The demo's picture: it waits as long as something goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_cmunet.cli import demo


class Viewer:
    def __init__(self) -> None:
        self.is_open = True

    def screenshot(self, path: str, **_: bool) -> None:
        Path(path).write_bytes(b"picture")

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def waiting(monkeypatch, qtbot, tmp_path):
    """A picture that waits for a queue, on a clock of its own."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=lambda: clock.now))
    queue = SimpleNamespace(running=True, loading=False, progress=(0, 9))
    controller = SimpleNamespace(queue=queue, failed=False, message="")
    panel = SimpleNamespace(controller=controller)
    picture = demo._Picture(Viewer(), panel, tmp_path / "demo.png")
    picture._timer.stop()

    def look(seconds: float, **changes: object) -> None:
        clock.now += seconds
        for name, value in changes.items():
            setattr(queue, name, value)
        picture._look()

    return picture, controller, look


def test_progress_is_waited_for_as_long_as_it_takes(waiting):
    picture, _, look = waiting
    for done in range(9):
        look(0.9 * demo.PATIENCE_SECONDS, progress=(done, 9))
    for _ in range(demo.QUIET_LOOKS + 1):
        assert picture.viewer.is_open
        look(0.2, running=False)
    assert not picture.viewer.is_open
    assert picture.exit_code == 0
    assert picture.path.read_bytes() == b"picture"


def test_without_any_progress_it_ends(waiting, capsys):
    picture, _, look = waiting
    look(0)
    look(1.1 * demo.PATIENCE_SECONDS)
    assert (picture.viewer.is_open, picture.exit_code) == (False, 1)
    assert "does not go on" in capsys.readouterr().err


def test_a_failure_is_told_at_once(waiting, capsys):
    picture, controller, look = waiting
    controller.failed, controller.message = True, "The model cannot be loaded."
    look(0, running=False)
    assert (picture.viewer.is_open, picture.exit_code) == (False, 1)
    assert capsys.readouterr().err == "The model cannot be loaded.\n"
