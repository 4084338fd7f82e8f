r"""Random walks in a real window: whatever is done in whatever order, nothing breaks.

A walk opens, closes, chooses, switches frames, takes tools, draws, undoes, renames,
deletes, docks, resizes and plays, in an order drawn at random. It fails on an exception
anywhere, on a crash, and on a correction of a frame that is not shown. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" \
        python -m tests.endurance.random_walks --walks 40 --acts 200
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How often each act is done, relative to the others.
WEIGHTS = {
    "open_file": 4,
    "open_project": 3,
    "close_project": 1,
    "next_image": 6,
    "previous_image": 2,
    "list_image": 3,
    "accept": 6,
    "take_back": 2,
    "skip": 1,
    "choose_image": 5,
    "select_layer": 3,
    "frame": 10,
    "tool": 6,
    "mode": 4,
    "key": 6,
    "stroke": 14,
    "click": 4,
    "undo": 8,
    "redo": 4,
    "threshold": 4,
    "reset": 2,
    "rename": 2,
    "delete": 3,
    "delete_all": 1,
    "again": 1,
    "hide": 3,
    "reorder": 1,
    "dock": 1,
    "redock": 1,
    "resize": 2,
    "play": 2,
    "area": 2,
    "alert": 3,
    "wait": 4,
}
#: These may correct frames that are not shown.
EVERYWHERE = {"delete", "delete_all", "again", "redock", "open_project"}
KEYS = "12345678EPTGHUQCFVYXR,."


class Walk:
    """One random walk.

    Parameters
    ----------
    viewer : napari.Viewer
    panel : CMUNetPanel
    folder : Path
        Holds ``files`` to open and a ``project``.
    seed : int
    log : callable
        Given each act before it is done.
    """

    def __init__(
        self,
        viewer: Any,
        panel: Any,
        folder: Path,
        seed: int,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.viewer, self.panel, self.folder = viewer, panel, folder
        self.random = random.Random(seed)
        self.log = log
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        self._seen: set[tuple[int, int]] = set()

    def run(self, acts: int) -> list[str]:
        """Do so many acts; return what went wrong."""
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        self.viewer.dims.events.current_step.connect(self._on_frame)
        for number in range(acts):
            name = self.random.choices(names, weights)[0]
            before, self._seen = self._corrected(), self._shown()
            self.log(f"{number} {name}")
            self.counts[name] = self.counts.get(name, 0) + 1
            try:
                getattr(self, f"_{name}")()
                self._live(0.02)
            except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                self.problems.append(f"{number} {name}: {traceback.format_exc()}")
            if name not in EVERYWHERE:
                self._compare(f"{number} {name}", before, self._seen | self._shown())
        self.viewer.dims.events.current_step.disconnect(self._on_frame)
        self._live(0.5)
        return self.problems

    # -- what must hold -------------------------------------------------------

    @property
    def _states(self) -> list[Any]:
        return self.panel.controller.image_states

    def _shown(self) -> set[tuple[int, int]]:
        present = self.viewer.layers
        return {
            (id(state), self.panel.controller.shown(state))
            for state in self._states
            if state.mask in present and (state.mask.visible or state.image.visible)
        }

    def _on_frame(self, event: Any) -> None:
        # A playing cine shows several frames during one act.
        self._seen |= self._shown()

    def _corrected(self) -> dict[tuple[int, int], tuple[Any, bool, int]]:
        """Corrected frames of every mask, with their predictions and pixels."""
        return {
            (id(state), frame): (
                state.mask,
                bool(state.predicted[frame]),
                zlib.crc32(np.ascontiguousarray(state.mask_frame(frame)))
                if state.is_corrected(frame)
                else 0,
            )
            for state in self._states
            if state.usable_mask
            for frame in range(state.count)
        }

    def _compare(self, act: str, before: dict, shown: set) -> None:
        for key, (mask, predicted, pixels) in self._corrected().items():
            known = before.get(key)
            if key in shown or known is None or known[:2] != (mask, predicted):
                continue
            if known[2] != pixels:
                text = f"{act}: frame {key[1]} was corrected while it was not shown"
                self.problems.append(text)

    # -- time -----------------------------------------------------------------

    def _live(self, seconds: float) -> None:
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while True:
            QApplication.processEvents()
            if time.monotonic() > end:
                return
            time.sleep(0.002)

    def _wait(self) -> None:
        self._live(self.random.choice((0.05, 0.3, 1.0)))

    # -- images and projects --------------------------------------------------

    def _open_file(self) -> None:
        from napari_cmunet.reader import read_layers

        path = self.random.choice(sorted((self.folder / "files").iterdir()))
        for data, options, _ in read_layers(str(path)):
            self.viewer.add_image(data, **options)

    def _open_project(self) -> None:
        self.panel.project.open(self.folder / "project")

    def _close_project(self) -> None:
        self.panel.project.close()

    @property
    def _page(self) -> Any:
        return self.panel.project_section.page

    def _next_image(self) -> None:
        self._press(self._page.next)

    def _previous_image(self) -> None:
        self._press(self._page.previous)

    def _accept(self) -> None:
        self._press(self._page.accept)

    def _take_back(self) -> None:
        self._press(self._page.back)

    def _skip(self) -> None:
        self._press(self.random.choice((self._page.skip, self._page.flag)))

    def _list_image(self) -> None:
        project = self.panel.project
        if project.project is not None and project.overview.ids:
            project.navigator.go(self.random.choice(project.overview.ids))

    def _alert(self) -> None:
        alert = self.panel.project.messages.alert
        if alert is not None and alert.actions:
            action = self.random.choice(alert.actions)
            if "…" not in action.text:  # a dialog
                action.act()

    def _choose_image(self) -> None:
        box = self.panel.image
        if box.count():
            index = self.random.randrange(box.count())
            box.setCurrentIndex(index)
            box.activated.emit(index)

    # -- the viewer -----------------------------------------------------------

    def _some_layer(self) -> Any:
        layers = list(self.viewer.layers)
        return self.random.choice(layers) if layers else None

    def _select_layer(self) -> None:
        layer = self._some_layer()
        if layer is not None:
            self.viewer.layers.selection.active = layer

    def _frame(self) -> None:
        dims = self.viewer.dims
        if dims.ndim > 2:
            dims.set_current_step(0, self.random.randrange(int(dims.nsteps[0]) or 1))

    def _rename(self) -> None:
        layer = self._some_layer()
        if layer is not None:
            layer.name = self.random.choice(("mask", "a", "image", "prediction"))

    def _delete(self) -> None:
        layer = self._some_layer()
        if layer is not None:
            self.viewer.layers.remove(layer)

    def _delete_all(self) -> None:
        self.viewer.layers.clear()

    def _hide(self) -> None:
        layer = self._some_layer()
        if layer is not None:
            layer.visible = not layer.visible

    def _reorder(self) -> None:
        count = len(self.viewer.layers)
        if count > 1:
            self.viewer.layers.move(
                self.random.randrange(count), self.random.randrange(count)
            )

    def _play(self) -> None:
        dims = self.viewer.window._qt_viewer.dims
        if self.viewer.dims.ndim > 2:
            if dims.is_playing:
                dims.stop()
            else:
                dims.play(0, self.random.choice((10, 30)))
                self._live(0.2)

    def _resize(self) -> None:
        self.viewer.window.resize(
            self.random.randint(700, 1500), self.random.randint(500, 950)
        )

    def _dock(self) -> None:
        dock = self.panel.parentWidget()
        if dock is not None and hasattr(dock, "setFloating"):
            dock.setFloating(not dock.isFloating())

    def _redock(self) -> None:
        window = self.viewer.window
        for name in list(window.dock_widgets):
            if "CM-UNet" in name:
                window.remove_dock_widget(window.dock_widgets[name])
        self._live(0.05)
        _, self.panel = window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")

    # -- tools ----------------------------------------------------------------

    def _press(self, button: Any) -> None:
        if button.isEnabled() and button.isVisible():
            button.click()

    def _buttons(self, widget: Any) -> Iterator[Any]:
        from qtpy.QtWidgets import QPushButton

        return (b for b in widget.findChildren(QPushButton) if b.isEnabled())

    def _tool(self) -> None:
        widget = self.random.choice((self.panel.tools, self.panel.vessels))
        buttons = [b for b in self._buttons(widget) if b.menu() is None]
        if buttons:
            self._press(self.random.choice(buttons))

    def _mode(self) -> None:
        layer = self.viewer.layers.selection.active
        if layer is not None and hasattr(layer, "brush_size"):
            layer.mode = self.random.choice(("paint", "erase", "pan_zoom", "fill"))
            layer.brush_size = self.random.randint(1, 9)

    def _area(self) -> None:
        page = self._page
        self._press(self.random.choice((page.box, page.lasso, page.looked, page.whole)))

    @property
    def _canvas(self) -> Any:
        from qtpy.QtWidgets import QOpenGLWidget

        return self.viewer.window._qt_window.findChildren(QOpenGLWidget)[0]

    def _key(self) -> None:
        from qtpy.QtTest import QTest

        QTest.keyClick(self._canvas, self.random.choice(KEYS))

    def _with_control(self, shift: bool = False) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        keys = Qt.KeyboardModifier.ControlModifier
        if shift:
            keys |= Qt.KeyboardModifier.ShiftModifier
        QTest.keyClick(self._canvas, Qt.Key.Key_Z, keys)

    def _undo(self) -> None:
        if self.random.random() < 0.5:
            self._with_control()
        else:
            self._press(self.panel.undo)

    def _redo(self) -> None:
        if self.random.random() < 0.5:
            self._with_control(shift=True)
        else:
            self._press(self.panel.redo)

    def _stroke(self) -> None:
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        canvas, none = self._canvas, Qt.MouseButton.NoButton
        if canvas.size().isEmpty():
            return  # no hand can reach it
        left = Qt.MouseButton.LeftButton
        place = [self.random.randrange(max(1, canvas.width())), 0]
        place[1] = self.random.randrange(max(1, canvas.height()))

        def send(kind: Any, button: Any, held: Any) -> None:
            point = QPointF(*map(float, place))
            spot = QPointF(canvas.mapToGlobal(point.toPoint()))
            keys = Qt.KeyboardModifier.NoModifier
            QApplication.sendEvent(
                canvas, QMouseEvent(kind, point, spot, button, held, keys)
            )
            self._live(0.012)

        send(QEvent.Type.MouseMove, none, none)
        send(QEvent.Type.MouseButtonPress, left, left)
        for _ in range(4):
            place[0] += self.random.randint(-40, 40)
            place[1] += self.random.randint(-40, 40)
            send(QEvent.Type.MouseMove, none, left)
        send(QEvent.Type.MouseButtonRelease, left, none)

    def _click(self) -> None:
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        canvas = self._canvas
        if canvas.size().isEmpty():
            return
        spot = QPoint(
            self.random.randrange(max(1, canvas.width())),
            self.random.randrange(max(1, canvas.height())),
        )
        QTest.mouseClick(
            canvas,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            spot,
        )

    def _threshold(self) -> None:
        controller = self.panel.controller
        if controller.active is not None and self.panel.threshold.isEnabled():
            controller.editor.move_threshold(self.random.uniform(0.1, 0.9))

    def _reset(self) -> None:
        self._press(self.panel.reset)

    def _again(self) -> None:
        self._press(self.panel.again)


def make_files(folder: Path) -> None:
    """Write images of several kinds, and a project of four of them."""
    import tifffile
    from PIL import Image

    from napari_cmunet.project.project import Project

    pixels = np.random.default_rng(0)
    files, pictures = folder / "files", folder / "pictures"
    files.mkdir()
    pictures.mkdir()
    for number, size in enumerate((64, 96, 160)):
        frame = pixels.integers(0, 256, (size, size), np.uint8)
        Image.fromarray(frame).save(files / f"frame{number}.png")
    np.save(files / "cine.npy", pixels.integers(0, 256, (6, 64, 64), np.uint8))
    tifffile.imwrite(
        files / "scaled.tif",
        pixels.integers(0, 4096, (3, 80, 64), np.uint16),
        imagej=True,
        resolution=(4.0, 4.0),
        metadata={"unit": "mm", "axes": "TYX"},
    )
    for number in range(3):
        frame = pixels.integers(0, 256, (64, 64), np.uint8)
        np.save(pictures / f"p{number}.npy", frame)
    np.save(pictures / "p3.npy", pixels.integers(0, 256, (5, 64, 64), np.uint8))
    with Project.create(folder / "project", user="user") as project:
        project.images.add([pictures])


def quiet_dialogs() -> None:
    """Answer every question with Cancel, so that no walk waits for one."""
    from qtpy.QtWidgets import QDialog, QFileDialog, QMessageBox

    QDialog.exec = lambda self: 0
    QMessageBox.exec = lambda self: int(QMessageBox.StandardButton.Cancel.value)
    cancel = QMessageBox.StandardButton.Cancel
    for name in ("question", "warning", "information", "critical"):
        setattr(QMessageBox, name, staticmethod(lambda *a, **k: cancel))
    for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName"):
        setattr(QFileDialog, name, staticmethod(lambda *a, **k: ("", "")))
    QFileDialog.getExistingDirectory = staticmethod(lambda *a, **k: "")


def walk_once(seed: int, acts: int) -> int:
    """Walk in this process; 0 if nothing went wrong."""
    problems: list[str] = []

    def note(kind: type, error: BaseException, trace: Any) -> None:
        problems.append("".join(traceback.format_exception(kind, error, trace)))

    sys.excepthook = note
    threading.excepthook = lambda args: note(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        os.environ["NAPARI_CMUNET_HOME"] = str(folder / "home")
        os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
        import napari

        from napari_cmunet.gui import controller
        from tests.gui.conftest import FakeModel

        controller.load_engine = FakeModel()
        quiet_dialogs()
        make_files(folder)
        viewer = napari.Viewer(title="napari-cmunet")
        viewer.window.resize(1200, 800)
        _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
        walk = Walk(
            viewer,
            panel,
            folder,
            seed,
            lambda line: print(line, flush=True),
        )
        problems += walk.run(acts)
        walk.panel.project.close()
        walk._live(0.5)
        viewer.close()
        walk._live(0.2)
    print(walk.counts)
    for problem in problems:
        print("PROBLEM", problem, flush=True)
    # Past napari's own waiting for threads: only the walk counts.
    sys.stdout.flush()
    os._exit(1 if problems else 0)


def main() -> int:
    """Walk; 0 if no walk failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walks", type=int, default=40)
    parser.add_argument("--acts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first walk")
    parser.add_argument("--one", action="store_true", help="walk in this process")
    args = parser.parse_args()
    if args.one:
        return walk_once(args.seed, args.acts)
    failed = 0
    for seed in range(args.seed, args.seed + args.walks):
        command = [sys.executable, "-X", "faulthandler", "-m", __spec__.name, "--one"]
        command += ["--seed", str(seed), "--acts", str(args.acts)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        failed += done.returncode != 0
        print(f"walk {seed}: {'failed' if done.returncode else 'passed'}", flush=True)
        if done.returncode:
            lines = done.stdout.splitlines()
            first = next((n for n, s in enumerate(lines) if "PROBLEM" in s), -5)
            stack = done.stderr[max(0, done.stderr.find("Fatal Python error")) :]
            print("\n".join(lines[first:][:60]), stack[:2500], sep="\n", flush=True)
    print(f"{args.walks - failed} of {args.walks} walks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
