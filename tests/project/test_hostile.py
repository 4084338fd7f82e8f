"""Projects from others: they choose neither what is read here nor what is said."""

from __future__ import annotations

import json

import pytest

from napari_cmunet.errors import ProjectError, ProjectVersionError
from napari_cmunet.project.project import Project
from napari_cmunet.util.safe_files import is_device
from tests.project.project_making import reopened, save_model_folder


@pytest.mark.parametrize(
    "start",
    [
        "/tmp/model",
        "../model",
        "//host/share/model",
        "C:\\model",
        "--output",
        ".",
        "NUL",
    ],
)
def test_a_project_does_not_choose_a_folder_to_start_from(project, start):
    with pytest.raises(ProjectError, match="start model"):
        project.change_settings(start=start)
    path = project.folder / "settings.json"
    path.write_text(json.dumps({"version": 1, "start": start, "minutes": 3.0}))
    again = reopened(project)
    assert again.settings.start == "cmunet-ssl"
    assert again.settings.minutes == 3.0
    again.close()


def test_a_newer_note_on_a_training_is_no_obstacle(project):
    save_model_folder(project, "a")
    path = project.folder / "models" / "a" / "training.json"
    path.write_text('{"version": 99}')
    assert project.models.training("a") == {}
    assert project.models.learned_labels("a") == set()
    again = reopened(project)
    assert again.models.names() == ["a"]
    again.close()


def test_deeply_nested_settings_are_damage_and_no_crash(project):
    path = project.folder / "settings.json"
    path.write_text('{"version": 1, "title": ' + "[" * 900 + "]" * 900 + "}")
    again = reopened(project)
    again.change_settings(start="cmunet-ssl")
    again.close()


@pytest.mark.parametrize("name", ["project.json", "images.jsonl"])
def test_a_version_of_many_digits_is_not_quoted(project, name):
    project.close()
    path = project.folder / name
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    if name == "project.json":
        values = json.loads(path.read_text(encoding="utf-8")) | {"version": 10**4000}
        path.write_text(json.dumps(values), encoding="utf-8")
    else:
        values = json.loads(first) | {"version": 10**4000}
        path.write_text("\n".join([json.dumps(values), *rest]), encoding="utf-8")
    with pytest.raises(ProjectVersionError) as error:
        Project.open(project.folder)
    assert len(str(error.value)) < 400


def test_names_of_devices():
    for name in ("CON", "con.tif", "Aux.", "nul.tar.gz", "COM1", "lpt9.x", "COM\u00b9"):
        assert is_device(name), name
    for name in ("conin$", "CONOUT$", "CLOCK$", "prn .txt", "nul:stream"):
        assert is_device(name), name
    for name in (
        "console",
        "auxiliary.tif",
        "com",
        "com10",
        "a.con",
        "lpt",
        "tuned-001",
    ):
        assert not is_device(name), name
