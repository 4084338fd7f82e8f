"""A hand at the real window: what a reader does, by the panel's own buttons."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random


class Hand:
    """A napari window with the panel, and a hand that works in it.

    Parameters
    ----------
    choose : Random
        Where strokes go.
    """

    def __init__(self, choose: Random) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.choose = choose
        self._app = QApplication
        self.viewer = napari.Viewer(title="napari-cmunet")
        self.viewer.window.resize(1200, 900)
        _, self.panel = self.viewer.window.add_plugin_dock_widget(
            "napari-cmunet", "CM-UNet"
        )
        self.reader = self.panel.project
        self.page, self.finetune = self.panel.project_section.page, self.panel.finetune
        #: Called whenever the window has lived for a moment.
        self.ticked: Callable[[], None] = lambda: None

    # -- time -----------------------------------------------------------------

    def live(self, seconds: float) -> None:
        """Let the window live for a while."""
        self.until(lambda: False, seconds)

    def until(self, done: Callable[[], bool], seconds: float = 60) -> bool:
        """Let the window live until something is so; whether it came to be."""
        end = time.monotonic() + seconds
        while True:
            self._app.processEvents()
            self.ticked()
            if done():
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.003)

    # -- state ----------------------------------------------------------------

    @property
    def opened(self) -> Any:
        """The project's open image, None if there is none."""
        return self.reader.navigator.current

    @property
    def key(self) -> tuple[str, int]:
        """Image and frame that are shown."""
        return self.opened.key(self.reader.navigator.frame)

    @property
    def ready(self) -> bool:
        """Whether the open image can be corrected and accepted."""
        return self.opened is not None and not self.reader.annotation.why_not()

    def mask(self) -> np.ndarray:
        """The shown mask, bool (Y, X)."""
        return self.opened.mask(self.reader.navigator.frame)

    # -- acts -----------------------------------------------------------------

    def open(self, project: Path, seconds: float = 120) -> bool:
        """Open a project and wait for its image; whether it came."""
        self.reader.open(project)
        return self.until(lambda: self.ready, seconds)

    def click(self, button: Any) -> bool:
        """As a mouse would; False where no mouse could."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        if not (button.isEnabled() and button.isVisible()):
            return False
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        return True

    def stroke(self) -> None:
        """Draw a line with napari's brush, or rub one out."""
        mask = self.opened.image_state.mask
        rows, columns = mask.data.shape[-2:]
        mask.brush_size = self.choose.randint(2, 6)
        at = np.array([self.choose.randrange(rows), self.choose.randrange(columns)])
        step = np.array([self.choose.randint(-4, 4), self.choose.randint(-4, 4)])
        value = int(self.choose.random() < 0.8)
        lead = () if mask.ndim == 2 else (self.reader.navigator.frame,)
        with mask.block_history():
            for number in range(8):
                spot = np.clip(at + number * step, 0, (rows - 1, columns - 1))
                mask.paint((*lead, *map(int, spot)), value)

    def next(self) -> bool:
        """Press Next and wait for the image; False if there is no other."""
        return self._to_another(self.page.next)

    def previous(self) -> bool:
        """Press Previous and wait for the image; False if there is no other."""
        return self._to_another(self.page.previous)

    def _to_another(self, button: Any) -> bool:
        before = self.opened
        if not self.click(button):
            return False
        self.until(lambda: self.reader.workspace.writer.idle, 20)
        if self.reader.navigator.opening is None and self.opened is before:
            return False
        return self.until(lambda: self.opened is not before and self.ready, 30)

    def accept(self) -> bool:
        """Press Accept and wait until the window says that it is saved."""
        key = self.key
        if not self.click(self.page.accept):
            return False
        accepting = self.reader.annotation
        self.until(
            lambda: key not in accepting.saving and self.reader.workspace.writer.idle,
            20,
        )
        notice = self.reader.messages.alert
        return notice is None or notice.about != "accept"

    def close(self) -> None:
        """Close the project and the window."""
        self.reader.close()
        self.until(
            lambda: self.reader.project is None and self.reader.workspace.writer.idle,
            30,
        )
        self.viewer.close()
        self.live(0.2)
