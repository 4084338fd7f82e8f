"""What holds for every test: few threads, no network, nobody's own settings."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Set before torch, napari and platformdirs are imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_HOME = tempfile.TemporaryDirectory(
    prefix="napari-cmunet-tests-", ignore_cleanup_errors=True
)
os.environ["NAPARI_CONFIG"] = str(Path(_HOME.name) / "settings.yaml")
for _name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
    os.environ[_name] = str(Path(_HOME.name) / _name.lower())


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
