from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cmunet.project import journal as journal_module
from napari_cmunet.project.journal import Journal
from tests.project.project_making import events, mask_of, reopened


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl", "reader-1")


def test_lines_are_json_that_any_program_reads(journal):
    assert journal.append("accepted", "0123456789ab", 7, seconds=3.5, dice=float("nan"))
    assert journal.append("skipped", "0123456789ab")
    first, second = map(json.loads, journal.path.read_text("ascii").splitlines())
    assert first["what"] == "accepted"
    assert (first["image"], first["frame"], first["n"]) == ("0123456789ab", 7, 1)
    assert (first["user"], first["seconds"], first["dice"]) == ("reader-1", 3.5, None)
    assert second["n"] == 2


def test_it_goes_on_counting(journal):
    for _ in range(3):
        journal.append("created")
    again = Journal(journal.path)
    assert [entry.number for entry in again.entries()] == [1, 2, 3]
    again.append("created")
    assert [entry.number for entry in Journal(journal.path).entries()] == [1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400))
def test_cut_anywhere(cut):
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder, "j"))
        for number in range(4):
            journal.append("accepted", "0123456789ab", number)
        data = journal.path.read_bytes()
        journal.path.write_bytes(data[: min(cut, len(data))])
        whole = data[:cut].count(b"\n")
        if data[:cut].endswith(b"}"):
            whole += 1  # only the line's end is missing
        torn = Journal(journal.path)
        assert len(list(torn.entries())) == whole
        torn.repair()
        assert not torn.repair()
        torn.append("created")
        lines = journal.path.read_bytes().splitlines()
        assert len(lines) == whole + 1
        assert all(json.loads(line) for line in lines)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8))
def test_any_bytes_can_be_gone_through(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j")
        path.write_bytes(b"\n".join(lines))
        journal = Journal(path)
        list(journal.entries())
        journal.repair()
        assert journal.append("created")
        assert list(Journal(path).entries())[-1].what == "created"


def test_a_line_without_end_is_passed_over(journal):
    journal.append("created")
    with journal.path.open("ab") as file:
        file.write(b"x" * 300_000 + b"\n")
    journal.append("skipped", "0123456789ab")
    assert [entry.what for entry in journal.entries()] == ["created", "skipped"]


@pytest.mark.parametrize(
    "change",
    [
        {"n": "1"},
        {"n": 0},
        {"n": 10**400},
        {"image": "../x"},
        {"frame": -1},
        {"frame": True},
        {"what": None},
        {"time": 5},
    ],
)
def test_lines_that_make_no_sense(journal, change):
    line = {"n": 1, "time": "t", "user": "", "what": "accepted"} | change
    journal.path.write_text(json.dumps(line) + "\n")
    assert list(journal.entries()) == []


def test_full_disk_leaves_the_journal_as_it_was(journal, monkeypatch):
    journal.append("created")
    before = journal.path.read_bytes()
    real = os.write

    def half(descriptor, data):
        real(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "write", half)
    assert not journal.append("skipped", "0123456789ab")
    assert not journal.append("flagged", "0123456789ab")
    assert journal.waiting == 2
    monkeypatch.undo()
    assert journal.path.read_bytes() == before
    assert journal.append("unskipped", "0123456789ab")
    assert journal.waiting == 0
    found = [entry.what for entry in Journal(journal.path).entries()]
    assert found == ["created", "skipped", "flagged", "unskipped"]


def test_the_clock_is_set_back(project, monkeypatch):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))

    class Past(journal_module.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(1999, 1, 1, tzinfo=zone)

    monkeypatch.setattr(journal_module, "datetime", Past)
    project.labels.withdraw(image, 0)
    with reopened(project) as again:
        assert again.labels.get(image, 0) is None
        numbers = [entry.number for entry in again.journal()]
        assert numbers == sorted(numbers)
        assert "label_recovered" not in events(again)


def test_user_is_one_plain_line(tmp_path):
    journal = Journal(tmp_path / "j", 'Dr "X"\n{"n": 9}\x1b[2J' + "y" * 200)
    journal.append("created")
    (entry,) = journal.entries()
    assert "\n" not in entry.user
    assert "\x1b" not in entry.user
    assert len(entry.user) == 64
