"""How fast the panel's numbers follow an edit and a marker.

usage: xvfb-run -a python -m benchmarks.measure_speed [--side 512] [--edits 40]
       [--hidden]

In a real window over a synthetic angiogram: the longest branch is measured, then its
border is edited again and again, and a marker moved. Printed in milliseconds, median
and 95th percentile: from the edit (from the move) to the numbers on the panel and the
borders over the image. With ``--hidden`` the window is not drawn: what is left is the
program's own share, without the canvas, which software OpenGL draws slowly.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.window_speed import _turn, _wait
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--hidden", action="store_true")
    options = parser.parse_args()
    import napari

    frame, truth = make_frame(PhantomConfig(size=options.side, seed=3))
    viewer = napari.Viewer(show=not options.hidden)
    viewer.window.resize(1400, 900)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    panel.controller.set_pre_segment(False)
    viewer.add_image(frame, name="phantom")
    _wait(lambda: panel.controller.active is not None, "the image")
    state = panel.controller.active
    panel.controller.images.remake_mask(state)
    rows, columns = np.nonzero(truth)
    state.write(0, (rows, columns), 1)
    branch = max(build_tree(truth).branches, key=lambda b: b.length)
    measurement = panel.measuring.measurement
    ends = tuple(tuple(map(float, branch.points[i])) for i in (3, -4))
    measurement.measure(state, 0, ends)
    _wait(lambda: not measurement.running, "the measurement")
    _turn()
    print(f"{measurement.analysis.length} px of vessel, {options.side}^2")
    middle = branch.points[len(branch.points) // 2]
    far = int(np.ceil(branch.radius)) + 1

    def edit(number: int) -> None:
        row = middle[0] + (far if number % 2 else far - 1)
        where = np.array([row] * 5), middle[1] + np.arange(-2, 3)
        former = measurement.analysis
        state.write(0, where, (number // 2) % 2)
        if not measurement.running:  # nothing changed there
            return
        _wait(lambda: measurement.analysis is not former, "the numbers")

    def move(number: int) -> None:
        at = measurement.analysis.narrowest.start
        measurement.move_marker("start", at + (1 if number % 2 else -1))

    for name, act in (("edit", edit), ("marker", move)):
        times = _times(act, options.edits)
        print(f"{name}: {np.median(times):.0f} ({np.quantile(times, 0.95):.0f}) ms")
    viewer.close()


def _times(act: Callable[[int], None], count: int) -> list[float]:
    from qtpy.QtWidgets import QApplication

    times = []
    for number in range(count):
        began = time.perf_counter()
        act(number)
        QApplication.processEvents()
        times.append(1e3 * (time.perf_counter() - began))
    return times


if __name__ == "__main__":
    main()
