"""A disk that refuses one call: what was refused does not count; the rest does."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest

from napari_cmunet.errors import LockLostError, ProjectError, WriteError
from napari_cmunet.project import files as files_module
from napari_cmunet.project import lock as lock_module
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.labels.labels import ProjectLabels
from napari_cmunet.project.project import Project
from napari_cmunet.util import safe_files
from tests.project.project_making import events, mask_of, reopened


@pytest.fixture
def one_fault(monkeypatch):
    """Let the flushing of one folder fail, once."""

    def install(folder) -> list[str]:
        failed: list[str] = []
        real = safe_files.sync_folder

        def sync(path):
            if path == folder and not failed:
                failed.append(str(path))
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(path)

        for module in (safe_files, files_module):
            monkeypatch.setattr(module, "sync_folder", sync)
        return failed

    return install


def test_a_refused_acceptance_leaves_the_label_before(project, one_fault):
    """Its file was in its place, and the one before was gone for good."""
    image = project.images.ids()[0]
    first = project.labels.accept(image, 0, mask_of(1))
    failed = one_fault(project.folder / "labels" / image)
    with pytest.raises(WriteError, match="the disk reports a fault"):
        project.labels.accept(image, 0, mask_of(2))
    assert failed
    assert project.labels.hash(image, 0) == first.sha256
    np.testing.assert_array_equal(project.labels.get(image, 0).mask, mask_of(1))
    assert project.labels.older(image, 0) == []
    again = reopened(project)
    np.testing.assert_array_equal(again.labels.get(image, 0).mask, mask_of(1))
    assert "label_recovered" not in events(again)
    again.close()


def test_a_refused_first_acceptance_leaves_none(project, one_fault):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))  # its folder is there then
    project.labels.withdraw(image, 0)
    one_fault(project.folder / "labels" / image)
    with pytest.raises(WriteError):
        project.labels.accept(image, 0, mask_of(2))
    assert project.labels.get(image, 0) is None
    assert project.labels.keys() == set()
    assert [o.number for o in project.labels.older(image, 0)] == [1]


def test_a_label_that_could_not_be_taken_back_counts(project, one_fault):
    image = project.images.ids()[0]
    accepted = project.labels.accept(image, 0, mask_of(1))
    one_fault(project.folder / "labels" / image)
    with pytest.raises(WriteError):
        project.labels.withdraw(image, 0)
    assert project.labels.hash(image, 0) == accepted.sha256
    np.testing.assert_array_equal(project.labels.get(image, 0).mask, mask_of(1))
    assert project.labels.withdraw(image, 0)


def test_a_disk_that_goes_on_failing_does_not_part_memory_from_disk(
    project, monkeypatch
):
    """Strokes drawn over the label that counts are found again."""
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))

    def fail(*_):
        raise OSError(errno.EIO, "fault")

    with monkeypatch.context() as patch:
        patch.setattr(safe_files, "sync_folder", fail)
        patch.setattr(files_module, "_put_back", fail)
        with pytest.raises(WriteError):
            project.labels.accept(image, 0, mask_of(2))
    project.drafts.save(image, 0, mask_of(3))
    again = reopened(project)
    np.testing.assert_array_equal(again.drafts.load(image, 0).mask, mask_of(3))
    again.close()


def test_an_older_label_is_never_written_over(project, monkeypatch):
    """Two programs may choose the same number while one takes the project over."""
    image = project.images.ids()[0]
    for seed in (1, 2, 3):
        project.labels.accept(image, 0, mask_of(seed))
    real, taken = ProjectLabels._next_older, []

    def next_older(store, image, frame):
        path = real(store, image, frame)
        if not taken:
            taken.append(path)
            return path.with_name(path.name.replace("003", "001"))
        return path

    monkeypatch.setattr(ProjectLabels, "_next_older", next_older)
    project.labels.accept(image, 0, mask_of(4))
    kept = {o.sha256() for o in project.labels.older(image, 0)}
    assert len(kept) == 3


def test_a_line_of_the_journal_that_was_cut_short_harms_no_other(project, monkeypatch):
    """The disk took a part of it, and then did not even let it be taken away."""
    write = os.write

    def fail(*_):
        raise OSError(errno.EIO, "fault")

    def half(descriptor, data):
        write(descriptor, data[: len(data) // 2])
        fail()

    image = project.images.ids()[0]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        patch.setattr(os, "ftruncate", fail)
        project.flag(image)
    project.flag(image, False)
    lines = (project.folder / "journal.jsonl").read_bytes().splitlines()
    assert events(project)[-2:] == ["flagged", "unflagged"]
    assert len(list(project.journal())) == len(lines)


def test_who_is_ousted_may_end_what_it_writes(project, monkeypatch):
    """Opening removes temporary files, one that is being written among them."""
    waited = []
    monkeypatch.setattr(lock_module, "LAST_ACT_SECONDS", 0.2)
    sleep = time.sleep
    image = project.images.ids()[0]

    def wait(seconds):
        waited.append(seconds)
        with pytest.raises(LockLostError):  # nothing new begins meanwhile
            project.labels.accept(image, 0, mask_of(1))
        sleep(seconds)

    monkeypatch.setattr(lock_module.time, "sleep", wait)
    with Project.open(project.folder, break_lock=True) as other:
        assert waited == [0.2]
        assert not other.read_only


def test_a_project_that_was_taken_away_is_not_taken_for_one_without_labels(
    project, tmp_path
):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    away = project.folder.rename(tmp_path / "away")
    with pytest.raises(ProjectError, match="folder or its lock file is missing"):
        project.labels.get(image, 0)
    exported = export_masks(project, tmp_path / "masks")
    assert exported.labels == 0
    assert "folder or its lock file is missing" in exported.problems[0]
    away.rename(project.folder)
    assert project.labels.get(image, 0) is not None
    assert project.labels.get(image, 1) is None
