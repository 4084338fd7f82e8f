"""``models import`` and ``models fetch`` from the command line."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_cmunet.cli.main import main
from napari_cmunet.model import published
from napari_cmunet.model.registry import load_model, user_models_folder
from tests.model import checkpoint_makers as make
from tests.model.test_download import Server, server

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["server"]  # a fixture
NAME = "published-cmunet-79-1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def offered(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A small file in the place of a published one."""
    path = tmp_path / "cmunet_lr0.001.pth"
    make.save_whole(path, make.network())
    server.content = path.read_bytes()
    path.unlink()
    digest = hashlib.sha256(server.content).hexdigest()
    known = published.PublishedFile("ratio_79-1", path.name, digest)
    monkeypatch.setattr(published, "PUBLISHED", (known,))
    return server


@pytest.mark.slow
def test_import(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, path = make.network(), tmp_path / "theirs.pth"
    torch.save(source.state_dict(), path)
    assert main(["models", "import", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "134 of 134 encoder and decoder tensors from theirs.pth" in out
    assert "none of the known published ones" in out
    assert "Imported as theirs (artery)." in out
    assert err == ""
    assert main(["models", "verify", "theirs"]) == 0
    assert main(["models", "import", str(path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["models", "import", str(path), "--force"]) == 0
    assert main(["models", "import", str(path), "--name", "mine"]) == 0
    assert load_model("mine").card.name == "mine"


def test_import_refuses_a_hostile_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil()))
    assert main(["models", "import", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"napari-cmunet: evil.pth is refused: it asks to run "
        f"{os.system.__module__}.system. Nothing in it was run.\n"
    )
    assert not (tmp_path / "canary").exists()
    assert not user_models_folder().exists()


def test_fetch_without_a_name_lists(capsys: pytest.CaptureFixture) -> None:
    assert main(["models", "fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("published-cmunet-50-30\tPublished by the authors")


@pytest.mark.slow
def test_fetch(offered: Server, capsys: pytest.CaptureFixture, home: Path) -> None:
    assert main(["models", "fetch", NAME, "--url", offered.url, "--yes"]) == 0
    out, err = capsys.readouterr()
    assert "state no licence" in err
    assert "Known file: cmunet_lr0.001.pth, ratio_79-1." in out
    assert f"Imported as {NAME} (artery)." in out
    card = load_model(NAME).card
    assert (card.kind, card.labels) == ("artery", 18)
    assert card.licence == "none stated by the authors"
    assert not list((home / "downloads").iterdir())


@pytest.mark.slow
def test_fetch_says_that_there_is_no_licence_and_asks(
    offered: Server, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["models", "fetch", NAME, "--url", offered.url]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    assert main(command) == 2
    assert "Add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for answer, code in (("\n", 1), ("n\n", 1), ("", 1), ("y\n", 0)):
        assert not offered.asked
        terminal = io.StringIO(answer)
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", terminal)
        assert main(command) == code
        shown = capsys.readouterr().err
        assert shown.index("state no licence") < shown.index("Download it? [y/N]")
    assert offered.asked == [None]


def test_fetch_refuses_another_file(
    offered: Server, capsys: pytest.CaptureFixture, home: Path
) -> None:
    offered.content = offered.content[:-1] + b"x"
    assert main(["models", "fetch", NAME, "--url", offered.url, "--yes"]) == 1
    assert "not the file that was asked for" in capsys.readouterr().err
    assert not user_models_folder().exists()
    assert not list((home / "downloads").iterdir())


def test_fetch_refuses_before_it_downloads(
    offered: Server, capsys: pytest.CaptureFixture
) -> None:
    assert main(["models", "fetch", "cmunet", "--url", offered.url, "--yes"]) == 1
    assert "There are: " in capsys.readouterr().err
    assert main(["models", "fetch", NAME, "--url", "http://a.org/b", "--yes"]) == 1
    assert "over https only" in capsys.readouterr().err
    assert main(["models", "fetch", NAME, "--url", offered.url, "--yes"]) == 0
    offered.asked.clear()
    assert main(["models", "fetch", NAME, "--url", offered.url, "--yes"]) == 1
    assert "--force" in capsys.readouterr().err
    assert not offered.asked
