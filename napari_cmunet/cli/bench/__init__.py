"""``bench``: speed of this machine, compared with the published code."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.bench import measure
from napari_cmunet.cli.bench.measure import peak_memory, seconds
from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import CMUNetError
from napari_cmunet.model.registry import START_MODEL
from napari_cmunet.util.safe_files import write_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SIDES, CINE_FRAMES, CINE_SIDE = (256, 512, 1024), 60, 512
LABELS = (1, 5, 18, 50)


def run(args: argparse.Namespace) -> int:
    """Measure as the command line says; returns the exit code."""
    return bench(args.model, START_MODEL, args.device, args.minutes, args.json)


def bench(
    model: str,
    start: str,
    device: str,
    minutes: float,
    json: Path | None = None,
    *,
    sides: Sequence[int] = SIDES,
    labels: Sequence[int] = LABELS,
    cine_frames: int = CINE_FRAMES,
) -> int:
    """Measure, print a table, write the figures; returns the exit code.

    Parameters
    ----------
    model, start : str
        For prediction, and for fine-tuning to start from.
    minutes : float
        Budget of each training.
    json : Path, optional
        File for all figures.
    """
    print(
        "This takes some minutes. Close other programs: they would slow it down.",
        file=sys.stderr,
    )
    parts: list[tuple[str, Callable[..., Any], tuple]] = [
        ("machine", measure.machine, (device,)),
        *((f"frame of {n}", measure.frame, (n, model, device)) for n in sides),
        (
            f"cine of {cine_frames}",
            measure.cine,
            (cine_frames, CINE_SIDE, model, device),
        ),
        ("network at width 64", measure.network, (device,)),
        *(
            (
                f"{n} label{'s' * (n > 1)}",
                measure.fine_tuning,
                (n, start, device, minutes),
            )
            for n in labels
        ),
    ]
    figures: dict[str, Any] = {}
    progress = Progress(len(parts))
    for name, act, arguments in parts:
        progress.show(f"measuring {name}")
        try:
            figures[name] = alone(act, *arguments)
        except (CMUNetError, BrokenProcessPool, OSError) as exc:
            progress.failed += 1
            figures[name] = {"failed": str(exc)}
            progress.complain(f"{name}: {exc}")
        progress.advance()
    progress.clear()
    print("\n".join(_table(figures)))
    if json is not None:
        write_json(json, figures)
    return 1 if progress.failed else 0


def alone(act: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run in a process of its own: nothing is warm, and its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(with_memory, act, arguments).result()


def with_memory(act: Callable[..., Any], arguments: tuple) -> dict[str, Any]:
    """What ``act`` returns, and ``memory_gb``, above an idle process."""
    from napari_cmunet.model.device import import_torch

    import_torch()
    idle = peak_memory()
    figures = act(*arguments)
    peak = peak_memory()
    if idle is not None and peak is not None:
        figures["memory_gb"] = round(peak - idle, 3)
    return figures


def _table(figures: dict[str, Any]) -> Iterator[str]:
    machine = figures["machine"]
    if "failed" not in machine:
        yield (
            f"{machine['device']}, torch {machine['torch']}, {machine['precision']}: "
            f"{machine['limit_gflops']:.0f} GFLOP/s at most"
        )
    yield ""
    heads = ("", "first", "median", "published", "times faster", "memory")
    yield _row(*heads)
    for name, f in figures.items():
        if name == "machine":
            continue
        if "failed" in f:
            yield _row(name, "failed", "", "", "", "")
            continue
        memory = f"{f['memory_gb']:.2f} GB" if "memory_gb" in f else ""
        yield _row(name, *_cells(f), f"{f['times_faster']:.1f}", memory)
    yield ""
    yield (
        "labels: time until 99.5 % of the best validation Dice. Published: width 64 in "
        "eager float32, as the published code runs it; its cines and trainings are "
        "extrapolated from measured frames and steps."
    )


def _cells(f: dict[str, Any]) -> tuple[str, str, str]:
    if "labels" in f:
        return "", seconds(f["seconds_to_99.5%"]), seconds(f["paper_s"])
    if "frames" in f:
        return seconds(f["first_s"]), seconds(f["all_s"]), seconds(f["paper_s"])
    first = seconds(f["first_s"]) if "first_s" in f else ""
    ours = f.get("warm") or f["ours"]
    return first, seconds(ours["median"]), seconds(f["paper"]["median"])


def _row(name: str, *cells: str) -> str:
    return f"{name:<20}" + "".join(f"{cell:>14}" for cell in cells)
