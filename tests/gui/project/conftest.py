"""Projects of a few small frames, read by a session without a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication

from napari_cmunet.gui.project.session import ProjectSession
from napari_cmunet.gui.project.workspace import NewProject
from tests.gui.conftest import cine, frame

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own data: a computer that knows nothing yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(folder))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five frames of one size."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        np.save(folder / f"p{number}.npy", frame(number))
    return folder


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A frame, a cine and a larger frame."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    np.save(folder / "a.npy", frame(0))
    np.save(folder / "b.npy", cine(4))
    np.save(folder / "c.npy", frame(2, size=48))
    return folder


@pytest.fixture
def make_session(make_controller):
    made: list[ProjectSession] = []

    def make(controller=None) -> ProjectSession:
        session = ProjectSession.of(controller or make_controller())
        made.append(session)
        return session

    yield make
    for session in made:
        session.close_window()
        while session.job is not None:
            QCoreApplication.processEvents()


@pytest.fixture
def session(make_session, controller) -> ProjectSession:
    return make_session(controller)


@pytest.fixture
def ready(qtbot):
    """Wait until a reader has nothing left to do."""

    def wait(session: ProjectSession, timeout: int = 120_000) -> None:
        def is_ready() -> bool:
            return (
                session.job is None
                and session.navigator.opening is None
                and session.workspace.writer.idle
                and not session.controller.queue.running
                and not session.controller.images.new
            )

        for _ in range(3):  # one thing leads to another
            qtbot.waitUntil(is_ready, timeout=timeout)
            qtbot.wait(1)
        qtbot.waitUntil(is_ready, timeout=timeout)

    return wait


@pytest.fixture
def project(session, ready, pictures, tmp_path):
    """A session with a project of five frames, the first one open."""
    session.create(NewProject(tmp_path / "project", (pictures,)))
    ready(session)
    assert session.project is not None, session.messages.alert
    return session


def stroke(
    session: ProjectSession, row: int = 4, column: int = 4, value: int = 1
) -> None:
    """Paint a small square in the open image, as the brush would."""
    mask = session.navigator.current.image_state.mask
    place = (row, column)
    if mask.ndim == 3:
        place = (session.navigator.frame, row, column)
    mask.brush_size = 3
    with mask.block_history():
        mask.paint(place, value)


def name(session: ProjectSession) -> str:
    """Name of the open image."""
    return session.overview.name(session.navigator.current.id)
