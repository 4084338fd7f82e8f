"""Vessels to be corrected, and a hand that drives the vessel tools on a ViewerModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.vessels.centreline import tube

if TYPE_CHECKING:
    from napari_cmunet.vessels.tools import VesselTool

SIZE = 128
VESSELS = {
    "main": ((64, 6), (64, 122), 4.0),
    "side": ((64, 60), (112, 76), 2.0),
    "faint": ((64, 84), (20, 104), 2.0),
    "wire": ((14, 8), (14, 70), 1.5),
}


def angiogram(*faint: str, times: int = 1) -> np.ndarray:
    """Dark vessels on grey; the fake model calls dark artery."""
    image = np.full((times * SIZE, times * SIZE), 215, np.uint8)
    for name, (start, end, radius) in VESSELS.items():
        line = times * np.linspace(start, end, times * 200)
        where = tube(line, np.full(len(line), times * radius), image.shape)
        image[where] = 165 if name in faint else 60
    return image


@dataclass
class Press:
    """A mouse event as napari hands it over."""

    position: tuple
    type: str = "mouse_press"
    pos: tuple = (0, 0)
    button: int = 1
    modifiers: tuple = ()


class Bench:
    """A panel's vessel tools, driven as the mouse does."""

    def __init__(self, qtbot, viewer, panel) -> None:
        self.qtbot, self.viewer, self.panel = qtbot, viewer, panel
        self.tools, self.review = panel.vessels.tools, panel.vessels.review

    @property
    def mask(self):
        return self.panel.controller.active.mask

    @property
    def frame(self) -> np.ndarray:
        image_state = self.panel.controller.active
        return image_state.mask_frame(self.panel.controller.shown(image_state))

    def settle(self) -> None:
        self.qtbot.waitUntil(lambda: self.tools.context() is not None, timeout=90_000)
        self.qtbot.waitUntil(lambda: not self.tools.cache.running, timeout=90_000)

    def take(self, tool: VesselTool) -> None:
        self.tools.activate(tool)
        self.settle()

    def at(self, row: float, column: float) -> tuple:
        return (*self.viewer.dims.point[:-2], row, column)

    def hover(self, row: float, column: float) -> str:
        for callback in list(self.viewer.mouse_move_callbacks):
            callback(self.viewer, Press(self.at(row, column), "mouse_move"))
        return self.tools.hint

    def click(
        self, row: float, column: float, drag: int = 0, shift: bool = False
    ) -> None:
        event = Press(self.at(row, column), modifiers=("Shift",) if shift else ())
        # napari has one of its own there, which zooms.
        ours = self.tools._on_press
        for callback in [c for c in self.viewer.mouse_drag_callbacks if c == ours]:
            held = callback(self.viewer, event)
            next(held)
            if drag:
                event.type, event.pos = "mouse_move", (drag, drag)
                next(held, None)
            event.type = "mouse_release"
            next(held, None)
        if self.tools.tool is not None:
            self.settle()


def one_step(bench: Bench, act) -> np.ndarray:
    """What an act changes; it must undo and redo as one step."""
    before = bench.frame.copy()
    act()
    after = bench.frame.copy()
    assert (before != after).any()
    bench.mask.undo()
    assert (bench.frame == before).all()
    bench.mask.redo()
    assert (bench.frame == after).all()
    bench.settle()
    return after.astype(int) - before
