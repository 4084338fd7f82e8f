"""Nothing is sent, looked up or listened for, and no temporary file stays behind.

Commands, the panel and a project run in a process of their own whose every call of a
socket is noted, also those of libraries. Only ``models fetch``, ``pacs`` and a cluster
that is named may use the network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = r"""
import os, sys, tempfile
from pathlib import Path

called = []

def hook(event, args):
    if event.startswith("socket.") and event not in ("socket.gethostname",):
        kind = getattr(args[0], "family", None) if args else None
        if event == "socket.__new__" or (kind is not None and int(kind) == 1):
            return  # not used yet, or within this machine
        if event in ("socket.bind", "socket.connect"):
            # urllib3, once imported, sees so whether there is IPv6, and Windows has
            # no other pair of sockets; whether a port is listened at is seen below.
            if args[1][0] in ("::1", "127.0.0.1"):
                return
        called.append(f"{event} {args!r:.200}")

sys.addaudithook(hook)
folder, model = Path(sys.argv[1]), sys.argv[2]

import numpy as np
import psutil
from PIL import Image
from napari_cmunet.cli.main import main
from napari_cmunet.synthetic import PhantomConfig, make_frame

def over(what):
    left = os.listdir(tempfile.gettempdir())
    assert not left, f"{what} left temporary files: {left}"
    assert not called, f"{what} used the network: {called}"
    listening = [c for c in psutil.Process().net_connections() if c.status == "LISTEN"]
    assert not listening, f"{what} listens: {listening}"
    assert "distributed" not in sys.modules
    print(what, flush=True)

def run(*argv):
    code = main([str(a) for a in argv])
    assert code == 0, f"{argv[0]} ended with {code}"
    over(argv[0])

for seed in range(6):
    frame, mask = make_frame(PhantomConfig(seed=seed, size=64))
    for name, pixels in (("images", frame), ("masks", mask * np.uint8(255))):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"p{seed}.png")

images, masks = folder / "images", folder / "masks"
run("models", "list")
run("models", "verify")
run("segment", images, "-o", folder / "out", "--model", model)
run("evaluate", "--images", images, "--masks", masks, "--model", model)
run("finetune", "--images", images, "--masks", masks, "-o", folder / "mine",
    "--start", "random", "--width", "2", "--grid", "32", "--steps", "2")

from napari_cmunet.project.project import Project
from napari_cmunet.io.images import read_angiogram

with Project.create(folder / "project") as project:
    project.images.add([images])
    for image in project.images.ids():
        read_angiogram(project.images.path(image))
        project.labels.accept(image, 0, np.eye(64, dtype=bool))
over("project")
run("export", folder / "project", "-o", folder / "export")

from napari.components import ViewerModel
from napari_cmunet.gui.panel import CMUNetPanel
from napari_cmunet.sample_data import sample_frame
from qtpy.QtWidgets import QApplication

app = QApplication([])
viewer = ViewerModel()
panel = CMUNetPanel(viewer)
panel.show()
data, options, _ = sample_frame()[0]
viewer.add_image(data, **options)
for _ in range(50):
    app.processEvents()
over("panel")
os._exit(0)
"""


def test_no_command_uses_the_network_or_leaves_temporary_files(tmp_path, tiny_model):
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o700)
    folder = tmp_path / "work"
    folder.mkdir()
    home = {"NAPARI_CMUNET_HOME": str(tmp_path / "home")}
    places = {name: str(temporary) for name in ("TMPDIR", "TEMP", "TMP")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tiny_model)],
        env=os.environ | home | places | {"QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    passed = [line for line in done.stdout.splitlines() if line.isalpha()]
    assert passed[-2:] == ["export", "panel"]


def test_few_modules_open_addresses():
    package = Path(__file__).parents[1] / "napari_cmunet"
    words = (
        "urllib",
        "http.client",
        "requests",
        "import socket",
        "pooch",
        "telnetlib",
        "dicomweb_client",
        "keyring",
        "distributed",
    )
    using = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(f"import {w}" in (text := path.read_text("utf-8")) or f"from {w}" in text
               for w in words)
    }  # fmt: skip
    assert using == {
        "io/pacs.py",
        "model/published.py",
        "util/cluster.py",
        "training/cluster.py",
        "cli/segment/on_cluster.py",
    }
