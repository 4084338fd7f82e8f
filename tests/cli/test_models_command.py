"""``models``: what there is, and whether it is whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.model import registry as models
from napari_cmunet.model.card import read_card


@pytest.fixture
def home(tmp_path, tiny_model, monkeypatch):
    """Two models, ``bundled`` and ``mine``; returns the user's folder."""
    own = tmp_path / "home" / "models"
    shutil.copytree(tiny_model, tmp_path / "bundle" / "bundled")
    shutil.copytree(tiny_model, own / "mine")
    monkeypatch.setattr(models, "bundled_models_folder", lambda: tmp_path / "bundle")
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(own.parent))
    return own


@pytest.mark.parametrize("command", [["models"], ["models", "list"]])
def test_list_names_every_model(home, capsys, command):
    assert main(command) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["bundled", "artery", "width 4"],
        ["mine", "artery", "width 4"],
    ]
    assert err == ""


def test_list_without_any_model(home, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "bundled_models_folder", lambda: tmp_path / "no")
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "no"))
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_show_prints_the_card(home, tiny_model, capsys):
    assert main(["models", "show", "mine"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(read_card(tiny_model))
    assert main(["models", "show", str(tiny_model)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"


def test_show_of_an_unknown_model(home, capsys):
    assert main(["models", "show", "nope"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("napari-cmunet: There is no model named 'nope'. Known models")
    assert "bundled, mine" in err


def test_verify_all_and_one(home, capsys):
    assert main(["models", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["bundled", "mine"]
    assert all("sound: 134 of 134" in line for line in lines)
    assert main(["models", "verify", "mine"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("damage", ["weights", "missing", "card"])
def test_verify_names_what_is_not_sound_and_goes_on(home, capsys, damage):
    shutil.copytree(home / "mine", home / "broken")
    weights = home / "broken" / "weights.safetensors"
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing":
        weights.unlink()
    else:
        (home / "broken" / "card.json").write_text("{")
    assert main(["models", "verify"]) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["bundled", "mine"]
    assert len(err.splitlines()) == 1
    assert "'broken'" in err
    # It is not offered.
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert ("broken" in listed) == (damage != "card")


def test_a_card_from_elsewhere_does_not_steer_the_terminal(home, capsys):
    path = home / "mine" / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    text = "\x1b]0;title\x07\x1b[2J\nmine\tartery\twidth 4\tforged"
    path.write_text(json.dumps(card | {"description": text}), encoding="utf-8")
    for command in ("list", "show"):
        assert main(["models", command, *(["mine"] if command == "show" else [])]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x07" not in out
        assert command == "show" or len(out.splitlines()) == 2
