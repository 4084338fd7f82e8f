"""A training's process is paused while a hand is at work, and for no longer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_cmunet.project.training import priority
from napari_cmunet.project.training.priority import REST_SECONDS, Pauser

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

PARENT = """
import subprocess, sys, time
from napari_cmunet.project.training.priority import Pauser
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         process_group=0)
pauser = Pauser(child.pid)
print(child.pid, flush=True)
while True:
    pauser.pause()
    time.sleep(0.01)
"""


def state(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    return status.rpartition(")")[2].split()[0]


def comes_to_rest(pid: int) -> bool:
    """Whether a process of ``sleep`` has begun to sleep."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return name == "sleep" and state(pid) == "S"


def wait_until(done, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.005)
    return done()


@pytest.fixture
def child():
    with subprocess.Popen(["sleep", "60"], process_group=0) as process:
        assert wait_until(lambda: comes_to_rest(process.pid))
        yield process.pid
        with contextlib.suppress(OSError):
            process.kill()


def test_it_stands_still_while_a_hand_is_at_work(child):
    pauser = Pauser(child)
    end = time.monotonic() + 3 * REST_SECONDS
    pauser.pause()
    while time.monotonic() < end:
        assert wait_until(lambda: state(child) == "T")
        pauser.pause()
        time.sleep(0.01)
    assert wait_until(lambda: state(child) == "S")
    assert pauser.share > 0


@pytest.mark.slow
def test_it_is_paused_for_a_part_of_its_time_only(child, monkeypatch):
    monkeypatch.setattr(priority, "LONGEST_SECONDS", 0.3)
    pauser, began = Pauser(child), time.monotonic()
    while time.monotonic() < began + 2:
        pauser.pause()
        time.sleep(0.01)
    assert wait_until(lambda: state(child) == "S")
    assert 0.1 < pauser.share < 0.45  # 0.3 s and 12 % of 2 s


def test_a_pause_ends_at_once_where_that_is_wanted(child):
    pauser = Pauser(child)
    pauser.pause()
    assert wait_until(lambda: state(child) == "T")
    pauser.resume()
    assert wait_until(lambda: state(child) == "S", REST_SECONDS / 2)


def test_no_paused_process_outlives_a_window_that_was_killed():
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert wait_until(lambda: state(pid) == "T")
        parent.kill()
    assert wait_until(lambda: state(pid) in ("Z", "gone"))


def test_nothing_is_done_where_there_are_no_such_signals(child, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "killpg")
    pauser = Pauser(child)
    pauser.pause()
    pauser.resume()
    assert state(child) == "S"


def test_a_process_that_has_ended_is_let_be(child):
    subprocess.run(["kill", "-9", str(child)], check=True)
    assert wait_until(lambda: state(child) in ("Z", "gone"))
    Pauser(child).pause()
