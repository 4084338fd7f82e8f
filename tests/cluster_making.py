"""A real Dask cluster on this machine: a scheduler and workers, each a process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 120
ROLES = ("scheduler", "worker", "client")


def make_certificates(folder):
    """An authority and two certificates of it, as docs/cluster.md makes them."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")

    def openssl(command):
        subprocess.run(
            ["openssl", *command.split()], cwd=folder, check=True, capture_output=True
        )

    folder.mkdir(exist_ok=True)
    new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl(f"req -x509 {new} -days 2 -subj /CN=cluster -keyout ca.key -out ca.pem")
    openssl(f"req {new} -subj /CN=member -keyout key.pem -out request.pem")
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
        "-out cert.pem"
    )
    return folder


def tls_settings(folder):
    """Dask's configuration that names these certificates."""
    both = {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    roles = {f"{role}.{k}": v for role in ROLES for k, v in both.items()}
    settings = {"ca-file": str(folder / "ca.pem"), **roles}
    return {f"distributed.comm.tls.{name}": value for name, value in settings.items()}


def as_variables(settings):
    """Dask's configuration as variables of the environment."""
    return {
        "DASK_" + name.replace(".", "__").replace("-", "_").upper(): str(value)
        for name, value in settings.items()
    }


class DaskCluster:
    """A scheduler and its workers on the loopback address."""

    def __init__(self, folder, workers=2, *, tls=None, preload="", settings=()):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.preload = []
        if preload:  # what each worker does as it starts
            (folder / "preload.py").write_text(preload)
            self.preload = ["--preload", str(folder / "preload.py")]
        self.scheme = "tls" if tls else "tcp"
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            **as_variables(tls_settings(tls) if tls else {}),
            **as_variables(dict(settings)),
        }
        self.processes, self.workers = [], []
        self.scheduler = self.start(
            "dask_scheduler", "--protocol", self.scheme, "--port", "0"
        )
        self.address = self.wait_for(
            self.scheduler, rf"Scheduler at:\s+({self.scheme}://\S+)"
        )
        for _ in range(workers):
            self.add_worker()
        for worker in self.workers:
            self.wait_until_ready(worker)

    def wait_until_ready(self, worker):
        self.wait_for(worker, r"Registered to:\s+(\S+)")

    def add_worker(self):
        number = len(self.workers)
        worker = self.start(
            "dask_worker",
            self.address,
            *("--protocol", self.scheme, "--nthreads", "1", "--memory-limit", "0"),
            *("--no-nanny", "--local-directory", str(self.folder / f"worker{number}")),
            *self.preload,
        )
        self.workers.append(worker)
        return worker

    def start(self, module, *args):
        log = self.folder / f"{len(self.processes)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"distributed.cli.{module}", *args),
                    *("--host", "127.0.0.1", "--no-dashboard"),
                    *("--dashboard-address", "127.0.0.1:0"),
                ],
                env=self.env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process.log = log
        self.processes.append(process)
        return process

    def wait_for(self, process, pattern):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            text = process.log.read_text()
            if found := re.search(pattern, text):
                return found[1]
            assert process.poll() is None, text
            time.sleep(0.05)
        raise AssertionError(process.log.read_text())

    def kill(self, process):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self):
        for process in self.processes:
            self.kill(process)
