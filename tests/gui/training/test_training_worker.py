"""The training process dies, runs out of memory or disk, and is left alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from napari_cmunet.project.models.promotion import DIED, PROMOTED
from napari_cmunet.project.project import Project
from napari_cmunet.project.training import worker as training_worker
from napari_cmunet.project.training.worker import TrainingOrder, TrainingProcess
from napari_cmunet.training import events
from tests.gui.training.conftest import BARE, accept, settled, wait_until

pytestmark = pytest.mark.slow

resource = pytest.importorskip("resource", reason="kill -9 and limits")

KILLS = int(os.environ.get("NAPARI_CMUNET_TEST_TRAINER_KILLS", "2"))
LONG = {"steps": 100000}


def labels_of(project: Project) -> dict[str, str]:
    """Hash of every label's file, as it lies on the disk."""
    return {
        str(path.relative_to(project.folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in (project.folder / "labels").rglob("*.tif")
    }


def nothing_was_lost(project: Project, labels: dict[str, str], in_use: str) -> None:
    assert labels_of(project) == labels
    assert project.models.current.name == in_use
    project.models.folder()  # whole, and the one that it was
    for name in project.models.names():
        project.models.version(name)
    project.close()
    with Project.open(project.folder) as again:
        assert again.take_notices() == []
        assert again.progress().frames == len(labels)


def pid_of(training) -> int | None:
    return training._run.process.process_id if training.running else None


def begun(training) -> bool:
    progress = training.state().progress
    return progress is not None and progress.step > 0


def test_kill_9_at_random_moments(make_project, add_model, make_training, clock):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # shown when it fails
    choose = random.Random(seed)
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    labels = labels_of(project)
    training = make_training(project, steps=10)
    began = time.monotonic()
    training.start()
    assert settled(training).verdict is not None
    usual = time.monotonic() - began
    died = 0
    for _ in range(KILLS):
        in_use, models = project.models.current.name, project.models.names()
        training.start()
        moment = time.monotonic() + choose.uniform(0, 0.8 * usual)
        wait_until(lambda at=moment: time.monotonic() > at or not training.running)
        pid = pid_of(training)
        if pid is None:  # it was quicker this time
            continue
        with clock(2):
            with contextlib.suppress(ProcessLookupError):  # ended this very moment
                os.kill(pid, signal.SIGKILL)
            result = settled(training)
        assert labels_of(project) == labels
        if result.kind != DIED:
            continue  # it had said all
        died += 1
        assert "SIGKILL" in result.text
        # The quick stage's model stays in use if it was better.
        if result.decision == PROMOTED:
            in_use = result.model
        assert project.models.current.name == in_use
        saved = [n for n in project.models.names() if n not in models]
        named = [n for n in saved if n == result.model or f"'{n}'" in result.text]
        assert saved == named
        assert bool(saved) == bool(result.model)
    assert died or not KILLS
    training.options |= BARE
    training.start()
    assert not settled(training).failed
    nothing_was_lost(project, labels, project.models.current.name)


def limit(training, what: int, amount: int) -> None:
    resource.prlimit(pid_of(training), what, (amount, amount))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
def test_out_of_memory(make_project, add_model, make_training, clock):
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    labels = labels_of(project)
    training = make_training(project, **LONG, grid=256, batch=16)
    training.start()
    assert wait_until(
        lambda: (
            pid_of(training) is not None
            and "libtorch" in Path(f"/proc/{pid_of(training)}/maps").read_text()
            and training.state().progress.phase == "learning"
        )
    )
    limit(training, resource.RLIMIT_AS, 2**20)  # not a page more than it has
    result = settled(training)
    assert result.kind == events.OUT_OF_MEMORY, result.text
    assert "memory" in result.text
    nothing_was_lost(project, labels, "weak")


def test_a_loss_that_is_no_number(make_project, add_model, make_training):
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    labels = labels_of(project)
    training = make_training(project, **LONG, learning_rate=1e30)
    training.start()
    result = settled(training)
    assert result.kind == events.NOT_A_NUMBER
    assert "lower learning rate" in result.text
    # The quick stage has a learning rate of its own; its model is in use already.
    nothing_was_lost(project, labels, "tuned-001")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
def test_a_full_disk(make_project, add_model, make_training):
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    labels = labels_of(project)
    training = make_training(project, **LONG)
    training.start()
    assert wait_until(lambda: begun(training))
    limit(training, resource.RLIMIT_FSIZE, 1000)
    training.stop()
    result = settled(training)
    assert result.kind == events.DISK_FULL
    assert project.models.names() == ["weak"]
    training.options |= BARE
    training.start()
    assert not settled(training).failed
    nothing_was_lost(project, labels, project.models.current.name)


WINDOW = """
import sys, time
from napari_cmunet.project.training.worker import TrainingOrder, TrainingProcess
process = TrainingProcess()
process.start()
process.send(TrainingOrder.from_line(sys.argv[1]))
while not getattr(process.next_event(), "step", 0):
    assert not process.ended, process.stderr()
print(process.process_id, flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_no_training_outlives_a_window_that_was_killed(make_project, tiny_model):
    project = make_project(2)
    order = TrainingOrder(project.folder, {"start": str(tiny_model), **LONG})
    window = subprocess.Popen(
        [sys.executable, "-c", WINDOW, order.to_line()],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(window.stdout.readline())
    assert runs(pid)
    window.kill()
    window.wait()
    # In its own time: beside other programs one of low priority may wait long for it.
    begun = now = processor_seconds(pid)
    while runs(pid):
        now = max(now, processor_seconds(pid))
        assert now - begun < 2
        time.sleep(0.02)
    window.stdout.close()
    left = [path.name for path in (project.folder / "models").glob("*")]
    assert left == ["current.json"]  # the model in use, as before


def status_of(pid: int) -> list[str]:
    """What /proc says, from the state on; that of a zombie if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ["Z", *"0" * 40]
    return status.rpartition(")")[2].split()


def runs(pid: int) -> bool:
    return status_of(pid)[0] != "Z"


def processor_seconds(pid: int) -> float:
    user, system = status_of(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_a_worker_that_is_aborted_ends_the_process(make_project, tiny_model, clock):
    project = make_project(2)
    order = TrainingOrder(project.folder, {"start": str(tiny_model), **LONG})
    process = TrainingProcess()
    steps = process.run(order)
    while not isinstance(next(steps), events.Step):
        pass
    with clock(2):
        steps.close()
        while process.exit_code is None:
            time.sleep(0.02)


def test_a_program_that_cannot_be_started(make_project, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    order = TrainingOrder(make_project(1).folder)
    with pytest.raises(StopIteration) as end:
        next(TrainingProcess().run(order))
    assert end.value.value.kind == events.OTHER_FAILURE
    assert "could not be started" in end.value.value.text


def prepared(training) -> TrainingProcess:
    training.prepare()
    assert wait_until(lambda: training._prepared.process_id is not None)
    return training._prepared


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_prepared_process_is_taken(spawned, make_project, make_training, phantoms):
    project = make_project(2, accepted=1)
    training = make_training(project, **BARE)
    waiting = prepared(training)
    training.prepare()
    assert training._prepared is waiting  # one is enough
    assert wait_until(
        lambda: "libtorch" in Path(f"/proc/{waiting.process_id}/maps").read_text()
    )
    accept(project, project.images.ids()[1], phantoms)  # counts, though it came later
    training.start()
    assert pid_of(training) == waiting.process_id
    result = settled(training)
    assert len(project.models.training(result.model)["labels"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_training_process_gives_way_to_the_window(
    spawned, make_project, make_training
):
    pid = prepared(make_training(make_project(1))).process_id
    assert os.getpgid(pid) == pid  # Ctrl-C in the terminal does not reach it
    # In a session of its own its niceness would not count: see "man 7 sched".
    assert os.getsid(pid) == os.getsid(0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert wait_until(lambda: os.getpriority(os.PRIO_PROCESS, pid) > own)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_training_stands_still_while_a_hand_is_at_work(
    make_project, make_training, clock
):
    training = make_training(make_project(15), **LONG)
    training.start()
    assert wait_until(lambda: begun(training))
    pid, end = pid_of(training), time.monotonic() + 1
    while time.monotonic() < end:
        training.pause_briefly()
        assert wait_until(lambda: status_of(pid)[0] == "T")
    step = training.state().progress.step
    assert wait_until(lambda: training.state().progress.step > step)
    training.pause_briefly()
    with clock(2):
        training.cancel()
        assert wait_until(lambda: not runs(pid))
    assert training._run is None or training._run.process.paused_share > 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_prepared_process_that_died_is_replaced(make_project, make_training, clock):
    project = make_project(2)
    training = make_training(project, **BARE)
    waiting = prepared(training)
    pid = waiting.process_id
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: waiting.exit_code is not None)
    training.prepare()
    assert training._prepared is waiting  # it might die again and again
    with clock(2):
        training.start()
        assert wait_until(lambda: not runs(pid) and pid_of(training))
    assert pid_of(training) != pid
    assert not settled(training).failed


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_prepared_process_ends_with_the_project(make_project, make_training, clock):
    training = make_training(make_project(1))
    pid = prepared(training).process_id
    with clock(0.1):
        training.close()
    with clock(2):
        assert wait_until(lambda: not runs(pid))


WAITING = """
import sys, time
from napari_cmunet.project.training.worker import TrainingProcess
process = TrainingProcess()
process.start()
print(process.process_id, flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_no_prepared_process_outlives_a_window_that_was_killed(clock):
    window = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(window.stdout.readline())
    maps = Path(f"/proc/{pid}/maps")
    while "libtorch_cpu" not in maps.read_text():
        time.sleep(0.05)
    with clock(5):  # it may have to end its imports first
        window.kill()
        window.wait()
        while runs(pid):
            time.sleep(0.02)
    window.stdout.close()


def test_no_pipe_stays_open(tmp_path, monkeypatch):
    """Three handles stayed, for each training in the window's life."""
    program = "import sys; print(1); print(2, file=sys.stderr)"
    monkeypatch.setattr(training_worker, "COMMAND", ("-c", program))
    process = TrainingProcess()
    for _ in process.run(TrainingOrder(tmp_path)):
        pass
    assert process.stderr() == ["2"]
    child = process._process
    assert all(pipe.closed for pipe in (child.stdin, child.stdout, child.stderr))


def test_nobody_waits_for_the_plan_of_a_process_that_has_ended(
    spawned, tmp_path, monkeypatch
):
    read_one = ("-c", "import sys; sys.stdin.readline()")
    monkeypatch.setattr(training_worker, "COMMAND", read_one)
    process, order = TrainingProcess(), TrainingOrder(tmp_path)
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        plans = [pool.submit(process.plan, order) for _ in range(3)]
        assert [plan.result(30) for plan in plans] == [None] * 3
    assert time.monotonic() - began < 20
