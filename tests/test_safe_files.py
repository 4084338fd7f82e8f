from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from napari_cmunet.errors import WriteError
from napari_cmunet.util.safe_files import atomic_write

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fail_with(code: int):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_writes_bytes_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"second, longer"):
        with atomic_write(path) as handle:
            handle.write(content)
        assert path.read_bytes() == content
    assert names(tmp_path) == ["a.bin"]


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path, "w") as handle:
        handle.write("é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"


def test_nothing_is_seen_before_the_end(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as handle:
        handle.write(b"new")
        handle.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_any_exception_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as handle:
        handle.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    owner = os if function == "fsync" else Path
    monkeypatch.setattr(owner, function, fail_with(errno.ENOSPC))
    with (
        pytest.raises(WriteError, match=r"^a\.bin: the disk is full\. Free"),
        atomic_write(path) as handle,
    ):
        handle.write(b"half")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@posix
def test_a_write_that_the_system_refuses(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(WriteError, match="larger than"), atomic_write(path) as file:
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_what_is_flushed_is_whole_before_it_is_renamed(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    steps = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("folder" if is_folder else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def watched_replace(self, target):
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    with atomic_write(path) as handle:
        handle.write(b"12345")
    expected = [5, "rename"] + ([] if sys.platform == "win32" else ["folder"])
    assert steps == expected


def test_a_failed_check_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def verify(temporary: Path) -> None:
        assert temporary.read_bytes() == b"new"
        raise WriteError(path, "not what was meant.")

    with (
        pytest.raises(WriteError, match="not what was meant"),
        atomic_write(path, verify=verify) as handle,
    ):
        handle.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_missing_folder_and_folder_in_the_way(tmp_path):
    with (
        pytest.raises(WriteError, match="its folder does not exist"),
        atomic_write(tmp_path / "none" / "a.bin"),
    ):
        pass
    (tmp_path / "a.bin").mkdir()
    with (
        pytest.raises(WriteError, match="a folder of that name"),
        atomic_write(tmp_path / "a.bin"),
    ):
        pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError), atomic_write(tmp_path / "file" / "a.bin"):
        pass
    assert names(tmp_path) == ["a.bin", "file"]


@posix
@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere"
)
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(WriteError, match="not permitted"),
            atomic_write(tmp_path / "a"),
        ):
            pass
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_refused_folder_says_what_to_do(tmp_path, monkeypatch, code):
    monkeypatch.setattr(Path, "open", fail_with(code))
    with (
        pytest.raises(WriteError, match=r"[cC]hoose another folder"),
        atomic_write(tmp_path / "a"),
    ):
        pass


@posix
def test_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        path = tmp_path / "a.bin"
        with atomic_write(path):
            pass
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.chmod(0o660)
        with atomic_write(path):
            pass
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(mask)


@posix
def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "b.bin"
    target.write_bytes(b"old")
    link = tmp_path / "a.bin"
    link.symlink_to(target)
    with atomic_write(link) as handle:
        handle.write(b"new")
    assert target.read_bytes() == b"old"
    assert link.read_bytes() == b"new"
    assert not link.is_symlink()


@posix
def test_the_longest_name_that_the_disk_allows(tmp_path):
    path = tmp_path / ("a" * 251 + ".bin")
    with atomic_write(path) as handle:
        handle.write(b"new")
    assert path.read_bytes() == b"new"
    with (
        pytest.raises(WriteError, match="name is too long"),
        atomic_write(tmp_path / ("a" * 300)),
    ):
        pass


def test_other_modes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "a", "r+"):
        pass
