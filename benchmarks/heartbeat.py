"""Does the window stay fluid? A whole loop in a real window, with a pulse every 10 ms.

A timer of the window's own thread is to fire every 10 ms while images of a project are
predicted, painted in, accepted and changed for the next. What is printed is the time
between two beats: what a hand on the mouse would feel. First, for comparison, the same
strokes in a window of napari alone: where OpenGL is drawn by the processor, as under
Xvfb, drawing the window is what takes the time. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.heartbeat --images 10
    python -m benchmarks.heartbeat FOLDER --finetune 5
    python -m benchmarks.heartbeat FOLDER --beside "napari-cmunet finetune PROJECT"

The second form takes real angiograms and fine-tunes meanwhile, by the panel's own
trainer; the third lets a command run beside the loop. ``--causes`` says what the thread
was at when a beat was late. With ``--finetune`` the share of its time is printed that
the training was paused; ``--think 7`` has strokes as far apart as a reader's, see
simulated_reader.

Beside the time between two beats, which other programs lengthen, stands the time that
this thread itself has worked between them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

BEAT_MS = 10
AIM_MS, FELT_MS, LIMIT_MS = 50, 100, 200
PATIENCE_SECONDS = 1200
FINETUNE_AFTER = 3
"""Acceptances before the fine-tuning begins."""
_ALONE, _THINKING = "napari alone", "thinking"
_NOT_MEASURED = "not measured"

Step = Iterator[str]
"""A piece of the loop: yields the name of what it does, again and again, till done."""


@dataclass
class Gaps:
    """Times between beats and times worked, in ms, and what was done meanwhile."""

    all: list[float] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)
    doing: list[str] = field(default_factory=list)

    def add(self, gap: float, worked: float, doing: str) -> None:
        self.all.append(gap)
        self.worked.append(worked)
        self.doing.append(doing)

    def report(self) -> dict:
        """Distribution, overall and for each step."""
        names = [_ALONE, "all", *dict.fromkeys(d for d in self.doing if d != _ALONE)]
        return {name: self._figures(name) for name in names}

    def _figures(self, name: str) -> dict:
        doing = np.array(self.doing)
        these = doing != _ALONE if name == "all" else doing == name
        return _figures(np.array(self.all)[these], np.array(self.worked)[these])


def _figures(gaps: np.ndarray, worked: np.ndarray) -> dict:
    return {
        "beats": len(gaps),
        "median": round(float(np.median(gaps)), 1),
        "p99": round(float(np.percentile(gaps, 99)), 1),
        "longest": round(float(gaps.max()), 1),
        f"share_over_{AIM_MS}": round(float((gaps > AIM_MS).mean()), 5),
        f"share_over_{FELT_MS}": round(float((gaps > FELT_MS).mean()), 5),
        f"over_{LIMIT_MS}": int((gaps > LIMIT_MS).sum()),
        "worked_p99": round(float(np.percentile(worked, 99)), 1),
        "worked_most": round(float(worked.max()), 1),
    }


class Causes:
    """Looks what a thread is at whenever its beat is late."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seen: Counter[str] = Counter()
        self._thread = threading.get_ident()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(BEAT_MS / 1000)
            if (time.perf_counter() - self.last) * 1000 > AIM_MS:
                self.seen[self._at()] += 1

    def _at(self) -> str:
        frame, lines = sys._current_frames().get(self._thread), []
        while frame is not None:
            code = frame.f_code
            lines.append(f"{Path(code.co_filename).stem}.{code.co_name}")
            frame = frame.f_back
        return " < ".join(lines[:7])


def main() -> int:
    """Run the loop and print the gaps; 1 if the aim was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="angiograms; else phantoms"
    )
    parser.add_argument("--images", type=int, default=10, help="how many to accept")
    parser.add_argument("--size", type=int, default=512, help="of a phantom, pixels")
    parser.add_argument("--window", default="1440x900", help="its size, pixels")
    parser.add_argument("--beside", help="a command that runs beside the loop")
    parser.add_argument("--finetune", type=float, metavar="MINUTES")
    parser.add_argument("--cancel", action="store_true", help="it after the images")
    parser.add_argument("--think", type=float, default=0.1, help="s between strokes")
    parser.add_argument("--causes", action="store_true", help="of late beats")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ["NAPARI_CMUNET_HOME"] = home
        folder = options.folder or _phantoms(Path(home), options)
        beside = _start(options.beside)
        try:
            width, _, height = options.window.partition("x")
            window = (int(width), int(height))
            project = Path(home) / "project"
            gaps, causes = _run(folder, project, options, window)
        finally:
            if beside is not None:
                beside.terminate()
                beside.wait()
    report = gaps.report()
    _print(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.causes:
        print("At late beats, the innermost function first:")
        for at, count in causes.seen.most_common(12):
            print(f"{count:5}  {at}")
    whole = report["all"]
    good = whole[f"share_over_{AIM_MS}"] <= 0.01 and not whole[f"over_{LIMIT_MS}"]
    print("The aim is met." if good else "The aim is missed.")
    return 0 if good else 1


def _phantoms(home: Path, options: argparse.Namespace) -> Path:
    from napari_cmunet.synthetic import PhantomConfig, make_frame

    folder = home / "phantoms"
    folder.mkdir()
    for number in range(options.images + 1):
        frame, _ = make_frame(PhantomConfig(size=options.size, seed=number + 1))
        np.save(folder / f"phantom_{number:03d}.npy", frame)
    return folder


def _start(command: str | None) -> subprocess.Popen | None:
    if not command:
        return None
    out = subprocess.DEVNULL
    return subprocess.Popen(shlex.split(command), stdout=out, stderr=out)


def _run(
    folder: Path, project: Path, options: argparse.Namespace, window: tuple[int, int]
) -> tuple[Gaps, Causes]:
    import napari
    from qtpy.QtCore import QEventLoop, Qt, QTimer
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(title="heartbeat")
    viewer.window.resize(*window)
    app = QApplication.instance()
    gaps, causes, doing = Gaps(), Causes(), "opening"
    last, worked = time.perf_counter(), time.thread_time()

    def beat() -> None:
        nonlocal last, worked
        now, work = time.perf_counter(), time.thread_time()
        gaps.add((now - last) * 1000, (work - worked) * 1000, doing)
        last, worked, causes.last = now, work, now

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(beat)
    steps = itertools.chain(
        _napari_alone(viewer, options.size), _loop(viewer, folder, project, options)
    )
    wait = QEventLoop.ProcessEventsFlag.WaitForMoreEvents
    with contextlib.suppress(StopIteration):
        while True:
            doing = next(steps)
            if doing == _NOT_MEASURED:
                timer.stop()
                causes.last = time.perf_counter()
            elif not timer.isActive():
                last, worked = time.perf_counter(), time.thread_time()
                timer.start(BEAT_MS)
            app.processEvents(wait, BEAT_MS)
    timer.stop()
    viewer.close()
    return gaps, causes


def _napari_alone(viewer, size: int) -> Step:
    """The same strokes without this program."""
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (size, size), np.uint8))
    mask = viewer.add_labels(np.zeros((size, size), np.uint8))
    mask.brush_size = max(2, size // 75)
    yield from _pause(_NOT_MEASURED, 2.0)
    for number in range(6):
        yield from _paint(viewer, mask, number, _ALONE, 0.1)
    viewer.layers.clear()


def _loop(viewer, folder: Path, project: Path, options: argparse.Namespace) -> Step:
    """The loop of a reader."""
    from napari_cmunet.gui.project.workspace import NewProject

    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    reader = panel.project
    reader.create(NewProject(project, (folder,)))
    # torch is imported, and napari draws its first mask: once, and not of the loop.
    yield from _until(_NOT_MEASURED, lambda: _usable(reader))
    yield from _pause(_NOT_MEASURED, 2.0)
    training = reader.training.session

    def now(doing: str) -> str:
        return f"{doing}, training" if training.running else doing

    for number in range(options.images):
        if options.finetune and number == FINETUNE_AFTER:
            reader.project.change_settings(minutes=options.finetune)
            training.start()
        yield from _until(now("predicting"), lambda: _usable(reader))
        mask = reader.navigator.current.image_state.mask
        think = options.think if training.running else 0.1
        yield from _paint(viewer, mask, number, now("painting"), think)
        reader.annotation.accept()
        yield from _until(now("accepting"), lambda: reader.workspace.writer.idle)
        yield from _pause(now("accepting"), 0.2)
        if reader.project.next_image() is None:
            break
        before = reader.navigator.current
        reader.navigator.next()
        yield from _until(
            now("next"), lambda b=before: reader.navigator.current is not b
        )
        yield from _pause(now("next"), 0.3)
    if options.cancel and training.running:
        share = training._run.process.paused_share
        print(f"The training was paused for {100 * share:.1f} % of its time.")
        training.cancel()
    yield from _until("the rest of it, training", lambda: not training.running)
    if options.cancel:
        return
    yield from _pause("verdict", 1.0)
    reader.use_current_model()
    yield from _pause("another model", 2.0)
    yield from _until("another model", lambda: not panel.controller.queue.running)


def _usable(reader) -> bool:
    opened = reader.navigator.current
    return opened is not None and not reader.annotation.why_not()


def _paint(viewer, mask, number: int, doing: str, think: float) -> Step:
    """Strokes along curves with the mouse, as a hand would make them."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication, QOpenGLWidget

    canvas = viewer.window._qt_window.findChildren(QOpenGLWidget)[0]
    none, left = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton

    def send(kind, place, button, held) -> None:
        camera = viewer.scene.camera
        zoom, centre = camera.zoom, np.array(camera.center[-2:])
        row, column = zoom * (place - centre)
        point = QPointF(canvas.width() / 2 + column, canvas.height() / 2 + row)
        spot = QPointF(canvas.mapToGlobal(point.toPoint()))
        event = QMouseEvent(
            kind, point, spot, button, held, Qt.KeyboardModifier.NoModifier
        )
        QApplication.sendEvent(canvas, event)

    side = min(mask.data.shape[-2:])
    rng = np.random.default_rng(number)
    viewer.layers.selection.active = mask
    for stroke in range(4):
        at, heading = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0, 2 * np.pi)
        mask.mode = "erase" if stroke % 2 else "paint"
        send(QEvent.Type.MouseMove, at, none, none)
        send(QEvent.Type.MouseButtonPress, at, left, left)
        for _ in range(25):
            heading += rng.normal(0, 0.2)
            at = at + 3 * np.array([np.sin(heading), np.cos(heading)])
            at = np.clip(at, 0, side - 1)
            send(QEvent.Type.MouseMove, at, none, left)
            yield doing
        send(QEvent.Type.MouseButtonRelease, at, left, none)
        yield from _pause(doing if think < 1 else _THINKING, think)


def _pause(doing: str, seconds: float) -> Step:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield doing


def _until(doing: str, done) -> Step:
    end = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            sys.exit(f"Nothing came of {doing} in {PATIENCE_SECONDS} s.")
        yield doing


def _print(report: dict) -> None:
    columns = list(next(iter(report.values())))
    print(f"Time between beats in ms, of {BEAT_MS} ms each:")
    print(f"{'':26}" + "".join(f"{c:>15}" for c in columns))
    for name, figures in report.items():
        print(f"{name:26}" + "".join(f"{figures[c]:>15}" for c in columns))


if __name__ == "__main__":
    sys.exit(main())
