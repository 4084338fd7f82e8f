"""``demo``: napari with the panel docked, on a synthetic cine that is pre-segmented."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import napari
from qtpy.QtCore import QTimer

from napari_cmunet.errors import CMUNetError, WriteError, display_name

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from napari_cmunet.gui.panel import CMUNetPanel

WINDOW = (1440, 900)
PATIENCE_SECONDS = 300
"""Without any progress: a busy machine is slow, but goes on."""
QUIET_LOOKS = 3
FILLED_FRAME = 18
"""The sample cine's arteries are full of contrast there."""


def run(args: argparse.Namespace) -> int:
    """Open the demo; with ``--screenshot`` save the window's picture and close it.

    Returns
    -------
    int
        Exit code; 1 if the sample could not be segmented or the picture not saved.
    """
    viewer = napari.Viewer(title="napari-cmunet demo")
    viewer.window.resize(*WINDOW)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    viewer.open_sample("napari-cmunet", "cine")
    viewer.dims.set_current_step(0, FILLED_FRAME)
    if args.screenshot is None:
        napari.run()
        return 0
    picture = _Picture(viewer, panel, args.screenshot)
    napari.run()
    return picture.exit_code


class _Picture:
    """Waits until the shown frames are segmented, saves the picture, closes."""

    def __init__(self, viewer: napari.Viewer, panel: CMUNetPanel, path: Path) -> None:
        self.viewer, self.panel, self.path = viewer, panel, path
        self.exit_code = 1
        self._progress: tuple[object, ...] = ()
        self._until = 0.0
        self._was_busy = False
        self._quiet = 0
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(200)

    def _look(self) -> None:
        controller = self.panel.controller
        queue = controller.queue
        busy = queue.running
        progress = (busy, queue.loading, *queue.progress, self._quiet)
        if progress != self._progress:
            self._progress = progress
            self._until = time.monotonic() + PATIENCE_SECONDS
        self._was_busy |= busy
        if controller.failed:
            print(controller.message, file=sys.stderr)
        elif time.monotonic() > self._until:
            print("The sample's segmentation does not go on.", file=sys.stderr)
        elif busy or not self._was_busy:
            self._quiet = 0
            return
        elif self._quiet < QUIET_LOOKS:
            # The panel says that all is done a moment after it is.
            self._quiet += 1
            return
        else:
            self._save()
        self._timer.stop()
        self.viewer.close()

    def _save(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.viewer.screenshot(str(self.path), canvas_only=False, flash=False)
        except OSError as exc:
            error: CMUNetError = WriteError(
                self.path, f"the picture cannot be saved ({exc.strerror or exc})."
            )
            print(error, file=sys.stderr)
        else:
            print(display_name(self.path))
            self.exit_code = 0
