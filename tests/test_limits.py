"""At the limits of a machine: each ends in a usable state and a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_cmunet.cli import main as cli
from napari_cmunet.errors import WriteError
from napari_cmunet.gui.prediction.prediction import ModelChoice, load_engine
from napari_cmunet.model import device as device_module
from napari_cmunet.model import registry as models_module
from napari_cmunet.model.device import choose_device_or_fallback
from napari_cmunet.project import journal as journal_module
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.models import models as project_models
from napari_cmunet.project.project import Project
from napari_cmunet.synthetic import PhantomConfig, make_frame

if TYPE_CHECKING:
    from napari_cmunet.training import events

pytestmark = pytest.mark.slow

SHAPE = (48, 64)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))


def save(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(path.name))
    with path.open("wb") as file:
        np.save(file, random.integers(0, 255, SHAPE, dtype=np.uint8))


# -- memory and processors -----------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_segment_in_two_gigabytes_on_one_core(tmp_path):
    """The bundled model on a frame of 1024 x 1024; address space, not only memory."""
    frame, _ = make_frame(PhantomConfig(size=256, seed=1))
    np.save(tmp_path / "big.npy", np.kron(frame, np.ones((4, 4), np.uint8)))
    program = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from napari_cmunet.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", program, "segment", tmp_path / "big.npy", "-o", out],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "big.tif").is_file()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    ],
)
def test_no_memory_for_the_model(tmp_path, tiny_model, monkeypatch, capsys, error):
    """At this stage it was a traceback."""
    save(tmp_path / "a.npy")

    def fail(*_):
        raise error

    monkeypatch.setattr(models_module, "_read_weights", fail)
    words = ["segment", tmp_path / "a.npy", "-o", tmp_path / "o", "--model", tiny_model]
    assert cli.main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert "not enough memory. Close other programs" in said
    assert said.count("\n") == 1


def test_a_device_that_is_gone(tiny_model, monkeypatch):
    """The window's choice is of a time when the machine had one."""
    monkeypatch.setattr(device_module, "available_devices", lambda: ["cpu"])
    device, said = choose_device_or_fallback("cuda")
    assert device.type == "cpu"
    assert "no 'cuda' device" in said
    assert "Using CPU" in said
    assert choose_device_or_fallback("cpu")[1] == ""
    engine = load_engine(ModelChoice(str(tiny_model), "cuda"))
    assert engine.notices() == [said]
    assert engine.predict(np.zeros(SHAPE, np.uint8)).shape == SHAPE


def test_a_training_on_a_device_that_is_gone(monkeypatch):
    from napari_cmunet.project.training.finetuning import _device

    monkeypatch.setattr(device_module, "available_devices", lambda: ["cpu"])
    told: list[events.Event] = []
    assert _device("cuda", told.append, any_device=True).type == "cpu"
    assert "no 'cuda' device" in told[0].text
    with pytest.raises(Exception, match="no 'cuda' device"):  # asked for just now
        _device("cuda", told.append, any_device=False)


# -- disks -----------------------------------------------------------------------


def test_finetune_says_first_that_a_project_cannot_be_written(
    tmp_path, tiny_model, monkeypatch, capsys
):
    """It was said after the training, and the model was lost."""
    save(tmp_path / "pictures" / "a.npy")
    with Project.create(tmp_path / "project") as project:
        project.images.add([tmp_path / "pictures"])
        project.labels.accept(project.images.ids()[0], 0, np.eye(*SHAPE, dtype=bool))

    def refuse(path):
        raise WriteError(path, "the disk is read-only. Choose another folder.")

    monkeypatch.setattr(project_models, "make_folder", refuse)
    words = ["finetune", tmp_path / "project", "--start", tiny_model, "--steps", "1"]
    assert cli.main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert "the disk is read-only" in said
    assert "step" not in said


def test_a_project_on_a_disk_that_can_only_be_read(tmp_path, monkeypatch):
    save(tmp_path / "pictures" / "a.npy")
    with Project.create(tmp_path / "project") as project:
        project.images.add([tmp_path / "pictures"])
        image = project.images.ids()[0]
        project.labels.accept(image, 0, np.eye(*SHAPE, dtype=bool))
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(tmp_path) in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(WriteError, match="the disk is read-only"):
        Project.open(tmp_path / "project")
    with Project.open(tmp_path / "project", read_only=True) as project:
        assert project.labels.get(image, 0).mask.sum() == min(SHAPE)


# -- clocks and names --------------------------------------------------------------


def test_a_clock_that_was_set_back(tmp_path, monkeypatch):
    save(tmp_path / "pictures" / "a.npy")
    now = datetime(2026, 3, 1, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            nonlocal now
            now -= timedelta(days=30)
            return now

    monkeypatch.setattr(journal_module, "datetime", Clock)
    with Project.create(tmp_path / "project") as project:
        project.images.add([tmp_path / "pictures"])
        image = project.images.ids()[0]
        for size in (3, 5, 7):
            mask = np.zeros(SHAPE, bool)
            mask[:size] = True
            project.labels.accept(image, 0, mask)
            project.flag(image, size != 7)
    for path in (tmp_path / "project").rglob("*.tif"):
        os.utime(path, (2**31, 2**31))  # of the future
    with Project.open(tmp_path / "project") as project:
        assert project.take_notices() == []
        assert project.labels.get(image, 0).mask[:, 0].sum() == 7
        assert not project.status(image).flagged
        numbers = [entry.number for entry in project.journal()]
        assert numbers == sorted(numbers)


REFUSED = ("CON.npy", "aux.npy", "COM1.x.npy", "nul/f.npy", "a:b.npy", "x\\y.npy")
TAKEN = ("q?.npy", "<>|*.npy", '"quote".npy', "Ärzte 病人.npy", "L" * 240 + ".npy")


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be made there")
def test_names_that_windows_forbids(tmp_path):
    """A project may go to another computer: what cannot lie there is not taken in."""
    for name in (*REFUSED, *TAKEN):
        save(tmp_path / "pictures" / name)
    with Project.create(tmp_path / "project") as project:
        added = project.images.add([tmp_path / "pictures"])
        assert len(added.problems) == len(REFUSED)
        assert all("Rename it." in text for text in added.problems)
        assert len(added.images) == len(TAKEN)
        for image in added.images:
            project.labels.accept(image, 0, np.eye(*SHAPE, dtype=bool))
        exported = export_masks(project, tmp_path / "out", original_names=True)
        assert exported.problems == ()
    names = [path.name for path in (tmp_path / "out").rglob("*.tif")]
    assert len(names) == len(TAKEN)
    assert not any(set(name) & set('<>:"/\\|?*') for name in names)
    with Project.open(tmp_path / "project") as project:
        assert project.take_notices() == []
        assert project.images.missing() == []


def test_a_path_of_250_characters_and_more(tmp_path):
    deep = tmp_path / "Ärzte der Klinik"
    while len(str(deep)) < 400:
        deep /= "病" * 20 + "p" * 20
    save(deep / "pictures" / ("ü" * 100 + ".npy"))
    with Project.create(deep / "project") as project:
        (image,) = project.images.add([deep / "pictures"]).images
        project.labels.accept(image, 0, np.eye(*SHAPE, dtype=bool))
        project.drafts.save(image, 0, ~np.eye(*SHAPE, dtype=bool))
    with Project.open(deep / "project") as project:
        assert project.take_notices() == []
        assert project.labels.get(image, 0).mask.sum() == min(SHAPE)
        assert project.drafts.load(image, 0) is not None
        assert export_masks(project, deep / "out").problems == ()
