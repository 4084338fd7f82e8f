from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_cmunet.project.project import Project
from tests.project.project_making import save_model_folder, save_pictures

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
    """Six frames of three patients, one folder each."""
    folder = tmp_path / "pictures"
    save_pictures(folder, 6)
    return folder


@pytest.fixture
def project(tmp_path: Path, pictures: Path):
    """A project of these frames, open."""
    made = Project.create(tmp_path / "project", user="reader-1")
    made.images.add([pictures], lambda path: path.parts[0])
    yield made
    made.close()


@pytest.fixture
def make_model():
    """Put a model folder into a project: a card and some bytes for weights."""
    return save_model_folder
