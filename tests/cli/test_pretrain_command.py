"""The command ``pretrain``: folders in, a model's folder out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from napari_cmunet.cli import main as cli
from napari_cmunet.cli import pretrain as command
from napari_cmunet.model.card import read_card
from napari_cmunet.model.registry import load_model
from napari_cmunet.pretraining.distributed import process_group
from napari_cmunet.pretraining.unlabelled_images import read_unlabelled
from napari_cmunet.training.events import PretrainFinished, PretrainStarted, from_line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SMALL = ("--width", "2", "--grid", "32", "--batch", "4", "--epochs", "2")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "Doe^John"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        coarse = random.integers(0, 255, (8, 8), np.uint8)
        picture = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
    return folder


def pretrain(*arguments) -> int:
    return cli.main(["pretrain", *map(str, arguments)])


def test_a_folder_becomes_a_model(images, tmp_path, capsys):
    out = tmp_path / "mine"
    about = ("--data", "Eight pictures", "--licence", "CC0-1.0")
    assert pretrain(images, "-o", out, *SMALL, *about) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "epoch 2: " in said.err
    card = read_card(out)
    assert (card.name, card.kind, card.width, card.labels) == ("mine", "ssl", 2, 0)
    assert card.licence == "CC0-1.0"
    assert card.data == "Eight pictures (7 unlabelled frames from 7 image files)"
    assert 0.5 < card.metrics["held_out_reconstruction"]["value"] < 1.5
    assert "Doe" not in (out / "card.json").read_text()
    report = load_model(out).report
    assert report.loaded == report.total
    curve = json.loads((out / "curves.json").read_text())
    assert [row["epoch"] for row in curve] == [0, 1]
    with Image.open(out / "reconstructions.png") as picture:
        assert picture.size[0] > 100
        assert len(np.unique(np.asarray(picture))) > 2


def test_bright_arteries_are_inverted_on_demand(images, tmp_path):
    turned = tmp_path / "inverted"
    turned.mkdir()
    for path in images.iterdir():
        with Image.open(path) as picture:
            Image.fromarray(255 - np.asarray(picture)).save(turned / path.name)
    with process_group("cpu") as group:
        read = partial(read_unlabelled, skip=tmp_path / "out", grid=32, group=group)
        dark, _ = read([images])
        bright, _ = read([turned])
        inverted, _ = read([turned], invert=True)
    assert len(dark.frames) == 8
    assert not torch.equal(bright.frames, dark.frames)
    assert torch.allclose(inverted.frames, dark.frames, atol=0.01)
    assert inverted.digest != bright.digest  # a run does not go on with the other


def test_torchrun_passes_every_option_on(capsys):
    """Without the two dashes, torchrun takes ``--start`` for one of its own."""
    from torch.distributed.run import parse_args

    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    line = re.search(r"torchrun (--nproc-per-node N -m .*?pretrain)", said)[1]
    options = ["images", "-o", "out", "--start", "cmunet-ssl", "--resume"]
    taken = parse_args([*line.replace(" N ", " 2 ").split(), *options])
    assert (taken.nproc_per_node, taken.module) == ("2", True)
    assert taken.training_script == "napari_cmunet"
    assert taken.training_script_args == ["pretrain", *options]


def test_two_processes_keep_the_model_up_to_date(images, tmp_path):
    """What is measured for it is measured by both: the leader alone would wait."""
    program, out = tmp_path / "program.py", tmp_path / "mine"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from napari_cmunet.cli import pretrain\n"
        "from napari_cmunet.cli.main import main\n"
        "pretrain.EXPORT_SECONDS = 0\n"
        "code = main(sys.argv[1:])\n"
        "threads = [t.read_text() for t in Path('/proc/self/task').glob('*/comm')]\n"
        "left = ' '.join(name for name in threads if 'gloo' in name)\n"
        "Path(__file__).with_name('left-' + os.environ['RANK']).write_text(left)\n"
        "sys.exit(code)\n"
    )
    shared = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    words = (sys.executable, *shared, program, "pretrain", images, "-o", out, *SMALL)
    done = subprocess.run(
        list(map(str, (*words, "--device", "cpu"))),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A thread of gloo that outlives its group can abort the process at its end.
    # Each process has a file of its own: two that print at once mix their lines.
    left = {path.name: path.read_text() for path in tmp_path.glob("left-*")}
    assert left == {"left-0": "", "left-1": ""}
    assert load_model(out).card.metrics["training"]["ended"] == "done"


def test_phantoms_are_made_once(images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "mine"
    options = (images, "-o", out, *SMALL, "--phantoms", 6, "--workers", 1)
    assert pretrain(*options) == 0
    card = read_card(out)
    assert "held_out_phantom_dice" in card.metrics
    assert "6 synthetic frames" in card.data
    assert load_model(out).report.head_loaded
    monkeypatch.setattr(command, "phantom_labels", None)
    assert pretrain(*options, "--resume") == 0
    assert read_card(out).sha256 == card.sha256


def test_a_cine_gives_several_frames_and_is_held_out_whole(images, tmp_path):
    random = np.random.default_rng(1)
    np.save(images / "cine.npy", random.integers(0, 255, (20, 40, 48), np.uint8))
    out, events = tmp_path / "mine", tmp_path / "events.jsonl"
    assert pretrain(images, "-o", out, *SMALL, "--events", events) == 0
    told = [from_line(line) for line in events.read_text().splitlines()]
    assert isinstance(told[0], PretrainStarted)
    assert told[0].frames + told[0].held_out == 8 + 8
    assert told[0].held_out in (1, 8)
    assert isinstance(told[-1], PretrainFinished)


def test_what_cannot_be_read_is_named_and_the_rest_is_done(images, tmp_path, capsys):
    (images / "broken.png").write_bytes(b"not a picture")
    Image.new("L", (48, 40), 7).save(images / "flat.png")
    out = tmp_path / "mine"
    assert pretrain(images, "-o", out, *SMALL) == 1
    said = capsys.readouterr().err
    assert "broken.png: " in said
    assert "flat.png: left out" in said
    assert "1 image could not be read" in said
    assert read_card(out).kind == "ssl"


def test_nothing_to_read(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    assert pretrain(tmp_path / "broken.png", "-o", tmp_path / "out", *SMALL) == 1
    assert "None of 1 image file" in capsys.readouterr().err
    assert not (tmp_path / "out" / "card.json").exists()


def test_too_few_images_for_a_batch(images, tmp_path, capsys):
    small = ("--width", "2", "--grid", "32", "--batch", "16")
    assert pretrain(images, "-o", tmp_path / "out", *small) == 1
    assert "smaller --batch" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_left_alone(images, tmp_path, capsys):
    out = tmp_path / "mine"
    assert pretrain(images, "-o", out, *SMALL) == 0
    before = (out / "weights.safetensors").read_bytes()
    capsys.readouterr()
    assert pretrain(images, "-o", out, *SMALL) == 1
    assert "--resume" in capsys.readouterr().err
    assert pretrain(images, "-o", out, "--resume", "--width", "3") == 1
    assert "width 2, not 3" in capsys.readouterr().err
    (images / "0.png").unlink()
    assert pretrain(images, "-o", out, "--resume") == 1
    assert "not the images" in capsys.readouterr().err
    assert (out / "weights.safetensors").read_bytes() == before


def test_asked_to_stop_it_leaves_a_model_and_goes_on_later(
    images, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "mine"

    class Stop:
        def __enter__(self):
            asked = iter([False, True])
            return lambda: next(asked)

        def __exit__(self, *args):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(command, "stop_on_signals", Stop)
        assert pretrain(images, "-o", out, *SMALL) == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert read_card(out).metrics["training"]["steps"] == 1
    assert pretrain(images, "-o", out, "--resume") == 0
    assert "from step 1" in capsys.readouterr().err
    assert read_card(out).metrics["training"]["ended"] == "done"


@pytest.mark.parametrize("wrong", [("--width", "-1"), ("--epochs", "many")])
def test_bad_usage(images, tmp_path, wrong):
    with pytest.raises(SystemExit) as stop:
        pretrain(images, "-o", tmp_path / "out", *wrong)
    assert stop.value.code == 2
