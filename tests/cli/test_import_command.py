"""``napari-cmunet import``: pairs on stdout, what is wrong on stderr."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from napari_cmunet.cli.main import main
from napari_cmunet.project.project import Project
from napari_cmunet.synthetic import PhantomConfig, make_frame

FRAME, TRUTH = make_frame(PhantomConfig(size=64, seed=8))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    images = tmp_path / "images"
    images.mkdir()

    def make(count: int):
        for number in range(count):
            noisy = np.roll(FRAME, number % 5, axis=1)
            Image.fromarray(noisy).save(images / f"img{number:03d}.png")
        with Project.create(tmp_path / "project") as made:
            made.images.add([images])
        return tmp_path / "project"

    return make


def save_masks(folder, count):
    folder.mkdir()
    for number in range(count):
        mask = np.roll(TRUTH, number % 5, axis=1)
        Image.fromarray(mask).save(folder / f"img{number:03d}.png")
    return folder


@pytest.mark.slow
def test_200_pairs_of_which_ten_are_wrong(project, tmp_path, capsys):
    folder, masks = project(200), save_masks(tmp_path / "masks", 200)
    wrong = list(range(3, 200, 20))
    spoil = [
        lambda path: path.rename(path.with_name(f"x{path.name}")),
        lambda path: Image.fromarray(TRUTH[:40]).save(path),
        lambda path: Image.fromarray(~TRUTH).save(path),
        lambda path: path.write_bytes(b"no picture at all"),
        lambda path: ImageOps.mirror(Image.open(path)).save(path),
    ]
    for place, number in enumerate(wrong):
        spoil[place % 5](masks / f"img{number:03d}.png")
    assert main(["import", str(folder), str(masks)]) == 1
    out, err = capsys.readouterr()
    *problems, last = err.splitlines()
    assert last == "190 labels saved"
    named = sorted(problem.split(":")[0].lstrip("x") for problem in problems)
    assert named == [f"img{number:03d}.png" for number in wrong]
    assert len(out.splitlines()) == 190
    assert "img000.png -> img000.png, frame 0" in out
    with Project.open(folder, read_only=True) as opened:
        assert len(opened.labels.keys()) == 190


def test_a_dry_run_writes_nothing(project, tmp_path, capsys):
    folder, masks = project(2), save_masks(tmp_path / "masks", 2)
    assert main(["import", str(folder), str(masks), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == "2 new labels\n"
    with Project.open(folder, read_only=True) as opened:
        assert not opened.labels.keys()


def test_it_asks_at_a_terminal(project, tmp_path, capsys, monkeypatch):
    folder, masks = project(1), save_masks(tmp_path / "masks", 1)
    command = ["import", str(folder), str(masks), "--drafts"]
    monkeypatch.setattr("sys.stdin", Answer("n"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(command) == 1
    assert "Save these 1 drafts? [y/N]" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Answer("y"))
    assert main(command) == 0
    with Project.open(folder, read_only=True) as opened:
        assert len(opened.drafts.keys()) == 1


class Answer:
    """Somebody at a terminal."""

    def __init__(self, text: str) -> None:
        self._text = text

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self._text}\n"
