"""Speed of two versions of the program, alternating in one run.

    python -m benchmarks.compare_speed BEFORE [--repeats 7] [--threads N] [--processor]

BEFORE is a folder with another version of the repository, as ``git archive`` makes it.
Each version runs in a process of its own and waits while the other is timed, so that
the ratio of the medians holds on a machine that is busy now and then. On one that is
busy all the time, ``--processor`` counts the processor's seconds instead, best with
``--threads 1``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = {
    "load and first frame": 3,
    "network of a frame": 1,
    "frame of 512 x 512": 1,
    "cine of 60": 12,
    "training step of 8 views": 4,
}
"""What is timed, and how many times as seldom as the rest."""


def main() -> None:
    """Time both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--processor", action="store_true", help="processor seconds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(time.process_time if args.processor else time.perf_counter)
        return
    trees = {"before": args.before.resolve(), "after": Path(__file__).parents[1]}
    print(f"{'':28}{'before':>10}{'after':>10}{'times as fast':>16}")
    for task in args.tasks:
        repeats = max(3, args.repeats // TASKS[task])
        seconds: dict[str, list[float]] = {name: [] for name in trees}
        fresh = task == "load and first frame"
        servers: dict[str, subprocess.Popen[str]] = {}
        for _ in range(repeats):
            for name, tree in trees.items():
                if name not in servers:
                    servers[name] = start(tree, args.threads, args.processor)
                seconds[name].append(ask(servers[name], task))
                if fresh:
                    stop(servers.pop(name))
        for server in servers.values():
            stop(server)
        old, new = (median(seconds[name]) for name in trees)
        print(f"{task:28}{old:8.3f} s{new:8.3f} s{old / new:16.2f}", flush=True)


def start(tree: Path, threads: int, processor: bool) -> subprocess.Popen[str]:
    """Start a process that runs the tasks with the code of a tree."""
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", *["--processor"] * processor],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(server: subprocess.Popen[str], task: str) -> float:
    """Seconds of a task in a process, once it is warm."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{task}\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def stop(server: subprocess.Popen[str]) -> None:
    """Let a process end."""
    assert server.stdin is not None
    server.stdin.close()
    server.wait()


def serve(clock: Callable[[], float]) -> None:
    """Answer each task on stdin with its seconds."""
    import numpy as np
    import torch

    from napari_cmunet.model.device import tune_malloc
    from napari_cmunet.model.predictor import Predictor
    from napari_cmunet.model.registry import load_model
    from napari_cmunet.synthetic import PhantomConfig, make_frame
    from napari_cmunet.training.config import FinetuneConfig
    from napari_cmunet.training.dataset import Label, prepare_labels
    from napari_cmunet.training.trainer import Trainer

    shown = [make_frame(PhantomConfig(seed=9000 + seed)) for seed in range(4)]
    frames = np.stack([frame for frame, _ in shown])
    device = torch.device("cpu")
    warm: dict[str, Any] = {}

    def predictor() -> Predictor:
        if "predictor" not in warm:
            warm["predictor"] = Predictor(load_model("cmunet-artery"), device)
            warm["predictor"].predict(frames[0])
        return warm["predictor"]

    def trainer() -> Trainer:
        if "trainer" not in warm:
            tune_malloc()
            model = load_model("cmunet-ssl")
            labels = [Label(*both, name=str(n)) for n, both in enumerate(shown)]
            # In earlier versions the card's was a dictionary.
            how = getattr(model, "preprocessing", model.card.preprocessing)
            prepared = prepare_labels(labels, how)
            warm["trainer"] = Trainer(
                model.network, prepared, None, FinetuneConfig(), device, 100
            )
            warm["trainer"].take_step()
        return warm["trainer"]

    def network() -> float:
        module, times = predictor()._network, []
        real = module.forward

        def timed(x: torch.Tensor) -> torch.Tensor:
            began = clock()
            made = real(x)
            times.append(clock() - began)
            return made

        module.forward = timed
        predictor().predict(frames[1])
        module.forward = real
        return times[0]

    def cine() -> None:
        list(predictor().predict_frames(np.tile(frames, (15, 1, 1))))

    runs = {
        "load and first frame": predictor,
        "frame of 512 x 512": lambda: predictor().predict(frames[1]),
        "cine of 60": cine,
        "training step of 8 views": lambda: trainer().take_step(),
    }
    for line in sys.stdin:
        task = line.strip()
        if task == "network of a frame":
            seconds = network()
        else:
            if task.startswith("training"):
                trainer()
            elif not task.startswith("load"):
                predictor()
            began = clock()
            runs[task]()
            seconds = clock() - began
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
