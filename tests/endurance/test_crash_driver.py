"""Short runs of the campaigns that docs/reliability.md tells of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.endurance import soak

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="fork, kill -9, /proc"),
]


def campaign(tmp_path, *words: str) -> dict:
    """Run crash_driver.py, which must find nothing; returns its figures."""
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.endurance.crash_driver",
            *words,
            "--json",
            figures,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(figures.read_text())


def test_kills_and_failing_disks(tmp_path):
    figures = campaign(tmp_path, "engine", "--rounds", "6", "--faults", "0.03")
    assert figures["kills"] == 6
    assert figures["done"]["accept"] > 5


def test_kills_during_an_import(tmp_path):
    figures = campaign(tmp_path, "import", "--rounds", "8")
    assert figures["kills"] == 8
    assert figures["of them in the middle"] > 0


def test_power_cuts(tmp_path):
    figures = campaign(tmp_path, "power", "--rounds", "15")
    assert sum(figures["power cuts"].values()) == 15
    assert figures["done"]["accept"] > 5


def test_readers_and_the_reviewer_are_killed(tmp_path):
    figures = campaign(tmp_path, "readers", "--rounds", "9")
    assert set(figures["kills"].values()) == {3}
    assert figures["done"]["reviewer accept"] > 3


def test_the_window_is_killed(tmp_path, qapp):
    figures = campaign(tmp_path, "window", "--rounds", "2")
    assert figures["kills"] == 2


def test_the_driver_finds_a_label_that_is_lost(tmp_path):
    """A check that cannot fail is none."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from tests.endurance.crash.ledger import Ledger, Lost, hash_of\n"
        "from tests.endurance.crash.phantom_project import make_home, make_project\n"
        "from napari_cmunet.project.project import Project\n"
        "here = Path(sys.argv[1])\n"
        "make_home(here / 'home')\n"
        "folder = make_project(here, 2, model=False)\n"
        "mask = np.eye(64, dtype=bool)\n"
        "with Project.open(folder) as project:\n"
        "    image = project.images.ids()[0]\n"
        "    made = project.labels.accept(image, 0, mask)\n"
        "    file = project.labels.path(image, 0)\n"
        "told = {'kind': 'done', 'act': 'accept', 'image': image}\n"
        "told |= {'pixels': hash_of(mask), 'file': made.sha256}\n"
        "ledger = Ledger()\n"
        "ledger.note(told)\n"
        "ledger.check(folder, here / 'copy')\n"
        "data = bytearray(file.read_bytes())\n"
        "for harm in ('gone', 'half', 'other'):\n"
        "    file.unlink(missing_ok=True)\n"
        "    if harm == 'half': file.write_bytes(data[: len(data) // 2])\n"
        "    if harm == 'other':\n"
        "        with Project.open(folder) as project:\n"
        "            project.labels.accept(image, 0, ~mask)\n"
        "    try: ledger.check(folder, here / 'copy')\n"
        "    except Lost: print(harm)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == ["gone", "half", "other"], done.stderr


def test_nothing_piles_up(tmp_path, qapp, forked_trainings, monkeypatch):
    for name in ("NAPARI_CMUNET_HOME", "NAPARI_CONFIG"):  # given back after the test
        monkeypatch.setenv(name, "")
    figures = tmp_path / "figures.json"
    words = ["soak", "--images", "4", "--trainings", "2", "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", words)
    assert soak.main() == 0, figures.read_text()
    assert json.loads(figures.read_text())["labels"] == 4
