"""The window is closed while workers end: the process ends well, with status 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_SCRIPT = """
import sys
import napari
import numpy as np
from qtpy.QtCore import QTimer
from napari_cmunet.gui.preferences import save_preference
from napari_cmunet.synthetic import PhantomConfig, make_cine

viewer = napari.Viewer()
save_preference("model", sys.argv[2])
_, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
cine = make_cine(PhantomConfig(frames=8, size=64, seed=3)).frames
viewer.add_image(np.tile(cine, (100, 1, 1)))  # it is being segmented all the while
assert panel.controller.choice.model == sys.argv[2]

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
def test_closing_while_workers_end(milliseconds, tiny_model, tmp_path):
    settings = {"NAPARI_CONFIG": str(tmp_path / "settings.yaml")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(milliseconds), tiny_model],
        cwd=Path(__file__).parents[2],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "closed\n"
    assert "Traceback" not in done.stderr
