"""What holds for every test: few threads, no network, nobody's own settings."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.training_zygote import Zygote

# Compile the modules once for all processes that the tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Set before torch, napari and platformdirs are imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_HOME = tempfile.TemporaryDirectory(
    prefix="napari-cmunet-tests-", ignore_cleanup_errors=True
)
os.environ["NAPARI_CONFIG"] = str(Path(_HOME.name) / "settings.yaml")
for _name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
    os.environ[_name] = str(Path(_HOME.name) / _name.lower())


def pytest_collection_finish() -> None:
    """Keep garbage collections short: what is imported by now is there to stay."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let torch use one thread again: two workers share two cores."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines; sockets within this one still work."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(name))


def _guarded(name: str) -> Any:
    real = getattr(socket.socket, name)

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert _is_local(address[0]), f"A test tried to reach {address[0]}."
        return real(self, address)

    return connect


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The process from which training processes are forked."""
    from tests.training_zygote import Zygote

    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def forked_trainings(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the window's training processes start with torch imported (Linux)."""
    from napari_cmunet.project.training import worker

    if sys.platform == "linux":
        has = SimpleNamespace(Popen=zygote.popen, PIPE=subprocess.PIPE)
        monkeypatch.setattr(worker, "subprocess", has)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder ``tiny`` of width 4 that finds something in phantom frames.

    The first of the processes that needs it trains it.
    """
    from filelock import FileLock

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "models" / "tiny"
    with FileLock(shared / "models.lock"):
        if not folder.exists():
            _train_tiny_model(folder)
    return folder


def _train_tiny_model(folder: Path) -> None:
    import torch

    from napari_cmunet.model.card import ModelCard, Preprocessing
    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.model.registry import save_model
    from napari_cmunet.synthetic import PhantomConfig, make_frame
    from napari_cmunet.training.augment import Augmentation
    from napari_cmunet.training.config import FinetuneConfig
    from napari_cmunet.training.dataset import Label, prepare_labels
    from napari_cmunet.training.loop import finetune

    how = Preprocessing(grid=64)
    frames = [make_frame(PhantomConfig(size=128, seed=seed)) for seed in (1, 2, 4, 7)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CMUNet(4)
    training = finetune(
        network,
        prepare_labels([Label(*frame) for frame in frames], how),
        FinetuneConfig(
            steps=60,
            batch=4,
            learning_rate=1e-2,
            ema=0.8,
            augmentation=Augmentation(rotation=0, elastic=0, zoom=(1, 1), shift=0),
        ),
    )
    while True:
        try:
            next(training)
        except StopIteration as end:
            weights = end.value.weights
            break
    card = ModelCard(
        name="tiny", kind="artery", width=4, preprocessing=how, threshold=0.5
    )
    save_model(folder, weights, card)


@pytest.fixture
def run_python():
    """Run a program in a Python of its own, which must end well."""

    def run(program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
