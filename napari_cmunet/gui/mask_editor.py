"""What the reader does to the active mask: tools, threshold, undo, and how it is shown.

In a cine the frames that are not shown follow the threshold when there is time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_cmunet.gui.layers import OUTLINE_WIDTH, set_visible

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.image_state import ImageState


class Correcting:
    """The hands of a controller on its active mask.

    Parameters
    ----------
    controller : Controller
        Knows which image is active; told of every change.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._late: list[tuple[ImageState, int]] = []
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
            (image_state, frame)
            for image_state in self._controller.image_states
            for frame in image_state.steps.late_frames()
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

    def _image_state(self) -> ImageState | None:
        """The active reading, if it has a mask to work on."""
        image_state = self._controller.active
        return (
            image_state if image_state is not None and image_state.usable_mask else None
        )

    def _mask(self) -> Labels | None:
        image_state = self._image_state()
        return None if image_state is None else image_state.mask

    # -- threshold ------------------------------------------------------------

    def begin_threshold(self) -> None:
        """The slider is taken hold of."""
        if (image_state := self._image_state()) is not None:
            set_visible(image_state.mask, True)
            image_state.steps.begin(self._controller.shown(image_state))

    def move_threshold(self, threshold: float, *, join: bool = False) -> None:
        """Set the threshold; while the slider is held, as a preview.

        ``join`` makes it one undo step with the move before.
        """
        image_state = self._image_state()
        if image_state is None:
            return
        if image_state.steps.dragging:
            image_state.steps.preview(threshold)
        else:
            image_state.steps.step(
                self._controller.shown(image_state), threshold, join=join
            )
            self.start_idle()
        self._controller.changed.emit()

    def end_threshold(self) -> None:
        """The slider is let go."""
        for image_state in self._controller.image_states:
            if image_state.steps.dragging:
                image_state.steps.commit()
        self.start_idle()
        self._controller.changed.emit()

    def reset_frame(self) -> None:
        """Make the shown frame's mask the prediction again. Can be undone."""
        image_state = self._image_state()
        if image_state is None:
            return
        frame = self._controller.shown(image_state)
        if image_state.has_prediction(frame):
            image_state.steps.reset(frame)
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
            image_state, frame = self._late.pop()
            if image_state.steps.bring_up_to_date(frame):
                if frame == self._controller.shown(image_state):
                    image_state.refresh_mask()
                return
        self._idle.stop()
