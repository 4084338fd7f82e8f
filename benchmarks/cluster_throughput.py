"""Images a minute against the number of workers of a cluster on this machine.

A worker waits ``--latency`` seconds for each image in the place of a GPU or a long
cine; the network is tiny, so that few cores can tell what Dask and the connection cost:

    python -m benchmarks.cluster_throughput --workers 1 2 4 8
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from napari_cmunet.cli.main import main as command
from napari_cmunet.model.card import ModelCard, Preprocessing
from napari_cmunet.model.network import CMUNet
from napari_cmunet.model.registry import save_model
from napari_cmunet.synthetic import PhantomConfig, make_frame

_PRELOAD = """
import time
from napari_cmunet.cli.segment import on_cluster
from napari_cmunet.cli.segment.one import write_outputs

def wait_and_write(*args):
    time.sleep({latency})
    return write_outputs(*args)

on_cluster.write_outputs = wait_and_write
"""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--latency", type=float, default=0.5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        frame, _ = make_frame(PhantomConfig(size=args.size, seed=1))
        for i in range(args.images):
            np.save(folder / "images" / f"{i:03}.npy", np.roll(frame, i, axis=1))
        card = ModelCard("tiny", "artery", 2, asdict(Preprocessing(grid=64)))
        save_model(folder / "model", CMUNet(2).state_dict(), card)
        (folder / "preload.py").write_text(_PRELOAD.format(latency=args.latency))
        print("| workers | images a minute | share of ideal |\n|---|---|---|")
        for workers in args.workers:
            seconds = _measure(folder, workers, args)
            rate, ideal = args.images / seconds, workers / args.latency
            print(f"| {workers} | {60 * rate:.0f} | {rate / ideal:.2f} |", flush=True)


def _measure(folder: Path, workers: int, args: argparse.Namespace) -> float:
    """Seconds that ``segment --cluster`` takes once its workers are warm."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])  # free
    host = ["--host", "127.0.0.1", "--no-dashboard"]
    host += ["--dashboard-address", "127.0.0.1:0"]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["dask_scheduler", "--port", port]
    worker = ["dask_worker", address, "--no-nanny", "--nthreads", "1"]
    worker += ["--memory-limit", "0", "--local-directory", str(folder / "workers")]
    worker += ["--preload", str(folder / "preload.py")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *more, *host],
            env=env,
            stderr=subprocess.DEVNULL,
        )
        for module, *more in [scheduler] + [worker] * workers
    ]
    try:
        from distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(workers, timeout=240)
        for run in ("warm", "measured"):
            began = time.monotonic()
            with contextlib.redirect_stdout(io.StringIO()):
                out = str(folder / f"{workers}-{run}")
                inputs = [str(folder / "images"), "--model", str(folder / "model")]
                code = command(["segment", *inputs, "-o", out, "--cluster", address])
            assert code == 0
        return time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
