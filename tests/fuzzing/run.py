"""Fuzzing: a worker that reads, and a parent that sees it hang or die."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from napari_cmunet.errors import CMUNetError
from tests.fuzzing import targets
from tests.fuzzing.watch import Clock, Memory, Watch, cap_memory

MOST_SECONDS = 5.0
_PATIENCE = 4 * MOST_SECONDS  # the parent's: other programs may keep the machine busy
_START = 180.0
_KEPT_FAULTS = 40
_TELL_EVERY = 100
# What allocators, threads and a stack may reserve without ever using it.
_RESERVE = 256 * targets.MEGABYTE


@dataclass
class Outcome:
    """What came of the inputs of one reader."""

    reader: str
    seed: int
    inputs: int = 0
    read: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    faults: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    most_bytes: int = 0
    limit_bytes: int = 0

    def row(self) -> str:
        """One line of the table."""
        return (
            f"| {self.reader} | {self.inputs:,} | {self.read:,} | "
            f"{sum(self.refused.values()):,} | {len(self.faults)} | "
            f"{1000 * self.seconds / max(1, self.inputs):.1f} ms | "
            f"{self.slowest_seconds:.2f} s | {self.most_bytes / 2**20:.0f} of "
            f"{2 * self.limit_bytes / 2**20:.0f} MB |"
        )


HEADER = (
    "| reader | inputs | read | refused | faults | each | slowest | most memory |\n"
    "|---|---|---|---|---|---|---|---|"
)


def fuzz(
    reader: str,
    inputs: int,
    seed: int,
    keep: Path | None = None,
    minutes: float = float("inf"),
) -> Outcome:
    """Give a reader that many inputs, in a process of its own.

    Parameters
    ----------
    reader : str
        See :data:`tests.fuzzing.targets.NAMES`.
    inputs, seed : int
    keep : Path, optional
        A folder for the inputs that showed a fault.
    minutes : float
        No further input after that.
    """
    total = Outcome(reader, seed)
    begin = 0
    until = time.monotonic() + 60 * minutes
    while begin < inputs and len(total.faults) < _KEPT_FAULTS:
        if time.monotonic() > until:
            break
        begin = _run_worker(total, begin, inputs, keep, until)
    return total


def _run_worker(
    total: Outcome, begin: int, end: int, keep: Path | None, until: float
) -> int:
    """Go on from an input; returns where to go on after the worker has ended."""
    with tempfile.TemporaryDirectory(dir=_memory_disk()) as folder:
        command = [
            sys.executable,
            "-B",
            "-m",
            "tests.fuzzing.run",
            total.reader,
            folder,
        ]
        command += [str(total.seed), str(begin), str(end), str(keep or "")]
        root = Path(__file__).parents[2]
        errors = Path(folder, "stderr")
        with errors.open("wb") as sink:
            worker = subprocess.Popen(
                command, cwd=root, stdout=subprocess.PIPE, stderr=sink, text=True
            )
        life = _Life(worker)
        at = begin - 1
        for line in worker.stdout or ():
            life.sign()
            said = json.loads(line)
            if "at" in said:
                at = said["at"]
                if time.monotonic() > until:
                    worker.kill()
                    life.end()
                    return end
            elif "fault" in said:
                total.faults.append(said["fault"])
            else:
                _add(total, said)
        code = worker.wait()
        life.end()
        if code == 0:
            return end
        last = errors.read_text("utf-8", "replace")[-2000:]
        if at < begin:
            raise RuntimeError(f"the worker for {total.reader} did not start: {last}")
        what = "hung" if life.killed else f"died ({code}): {last}"
        fault = {"input": at, "what": what}
        total.faults.append(fault)
        _keep(keep, total.reader, Path(folder), fault)
        return at + 1


class _Life:
    """Kills a worker of which nothing is heard for too long."""

    def __init__(self, worker: subprocess.Popen[str]) -> None:
        self.killed = False
        self._worker, self._last, self._patience = worker, time.monotonic(), _START
        threading.Thread(target=self._look, daemon=True).start()

    def sign(self) -> None:
        self._last, self._patience = time.monotonic(), _PATIENCE

    def end(self) -> None:
        self._patience = float("inf")

    def _look(self) -> None:
        while self._worker.poll() is None:
            if time.monotonic() - self._last > self._patience:
                self.killed = True
                self._worker.kill()
            time.sleep(0.2)


def _add(total: Outcome, said: dict) -> None:
    total.inputs += said["inputs"]
    total.read += said["read"]
    for kind, count in said["refused"].items():
        total.refused[kind] = total.refused.get(kind, 0) + count
    total.seconds += said["seconds"]
    total.slowest_seconds = max(total.slowest_seconds, said["slowest_seconds"])
    total.most_bytes = max(total.most_bytes, said["most_bytes"])
    total.limit_bytes = said["limit_bytes"]


def _keep(keep: Path | None, reader: str, folder: Path, fault: dict) -> None:
    if keep is not None:
        target = keep / f"{reader}-{fault['input']}"
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True)


def _memory_disk() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def work(
    reader: str, folder: Path, seed: int, begin: int, end: int, keep: Path | None
) -> None:
    """Read inputs one by one and say on stdout what came of them."""
    result = Outcome(reader, seed)
    watch, memory = Watch(folder), Memory()
    target = targets.make(reader, folder)
    result.limit_bytes = target.limit
    _warm_up(target, reader, seed)
    cap_memory(2 * target.limit + _RESERVE)
    there = set(folder.iterdir())
    for number in range(begin, end):
        print(json.dumps({"at": number}), flush=True)
        target.write(random.Random(f"{seed} {reader} {number}"))
        memory.begin()
        clock = Clock()
        what = _one(target, watch, result)
        seconds, grown = clock.seconds(), memory.grown()
        if clock.busy() > MOST_SECONDS or seconds > _PATIENCE / 2:
            what = what or f"took {seconds:.1f} s"
        if grown > 2 * target.limit:
            what = what or f"took {grown / 2**20:.0f} MB"
        if watch.seen:
            what = what or "; ".join(watch.seen)
        stray = {p.name for p in set(folder.iterdir()) - there} - _expected(target)
        if stray or Path("canary").exists():
            what = what or f"left behind {sorted(stray) or 'canary'}"
        if what:
            _keep_inputs(keep, reader, number, target)
            print(json.dumps({"fault": {"input": number, "what": what}}), flush=True)
            watch.seen.clear()
        result.inputs += 1
        result.seconds += seconds
        result.slowest_seconds = max(result.slowest_seconds, seconds)
        result.most_bytes = max(result.most_bytes, grown)
        if result.inputs == _TELL_EVERY or number == end - 1:
            print(json.dumps(asdict(result)), flush=True)
            result = Outcome(reader, seed, limit_bytes=target.limit)


def _keep_inputs(
    keep: Path | None, reader: str, number: int, target: targets.Target
) -> None:
    if keep is not None:
        there = keep / f"{reader}-{number}"
        there.mkdir(parents=True, exist_ok=True)
        for path in target.paths():
            with contextlib.suppress(OSError):
                shutil.copy(path, there)


def _warm_up(target: targets.Target, reader: str, seed: int) -> None:
    """Let what is imported at first use be imported, before memory is counted."""
    for number in range(5):
        target.write(random.Random(f"{seed} {reader} warm {number}"))
        with contextlib.suppress(Exception):
            target.read()


def _one(target: targets.Target, watch: Watch, result: Outcome) -> str:
    """Read one input; returns what is wrong with how it was read."""
    watch.active = True
    try:
        target.read()
    except CMUNetError as error:
        text = str(error)
        kind = type(error).__name__
        result.refused[kind] = result.refused.get(kind, 0) + 1
        if isinstance(error.__cause__, MemoryError):
            return f"memory was asked for before the limit was: {text}"
        if "\n" in text or len(text) > 2000:
            return f"no one-line message: {text[:300]!r}"
    except BaseException:  # noqa: BLE001
        return traceback.format_exc(limit=-6)
    else:
        result.read += 1
    finally:
        watch.active = False
    return ""


def _expected(target: targets.Target) -> set[str]:
    names = {"home", "project", "out", "whole", "model", "stderr"}
    return names | {path.name for path in target.paths()}


if __name__ == "__main__":
    _, _reader, _folder, *_numbers, _there = sys.argv
    work(_reader, Path(_folder), *map(int, _numbers), Path(_there) if _there else None)
