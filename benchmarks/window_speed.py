"""How fast the panel opens and how smooth the window is while images are corrected.

usage: xvfb-run -a python -m benchmarks.window_speed

Prints JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BEAT_MS, PATIENCE_SECONDS = 10, 120
GAP_MS = 50
"""A longer time between two beats is felt."""


def panel_times() -> dict[str, Any]:
    """Open a window and the panel in it, once, as at the first click of a session.

    Returns
    -------
    dict
        ``import_s``: what importing the panel adds to napari's own import;
        ``open_s``: from the click to the panel, docked and drawn. Without a display
        only ``why`` there are none.
    """
    if why := _why_no_window():
        return {"why": why}
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    QApplication.processEvents()
    began = time.perf_counter()
    # The panel's own module is imported with it: that is part of the first click.
    viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    QApplication.processEvents()
    opened = time.perf_counter() - began
    viewer.close()
    return {"open_s": opened, "import_s": _import_seconds()}


def reading_times(
    side: int = 512, labels: int = 5, training_seconds: float = 20.0
) -> dict[str, Any]:
    """Read some phantoms in a window: strokes, accept, next; then during a training.

    Parameters
    ----------
    side : int
        Of the phantoms, pixels.
    labels : int
        How many are accepted.
    training_seconds : float
        How long the window is watched while a training runs beside it.

    Returns
    -------
    dict
        ``accept_s``: median time from the key to the label on the disk.
        ``alone``, ``image_state``, ``training``: times between two beats of a timer in
        the window's thread that is to fire every 10 ms, see :func:`figures_of`:
        painting in napari without this program, in the loop, and while a training
        runs beside it. Without a display only ``why`` there are none.
    """
    if why := _why_no_window():
        return {"why": why}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        folder = Path(home) / "phantoms"
        _draw_phantoms(folder, labels + 1, side)
        before = os.environ.get("NAPARI_CMUNET_HOME")
        os.environ["NAPARI_CMUNET_HOME"] = str(Path(home) / "home")
        try:
            return _read_all(
                folder, Path(home) / "project", side, labels, training_seconds
            )
        finally:
            os.environ.pop("NAPARI_CMUNET_HOME")
            if before is not None:
                os.environ["NAPARI_CMUNET_HOME"] = before


def figures_of(gaps: Iterable[float]) -> dict[str, float]:
    """Times between beats in ms: median, 99th percentile, longest, share over 50."""
    gaps = np.asarray(list(gaps))
    return {
        "beats": len(gaps),
        "median_ms": round(float(np.median(gaps)), 1),
        "p99_ms": round(float(np.percentile(gaps, 99)), 1),
        "longest_ms": round(float(gaps.max()), 1),
        f"share_over_{GAP_MS}_ms": round(float((gaps > GAP_MS).mean()), 4),
    }


class _Pulse:
    """Beats of the window's thread, sorted by what was done meanwhile."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: dict[str, list[float]] = {}
        self.doing = ""
        self._last = 0.0
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)

    def _beat(self) -> None:
        now = time.perf_counter()
        if self.doing:
            self.gaps.setdefault(self.doing, []).append((now - self._last) * 1000)
        self._last = now

    def watch(self, doing: str) -> None:
        """From now on; an empty name: not at all."""
        self.doing = doing
        self._last = time.perf_counter()
        self._timer.start(BEAT_MS) if doing else self._timer.stop()


def _read_all(
    folder: Path, project: Path, side: int, labels: int, training_seconds: float
) -> dict[str, Any]:
    import napari

    from napari_cmunet.gui.project.workspace import NewProject

    viewer = napari.Viewer(show=True)
    pulse = _Pulse()
    plain = viewer.add_labels(np.zeros((side, side), np.uint8))
    _wait_seconds(1.0)
    pulse.watch("alone")
    for number in range(3):
        _paint(plain, number)
    pulse.watch("")
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    reader = panel.project
    reader.create(NewProject(project, (folder,)))

    def usable() -> bool:
        return reader.navigator.current is not None and not reader.annotation.why_not()

    accepted: list[float] = []
    _wait(usable, "the first image")
    _wait_seconds(2.0)  # napari draws its first mask: once, and not of the loop
    for number in range(labels):
        pulse.watch("reading")
        opened = reader.navigator.current
        _paint(opened.image_state.mask, number)
        began = time.perf_counter()
        reader.annotation.accept()
        _wait(lambda: reader.workspace.writer.idle, "the label on the disk")
        accepted.append(time.perf_counter() - began)
        reader.navigator.next()
        _wait(lambda o=opened: reader.navigator.current is not o, "the next image")
        _wait(usable, "its mask")
    pulse.watch("")
    training = reader.training.session
    training.start()
    pulse.watch("training")
    end, number = time.monotonic() + training_seconds, 0
    while training.running and time.monotonic() < end:
        _paint(reader.navigator.current.image_state.mask, number)
        _wait_seconds(0.2)
        number += 1
    pulse.watch("")
    training.cancel()
    _wait(lambda: not training.running, "the end of the training")
    viewer.close()
    return {
        "side": side,
        "labels": labels,
        "accept_s": statistics.median(accepted),
        **{name: figures_of(gaps) for name, gaps in pulse.gaps.items()},
    }


def _draw_phantoms(folder: Path, count: int, side: int) -> None:
    from napari_cmunet.synthetic import PhantomConfig, make_frame

    folder.mkdir()
    for number in range(count):
        frame, _ = make_frame(PhantomConfig(frames=1, size=side, seed=number + 1))
        np.save(folder / f"phantom_{number:02d}.npy", frame)


def _paint(mask, number: int) -> None:
    """A stroke along a curve, as a hand would make it."""
    side = mask.data.shape[-1]
    rng = np.random.default_rng(number)
    at, heading = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0, 2 * np.pi)
    with mask.block_history():
        for _ in range(25):
            heading += rng.normal(0, 0.2)
            at = at + 3 * np.array([np.sin(heading), np.cos(heading)])
            mask.paint(tuple(float(p) for p in np.clip(at, 0, side - 1)), 1)
            _turn()


def _turn() -> None:
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    flag = QEventLoop.ProcessEventsFlag.WaitForMoreEvents
    QApplication.instance().processEvents(flag, BEAT_MS)


def _wait(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come in {PATIENCE_SECONDS} s")
        _turn()


def _wait_seconds(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _turn()


def _why_no_window() -> str:
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return "no display" if sys.platform.startswith("linux") and not shown else ""


def _import_seconds() -> float:
    """Of the panel, in a fresh process that has napari's window code already."""
    import subprocess

    code = (
        "import time, napari, napari.qt, napari._qt.qt_main_window; "
        "t = time.perf_counter(); import napari_cmunet.gui.panel; "
        "print(time.perf_counter() - t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    from napari_cmunet.cli.bench import alone

    parts = {"panel": panel_times, "reading": reading_times}
    print(json.dumps({name: alone(part) for name, part in parts.items()}, indent=1))
