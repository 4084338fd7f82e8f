"""``--cluster`` on a real scheduler with workers on this machine."""

from __future__ import annotations

import csv
import json
import pickle
import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask
import numpy as np
import pytest
import torch

from napari_cmunet.cli.main import main
from napari_cmunet.errors import UsageError
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.model.registry import WEIGHTS
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training import cluster as remote_training
from napari_cmunet.util import cluster as connection
from napari_cmunet.util.cluster import check_address
from tests.cluster_making import DaskCluster, make_certificates, tls_settings

pytest.importorskip("distributed")
slow = pytest.mark.slow

FILES = 60


@contextmanager
def dask_cluster(folder, *args, **options):
    made = DaskCluster(folder, *args, **options)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, certificates):
    """A cluster with TLS and one worker; others may come and go."""
    folder = tmp_path_factory.mktemp("dask")
    with dask_cluster(folder, 1, tls=certificates) as made:
        yield made


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 files, no two alike."""
    folder = tmp_path_factory.mktemp("images")
    phantoms = [make_frame(PhantomConfig(size=64, seed=s))[0] for s in range(10)]
    for i in range(FILES):
        np.save(folder / f"{i:03}.npy", np.roll(phantoms[i % 10], i // 10, axis=1))
    return folder


@pytest.fixture
def some(images, tmp_path):
    """Three of the files."""
    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.npy").write_bytes((images / f"{i:03}.npy").read_bytes())
    return folder


@pytest.fixture
def run(tiny_model, capsys, certificates):
    """Run ``segment``; returns exit code, lines of stdout, stderr."""

    def segment(*args, tls=certificates):
        with dask.config.set(tls_settings(tls)) if tls else nullcontext():
            code = main(["segment", *map(str, args), "--model", str(tiny_model)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return segment


@contextmanager
def once_there_are(count, folder, act):
    """Act in the middle of a run, when so many masks are there."""

    def wait():
        while len(list(folder.glob("*.tif"))) < count and not over.wait(0.01):
            pass
        act()

    over = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def rows(folder):
    with (folder / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@slow
def test_a_killed_worker_costs_nothing_and_masks_are_those_of_this_machine(
    images, cluster, run, tmp_path
):
    here, there = tmp_path / "here", tmp_path / "there"
    assert cluster.address.startswith("tls://")
    worker = cluster.add_worker()
    cluster.wait_until_ready(worker)
    done = []

    def kill():
        while not list((cluster.folder / "worker1").rglob("image")):
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.01)
            worker.send_signal(signal.SIGSTOP)
        done.append(len(list(there.glob("*.tif"))))
        cluster.kill(worker)

    with once_there_are(12, there, kill):
        code, out, err = run(images, "-o", there, "--cluster", cluster.address)
    assert (code, err) == (0, "")
    assert 12 <= done[0] < FILES  # it was killed while it had an image
    names = [f"{i:03}.tif" for i in range(FILES)]
    assert sorted(Path(line).name for line in out) == names  # each once

    assert run(images, "-o", here)[0] == 0
    for name in names:
        assert np.array_equal(read_mask(there / name), read_mask(here / name)), name
    same = ("number", "file", "input", "status", "artery_share", "source_sha256")
    assert [[r[c] for c in same] for r in rows(there)] == [
        [r[c] for c in same] for r in rows(here)
    ]


@slow
def test_failures_and_what_is_there_already_are_told_as_without_a_cluster(
    some, cluster, run, tmp_path
):
    (some / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (some / "no.png").write_text("not an image")
    extras = ("--overlay", "--record", "--probability")
    here, there = tmp_path / "here", tmp_path / "there"
    code, _, complaints = run(some, "-o", here, *extras)
    assert code == 1

    args = (some, "-o", there, *extras, "--cluster", cluster.address)
    code, out, err = run(*args)
    assert code == 1
    assert len(out) == 3
    assert sorted(err.splitlines()) == sorted(complaints.splitlines())
    files = sorted(p.name for p in here.iterdir())
    assert sorted(p.name for p in there.iterdir()) == files
    for name in (n for n in files if n.endswith("_overlay.png")):
        assert (there / name).read_bytes() == (here / name).read_bytes()

    masks = sorted(there.glob("*.tif"))
    times = [p.stat().st_mtime_ns for p in masks]
    assert "note: 3 of 5 were there already." in run(*args)[2]
    assert [p.stat().st_mtime_ns for p in masks] == times
    scratch = cluster.folder / "worker0"
    assert not list(scratch.rglob("image"))  # no image stays on a worker


@slow
def test_a_file_that_kills_its_worker_or_is_not_foreseen_fails_alone(
    some, run, tmp_path
):
    np.save(some / "a.npy", np.full((71, 71), 7, np.uint8))
    np.save(some / "z.npy", np.full((70, 70), 7, np.uint8))
    deadly = (
        "import os\n"
        "from napari_cmunet.cli.segment import on_cluster as module\n"
        "from napari_cmunet.cli.segment.one import write_outputs as real\n"
        "def write_outputs(path, *rest):\n"
        "    if b'(70, 70)' in path.read_bytes()[:200]:\n"
        "        os._exit(1)\n"
        "    if b'(71, 71)' in path.read_bytes()[:200]:\n"
        "        raise KeyError('of a library')\n"
        "    return real(path, *rest)\n"
        "module.write_outputs = write_outputs\n"
    )
    once = {"distributed.scheduler.allowed-failures": 0}
    with dask_cluster(tmp_path / "dask", 2, preload=deadly, settings=once) as cluster:
        code, out, err = run(some, "-o", tmp_path / "out", "--cluster", cluster.address)
    assert (code, len(out)) == (1, 3)
    assert "z.npy: the workers that were to segment it died." in err
    assert "a.npy: the worker failed (KeyError: 'of a library')." in err
    assert "3 of 5 done, 2 failed." in err


@slow
def test_a_run_goes_on_after_the_cluster_went_away(images, cluster, run, tmp_path):
    out = tmp_path / "out"
    with (
        dask_cluster(tmp_path / "first", 1) as first,
        once_there_are(10, out, lambda: first.kill(first.scheduler)),
    ):
        code, _, err = run(images, "-o", out, "--cluster", first.address)
    assert code == 1
    assert err == (
        "napari-cmunet: The connection to the cluster was lost. Finished files are "
        "whole; run the command again to go on.\n"
    )
    masks = sorted(out.glob("*.tif"))
    assert 10 <= len(masks) < FILES
    times = [p.stat().st_mtime_ns for p in masks]
    code, printed, err = run(images, "-o", out, "--cluster", cluster.address)
    assert (code, len(printed)) == (0, FILES)
    assert f"note: {len(masks)} of {FILES} were there already." in err
    assert [p.stat().st_mtime_ns for p in masks] == times


@slow
def test_a_model_of_a_worker_is_that_of_this_machine(
    cluster, certificates, tmp_path, capsys, monkeypatch
):
    sent = []

    def submit_noted(client, act, *args, **options):
        sent.append(pickle.dumps(args))
        return connection.submit(client, act, *args, **options)

    monkeypatch.setattr(remote_training, "submit", submit_noted)
    # A busy machine begins late, and a note would tell so.
    monkeypatch.setattr(remote_training, "_NOTE_SECONDS", 600)
    for seed in range(4):
        frame, mask = make_frame(PhantomConfig(size=64, seed=seed))
        for name, pixels in (("images", frame), ("masks", mask * np.uint8(255))):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"mustermann{seed}.npy", pixels)
    args = ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    args += "--start random --width 2 --grid 32 --steps 4 --seed 3 --events -".split()
    told = []
    # As the workers: the number of threads, which other tests change, decides rounding.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, more in (("here", []), ("there", ["--cluster", cluster.address])):
        with dask.config.set(tls_settings(certificates)):
            assert main(["finetune", *args, "-o", str(tmp_path / name), *more]) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        told.append([line["event"] for line in lines if line["event"] != "step"])
    torch.set_num_threads(threads)
    assert told[0] == told[1]
    here, there = (tmp_path / name / WEIGHTS for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()
    (everything,) = sent
    assert b"patient-" in everything
    assert b"mustermann" not in everything


@slow
def test_what_is_wrong_with_a_cluster_is_told(
    some, cluster, run, tmp_path, monkeypatch, certificates
):
    monkeypatch.setattr(connection, "_SECONDS_TO_CONNECT", 3)
    args = (some, "-o", tmp_path / "out", "--cluster")
    others = make_certificates(tmp_path / "others")
    for address, tls, code, text in (
        (cluster.address, others, 1, "not of one authority"),
        (cluster.address, None, 2, "names no certificates"),
        ("tcp://127.0.0.1:9", None, 1, "does not answer"),
    ):
        ended, _, err = run(*args, address, tls=tls)
        assert (ended, text in err) == (code, True), err
    monkeypatch.setattr(connection, "__version__", "9.9")
    code, _, err = run(*args, cluster.address)
    assert code == 1
    assert "this machine 9.9. Install the same version everywhere." in err
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    "address",
    ["tls://gpu.hospital.example:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:8786"],
)
def test_safe_addresses(address):
    check_address(address)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://gpu.hospital.example:8786", "not encrypted"),
        ("tcp://10.0.0.1:8786", "not encrypted"),
        ("tcp://127.0.0.1.example.org:8786", "not encrypted"),
        ("gpu:8786", "tls://HOST:PORT"),
        ("tls://gpu", "tls://HOST:PORT"),
        ("ws://127.0.0.1:8786", "tls://HOST:PORT"),
        ("tls://a@b:8786", "tls://HOST:PORT"),
    ],
)
def test_other_addresses_are_refused(address, reason, tmp_path, tiny_model, capsys):
    with pytest.raises(UsageError, match=reason):
        check_address(address)
    args = ["segment", str(tmp_path), "-o", str(tmp_path / "out")]
    assert main([*args, "--model", str(tiny_model), "--cluster", address]) == 2
    assert reason in capsys.readouterr().err


def test_plain_tcp_is_for_who_asks_for_it():
    check_address("tcp://10.0.0.1:8786", plain_tcp=True)
