"""The window is closed while workers end: the process ends well, with status 0."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_SCRIPT = """
import sys
import napari
from qtpy.QtCore import QTimer
from napari_cmunet.synthetic import PhantomConfig, make_cine

viewer = napari.Viewer()
_, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
viewer.add_image(make_cine(PhantomConfig(frames=8, size=64, seed=3)).frames)

def look():
    if panel.controller.queue.progress[0] >= 1:  # its vessel tools are being prepared
        timer.stop()
        QTimer.singleShot(int(sys.argv[1]), viewer.window._qt_window.close)

timer = QTimer()
timer.timeout.connect(look)
timer.start(10)
napari.run()
print("closed")
"""


@pytest.mark.parametrize("milliseconds", [0, 200])
def test_closing_while_workers_end(milliseconds):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(milliseconds)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "closed\n"
    assert "Traceback" not in done.stderr
