from __future__ import annotations

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cmunet.errors import ProjectDamagedError, ProjectError, ProjectVersionError
from napari_cmunet.project.files import (
    check_relative,
    frame_file,
    frame_of,
    inside,
    read_bytes,
    read_json,
)
from napari_cmunet.util.safe_files import write_json
from napari_cmunet.util.text import parse_json


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../a.png",
        "a/../../b.png",
        "a/..",
        "./a",
        "a//b",
        "C:/a.png",
        "c:a.png",
        "a\\..\\b",
        "\\\\server\\share",
        "nul",
        "a/NUL.png",
        "COM1.tif",
        "con .png",
        "lpt³",
        "a\0b",
        "\ud800.png",
        "x" * 5000,
        None,
        7,
        ["a"],
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path):
    with pytest.raises(ValueError):
        check_relative(path)


@pytest.mark.parametrize(
    "path",
    ["a.png", "Müller/Ärzte 1/ä.tif", "a.b/c..d", "..a", "con1-.png", "心/1.npy"],
)
def test_honest_paths_pass(path):
    assert check_relative(path) == path


@given(st.text(alphabet=string.printable + "é\\/:.\0", max_size=30))
def test_no_text_leads_out(text):
    try:
        path = check_relative(text)
    except ValueError:
        return
    base = os.path.abspath("/somewhere/below")  # noqa: PTH100
    full = os.path.normpath(os.path.join(base, path))  # noqa: PTH118
    assert full.startswith(base + os.sep)


def test_frame_files():
    for frame in (0, 7, 9999, 10000, 123456):
        assert frame_of(frame_file(frame)) == frame
    for name in (
        "frame_00007.tif",
        "frame_7.tif",
        "frame_0007.tiff",
        "x",
        "frame_-001",
    ):
        assert frame_of(name) is None


def test_links_inside_a_project_are_not_followed(tmp_path):
    project, other = tmp_path / "project", tmp_path / "other"
    project.mkdir()
    other.mkdir()
    (project / "labels").symlink_to(other, target_is_directory=True)
    with pytest.raises(ProjectError, match="link"):
        inside(project, "labels", "0123456789ab", "frame_0000.tif")
    (project / "images.jsonl").symlink_to(other / "x")
    with pytest.raises(ProjectError, match="link"):
        inside(project, "images.jsonl")
    # The project itself may be reached through a link.
    (tmp_path / "short").symlink_to(project, target_is_directory=True)
    assert inside(tmp_path / "short", "drafts").parent == tmp_path / "short"


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ProjectDamagedError, match="plain file"):
            read_bytes(tmp_path / name)


def test_large_files_are_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 101)
    assert read_bytes(tmp_path / "a", 101) is not None
    with pytest.raises(ProjectDamagedError, match="too large"):
        read_bytes(tmp_path / "a", 100)


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", '{"a": NaN}', "[" * 100_000, '"x"', "\xff\xfe", '{"a":' * 50_000],
)
def test_damaged_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(ProjectDamagedError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_json_of_a_newer_program_is_left_alone(tmp_path):
    write_json(tmp_path / "a.json", {"version": 2})
    with pytest.raises(ProjectVersionError, match="newer"):
        read_json(tmp_path / "a.json")
    assert read_json(tmp_path / "none.json") is None


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_value_error(data):
    try:
        parse_json(data)
    except ValueError:
        pass
