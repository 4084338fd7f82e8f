"""What the reader does to the active mask: tools, threshold, undo, and how it is shown.

In a cine the frames that are not shown follow the threshold when there is time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_cmunet.gui.layers import OUTLINE_WIDTH
from napari_cmunet.gui.overlays import set_visible

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading


class Correcting:
    """The hands of a controller on its active mask.

    Parameters
    ----------
    controller : Controller
        Knows which image is active; told of every change.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._late: list[tuple[Reading, int]] = []
        self._idle = QTimer()
        self._idle.setInterval(0)
        self._idle.timeout.connect(self._on_idle)

    @property
    def idle(self) -> bool:
        """Whether every frame has followed the threshold."""
        return not self._idle.isActive()

    def start_idle(self) -> None:
        """Let the frames that are not shown follow, one at a time."""
        self._late = [
            (reading, frame)
            for reading in self._controller.readings
            for frame in reading.steps.late_frames()
        ]
        if self._late:
            self._idle.start()

    def stop(self) -> None:
        """End what is begun; nothing more is done by itself."""
        self.end_threshold()
        self._idle.stop()

    def set_mask_visible(self, visible: bool) -> None:
        """Show or hide the mask."""
        if (mask := self._mask()) is not None:
            set_visible(mask, visible)

    def set_outline(self, outline: bool) -> None:
        """Show the mask as an outline, or filled."""
        if (mask := self._mask()) is not None:
            mask.contour = OUTLINE_WIDTH if outline else 0

    def toggle_outline(self) -> None:
        """Change between outline and fill."""
        if (mask := self._mask()) is not None:
            self.set_outline(mask.contour == 0)

    def mask_in_hand(self) -> Labels | None:
        """The active mask, selected and shown so that tools act on it."""
        mask = self._mask()
        if mask is not None:
            set_visible(mask, True)
            self._controller.viewer.layers.selection.active = mask
        return mask

    def _reading(self) -> Reading | None:
        """The active reading, if it has a mask to work on."""
        reading = self._controller.active
        return reading if reading is not None and reading.usable_mask else None

    def _mask(self) -> Labels | None:
        reading = self._reading()
        return None if reading is None else reading.mask

    # -- threshold ------------------------------------------------------------

    def begin_threshold(self) -> None:
        """The slider is taken hold of."""
        if (reading := self._reading()) is not None:
            set_visible(reading.mask, True)
            reading.steps.begin(self._controller.shown(reading))

    def move_threshold(self, threshold: float, *, join: bool = False) -> None:
        """Set the threshold; while the slider is held, as a preview.

        ``join`` makes it one undo step with the move before.
        """
        reading = self._reading()
        if reading is None:
            return
        if reading.steps.dragging:
            reading.steps.preview(threshold)
        else:
            reading.steps.step(self._controller.shown(reading), threshold, join=join)
            self.start_idle()
        self._controller.changed.emit()

    def end_threshold(self) -> None:
        """The slider is let go."""
        for reading in self._controller.readings:
            if reading.steps.dragging:
                reading.steps.commit()
        self.start_idle()
        self._controller.changed.emit()

    def reset_frame(self) -> None:
        """Make the shown frame's mask the prediction again. Can be undone."""
        reading = self._reading()
        if reading is None:
            return
        frame = self._controller.shown(reading)
        if reading.has_prediction(frame):
            reading.steps.reset(frame)
            self._controller.changed.emit()

    def undo(self) -> None:
        """Undo the last change to the active mask."""
        if (mask := self.mask_in_hand()) is not None:
            mask.undo()

    def redo(self) -> None:
        """Redo what was undone last."""
        if (mask := self.mask_in_hand()) is not None:
            mask.redo()

    def _on_idle(self) -> None:
        """Let one frame of a cine that is not shown follow the threshold."""
        while self._late:
            reading, frame = self._late.pop()
            if reading.steps.bring_up_to_date(frame):
                if frame == self._controller.shown(reading):
                    reading.refresh_mask()
                return
        self._idle.stop()
