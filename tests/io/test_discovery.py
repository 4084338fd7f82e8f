from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from napari_cmunet.io.discovery import InputFile, find_images, output_paths

posix = pytest.mark.skipif(sys.platform == "win32", reason="links")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def relatives(files: list[InputFile]) -> list[str]:
    return [file.relative.as_posix() for file in files]


def test_folders_are_walked_in_order(tmp_path):
    touch(tmp_path, "b.PNG", "a.tif", "c/z.npy", "c/d/y.webp", "B/x.jpeg")
    touch(tmp_path, ".hidden.png", ".git/a.png", "notes.txt", "c/mask.csv")
    files = find_images([tmp_path])
    assert relatives(files) == ["B/x.jpeg", "a.tif", "b.PNG", "c/d/y.webp", "c/z.npy"]
    assert all(file.path == tmp_path / file.relative for file in files)


def test_files_are_taken_whatever_they_are(tmp_path):
    touch(tmp_path, "a.txt", ".b.png")
    given = [tmp_path / "a.txt", tmp_path / ".b.png", str(tmp_path / "none.tif")]
    assert relatives(find_images(given)) == ["a.txt", ".b.png", "none.tif"]


def test_an_empty_folder_is_not_passed_over(tmp_path):
    touch(tmp_path, "empty/notes.txt", "a.png")
    files = find_images([tmp_path / "empty", tmp_path / "a.png"])
    assert relatives(files) == ["empty", "a.png"]


def test_duplicates_are_dropped(tmp_path):
    touch(tmp_path, "d/a.png", "d/b.png")
    files = find_images([tmp_path / "d" / "b.png", tmp_path / "d", tmp_path])
    assert relatives(files) == ["b.png", "a.png"]
    assert len(find_images([tmp_path / "d" / ".." / "d" / "a.png"] * 2)) == 1


def test_skipped_folders(tmp_path):
    touch(tmp_path, "a.png", "out/a.tif", "out/deeper/b.tif")
    assert relatives(find_images([tmp_path], skip=[tmp_path / "out"])) == ["a.png"]


@posix
def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "real/a.png", "other/b.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "real" / "same.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "gone.png").symlink_to(tmp_path / "nothing.png")
    files = find_images([tmp_path / "real"])
    assert sorted(file.path.name for file in files) == ["a.png", "b.png", "gone.png"]


@posix
def test_pipes_are_listed_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert relatives(find_images([tmp_path])) == ["a.png"]


def test_impossible_names_do_not_stop_the_list(tmp_path):
    touch(tmp_path, "a.png")
    given = ["a\0b.png", "x" * 5000, tmp_path / "a.png"]
    assert len(find_images(given)) == 3


def outputs(*names: str) -> list[str]:
    files = [InputFile(Path("/in", name), Path(name)) for name in names]
    return [path.as_posix() for path in output_paths(files)]


def test_output_keeps_folder_and_stem():
    assert outputs("a.png", "d/a.npy", "b.ome.tif") == ["a.tif", "d/a.tif", "b.ome.tif"]


def test_colliding_stems_keep_their_suffix():
    assert outputs("a.png", "b.png", "a.npy") == ["a.png.tif", "b.tif", "a.npy.tif"]
    assert outputs("A.png", "a.png") == ["A.png.tif", "a.png-2.tif"]
    assert outputs("a.png", "a.png", "a.png.npy")[:2] == ["a.png.tif", "a.png-2.tif"]


def test_outputs_never_collide():
    names = ["a.png", "a.npy", "a.png.npy", "A.PNG", "a.png-2.png", "a", "a.png"]
    found = outputs(*names)
    assert len({name.casefold() for name in found}) == len(names)
    assert found == outputs(*names)
