"""Training processes forked from one that has imported torch already (Linux).

Each training is a real process with pipes of its own, to be stopped, killed and
limited; only its imports, most of its time in a test, are made once. ``ForkedProcess``
stands for ``subprocess.Popen`` in :mod:`napari_cmunet.project.training.worker`.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

from napari_cmunet.project.training import worker

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, *worker.COMMAND]


class Zygote:
    """The process that others are forked from. Started with the first of them."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def popen(self, command, **options):
        """As ``subprocess.Popen``, which it calls for any other command."""
        if command != COMMAND:
            return subprocess.Popen(command, **options)
        with self._lock:
            if self._socket is None:
                self._start()
            return ForkedProcess(self._socket, options["env"])

    def _start(self) -> None:
        self._socket, other = socket.socketpair()
        program = f"from {__name__} import serve; serve({other.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
            pass_fds=[other.fileno()],
        )
        other.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._process.wait()


class ForkedProcess:
    """A training process. It has what TrainingProcess uses of ``Popen``."""

    def __init__(self, zygote: socket.socket, env: dict[str, str]) -> None:
        stdin, stdout, stderr, status = (os.pipe() for _ in range(4))
        theirs = [stdin[0], stdout[1], stderr[1], status[1]]
        socket.send_fds(zygote, [json.dumps(env).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.stdin = os.fdopen(stdin[1], "wb")
        self.stdout, self.stderr = (
            os.fdopen(stdout[0], "rb"),
            os.fdopen(stderr[0], "rb"),
        )
        self._status = status[0]
        self.pid = int(zygote.recv(20))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """As that of ``Popen``."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(os.read(self._status, 20))
            os.close(self._status)
        return self.returncode


def serve(descriptor: int) -> None:
    """Fork a training process for each message; tell how each has ended."""
    import napari_cmunet.project.training.finetuning  # noqa: F401
    from napari_cmunet.training.evaluation.comparison import regression_frames

    regression_frames()  # drawn once for all
    gc.freeze()
    children: dict[int, int] = {}
    with socket.socket(fileno=descriptor) as client:
        while True:
            if select.select([client], [], [], 0.02)[0]:
                message, descriptors, *_ = socket.recv_fds(client, 2**20, 4)
                if not message:
                    return
                pid = os.fork()
                if pid == 0:
                    client.detach()
                    os.close(descriptor)
                    _train(json.loads(message), descriptors)
                os.setpgid(pid, pid)
                client.send(f"{pid:<20}".encode())
                *pipes, children[pid] = descriptors
                for pipe in pipes:
                    os.close(pipe)
            _tell_ends(children)


def _tell_ends(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        descriptor = children.pop(pid)
        os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _train(env: dict[str, str], descriptors: list[int]) -> None:
    """Be the training process. Does not return."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(env)
    code = 1
    try:
        code = worker.main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
