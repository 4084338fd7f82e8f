"""How soon the panel stands in the window; part of ``bench``."""

from __future__ import annotations

import os
import sys
import time
from typing import Any


def panel_times() -> dict[str, Any]:
    """Open a window and the panel in it, once, as at the first click of a session.

    Returns
    -------
    dict
        ``import_s``: what importing the panel adds to napari's own import;
        ``open_s``: from the click to the panel, docked and drawn. Without a display
        only ``why`` there are none.
    """
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not shown:
        return {"why": "no display"}
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
