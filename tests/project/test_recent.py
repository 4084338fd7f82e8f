from __future__ import annotations

import pytest

from napari_cmunet.project.patients import by_prefix
from napari_cmunet.project.project import Project
from napari_cmunet.project.settings import RECENT_KEPT, note_recent, recent_projects


def made(tmp_path, name: str):
    folder = tmp_path / name
    Project.create(folder).close()
    return folder


def test_the_last_one_comes_first_and_once(tmp_path):
    a, b = made(tmp_path, "a"), made(tmp_path, "b")
    for folder in (a, b, a):
        note_recent(folder)
    assert recent_projects() == [a, b]


def test_projects_that_are_gone_are_left_out(tmp_path):
    a = made(tmp_path, "a")
    note_recent(a)
    note_recent(tmp_path / "nothing")
    assert recent_projects() == [a]


def test_only_some_are_kept(tmp_path):
    for number in range(RECENT_KEPT + 2):
        note_recent(made(tmp_path, str(number)))
    assert len(recent_projects()) == RECENT_KEPT


def test_a_damaged_list_is_no_list(tmp_path, home):
    note_recent(made(tmp_path, "a"))
    for nonsense in (
        b"\xff",
        b"[]",
        b'{"folders": 3}',
        b'{"folders": [3, "x", "\\u0000"]}',
    ):
        (home / "recent-projects.json").write_bytes(nonsense)
        assert recent_projects() == []


def test_a_list_that_cannot_be_written(tmp_path, home):
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file in the folder's place")
    note_recent(made(tmp_path, "a"))
    assert recent_projects() == []


@pytest.mark.parametrize(
    ("parts", "patient"), [(1, "nj"), (2, "nj_100"), (3, "nj_100_1"), (4, None)]
)
def test_prefixes_of_several_parts(parts, patient):
    from pathlib import PurePosixPath

    assert by_prefix("_", parts)(PurePosixPath("x/nj_100_1_LCA.png")) == patient
