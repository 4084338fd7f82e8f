from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys

import pytest

from napari_cmunet.errors import LockLostError, ProjectReadOnlyError, WriteError
from napari_cmunet.project import lock as lock_module
from napari_cmunet.project.lock import Holder, Lock, ProjectLockedError, read_holder
from napari_cmunet.project.project import Project
from tests.project.project_making import events, mask_of, reopened

posix = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and fork")


def test_a_second_opening_is_told_who_and_since_when(project):
    with pytest.raises(ProjectLockedError) as caught:
        Project.open(project.folder)
    assert caught.value.holder.pid == os.getpid()
    assert caught.value.holder.host == socket.gethostname()
    assert "this computer" in str(caught.value)
    assert caught.value.holder.since in str(caught.value)


def test_reading_is_possible_meanwhile_and_changes_nothing(project):
    project.labels.accept(project.images.ids()[0], 0, mask_of(1))
    before = {p: p.read_bytes() for p in project.folder.rglob("*") if p.is_file()}
    with Project.open(project.folder, read_only=True) as reader:
        assert reader.read_only
        assert reader.progress().labelled == 1
        for act in (
            lambda: reader.labels.accept(reader.images.ids()[1], 0, mask_of(1)),
            lambda: reader.skip(reader.images.ids()[1]),
            lambda: reader.images.add([project.folder.parent / "pictures"]),
            lambda: reader.models.promote("x"),
            lambda: reader.change_settings(title="x"),
            lambda: reader.drafts.save(reader.images.ids()[1], 0, mask_of(1)),
        ):
            with pytest.raises(ProjectReadOnlyError):
                act()
    after = {p: p.read_bytes() for p in project.folder.rglob("*") if p.is_file()}
    assert after == before


def test_closing_lets_go_and_says_so(project):
    project.close()
    project.close()
    assert read_holder(project.folder / "lock").released
    Project.open(project.folder).close()


@posix
@pytest.mark.slow
def test_taking_over_stops_the_former_window(project):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    with Project.open(project.folder, break_lock=True) as other:
        with pytest.raises(LockLostError, match="taken over"):
            project.labels.accept(image, 0, mask_of(2))
        other.labels.accept(image, 0, mask_of(3))
        project.close()  # must not free what is the other's
        with pytest.raises(ProjectLockedError):
            Project.open(project.folder)
        assert (other.labels.get(image, 0).mask == mask_of(3)).all()


def _hold(folder, ready):
    lock = Lock(folder / "lock")
    ready.send(lock.holder.pid)
    signal.pause()


@posix
def test_a_killed_holder_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_hold, args=(tmp_path, sending))
    process.start()
    pid = receiving.recv()
    with pytest.raises(ProjectLockedError) as caught:
        Lock(tmp_path / "lock")
    assert caught.value.holder.pid == pid
    process.kill()
    process.join()
    assert not read_holder(tmp_path / "lock").released
    Lock(tmp_path / "lock").release()


def _say(folder, **values):
    holder = {**Holder().__dict__, "host": "elsewhere", "pid": 1, "since": "2026-01-01"}
    (folder / "lock").write_text(json.dumps(holder | values))


@pytest.mark.slow
def test_another_computer_is_believed_until_someone_decides(tmp_path):
    _say(tmp_path)
    with pytest.raises(ProjectLockedError, match="elsewhere"):
        Lock(tmp_path / "lock")
    Lock(tmp_path / "lock", take_over=True).release()
    Lock(tmp_path / "lock").release()
    _say(tmp_path, released=True)
    Lock(tmp_path / "lock").release()


@posix
def test_a_disk_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_try_lock", lambda descriptor: None)
    first = Lock(tmp_path / "lock")
    with pytest.raises(ProjectLockedError):
        Lock(tmp_path / "lock")
    first.release()
    Lock(tmp_path / "lock").release()
    dead = multiprocessing.get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    _say(tmp_path, host=socket.gethostname(), pid=dead.pid)
    Lock(tmp_path / "lock").release()


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 600, b"{", b"[]", b'{"pid": "x"}', b'{"host": 1}', b"\xff" * 9000],
)
def test_a_damaged_lock_file_locks_nobody_out(tmp_path, data):
    (tmp_path / "lock").write_bytes(data)
    lock = Lock(tmp_path / "lock")
    lock.check()
    lock.release()


def test_signs_of_life(tmp_path, monkeypatch):
    lock = Lock(tmp_path / "lock")
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", -1.0)
    lock._write(lock.holder, beat="2001-01-01")
    lock.check()
    assert read_holder(tmp_path / "lock").beat > "2020"
    assert read_holder(tmp_path / "lock").token == lock.holder.token
    lock.release()


def test_the_project_is_gone(project):
    moved = project.folder.with_name("moved")
    project.folder.rename(moved)
    with pytest.raises(WriteError, match="is missing"):
        project.labels.accept(project.images.ids()[0], 0, mask_of(1))
    moved.rename(project.folder)  # the network is back
    project.labels.accept(project.images.ids()[0], 0, mask_of(1))
    assert events(project)[-2:] == ["accepted", "patient_assigned"]


def test_no_lock_file_outside_through_a_link(tmp_path, project):
    project.close()
    (project.folder / "lock").unlink()
    (project.folder / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="link"):
        Project.open(project.folder)
    assert not (tmp_path / "victim").exists()


def test_a_folder_that_cannot_be_written(project, monkeypatch):
    def refuse(self):
        raise WriteError(self.path, "the disk is read-only.")

    project.close()
    monkeypatch.setattr(Lock, "_open", refuse)
    with pytest.raises(WriteError, match="read-only"):
        Project.open(project.folder)
    assert reopened(project, read_only=True).progress().images == 6
