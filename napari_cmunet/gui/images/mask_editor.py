"""Edits of the active mask: tools, threshold, undo, and what is shown of it.

In a cine the frames that are not shown follow the threshold when the program is idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.images.layers import OUTLINE_WIDTH, set_visible

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.images.open_images import OpenImages


class MaskEditor:
    """Edits the mask of the active image.

    Parameters
    ----------
    images : OpenImages
        Knows which image is active, and which frame is shown.
    """

    #: The mask or its threshold has changed.
    changed = Signal()

    def __init__(self, images: OpenImages) -> None:
        self._images = images
        self._late: list[tuple[ImageState, int]] = []
        self._idle_timer = QTimer()
        self._idle_timer.setInterval(0)
        self._idle_timer.timeout.connect(self._on_idle)

    @property
    def idle(self) -> bool:
        """Whether every frame has followed the threshold."""
        return not self._idle_timer.isActive()

    def start_idle(self) -> None:
        """Let the frames that are not shown follow the threshold, one at a time."""
        self._late = [
            (image_state, frame)
            for image_state in self._images.images
            for frame in image_state.history.late_frames()
        ]
        if self._late:
            self._idle_timer.start()

    def stop(self) -> None:
        """Finish a drag of the slider and stop the idle work."""
        self.end_threshold()
        self._idle_timer.stop()

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

    def set_prediction_visible(self, visible: bool) -> None:
        """Show or hide the active image's prediction; make it anew if deleted."""
        image_state = self._images.active
        if image_state is None:
            return
        image_state.show_prediction = visible
        set_visible(image_state.prediction, visible)
        if visible:
            image_state.prediction_was_deleted = False
            self._images.add_prediction(image_state)
        self.changed.emit()

    def toggle_prediction(self) -> None:
        """Show the prediction if it is hidden, or hide it."""
        if (image_state := self._images.active) is not None:
            layer = image_state.prediction
            self.set_prediction_visible(layer is None or not layer.visible)

    def select_mask(self) -> Labels | None:
        """Select and show the active mask, so that tools act on it; return it."""
        mask = self._mask()
        if mask is not None:
            set_visible(mask, True)
            self._images.viewer.layers.selection.active = mask
        return mask

    def _mask(self) -> Labels | None:
        here = self._images.editable
        return None if here is None else here[0].mask

    # -- threshold ------------------------------------------------------------

    def begin_threshold(self) -> None:
        """Begin a drag of the threshold slider."""
        if (here := self._images.editable) is not None:
            image_state, frame = here
            set_visible(image_state.mask, True)
            image_state.history.begin_drag(frame)

    def move_threshold(self, threshold: float, join: bool = False) -> None:
        """Set the threshold; during a drag, as a preview.

        ``join`` makes it one undo step with the move before.
        """
        if (here := self._images.editable) is None:
            return
        image_state, frame = here
        if image_state.history.dragging:
            image_state.history.preview(threshold)
        else:
            image_state.history.set_threshold(frame, threshold, join=join)
            self.start_idle()
        self.changed.emit()

    def end_threshold(self) -> None:
        """End a drag of the threshold slider."""
        for image_state in self._images.images:
            if image_state.history.dragging:
                image_state.history.end_drag()
        self.start_idle()
        self.changed.emit()

    def reset_frame(self) -> None:
        """Make the shown frame's mask the prediction again. Can be undone."""
        here = self._images.editable
        if here is not None and here[0].has_prediction(here[1]):
            here[0].history.reset(here[1])
            self.changed.emit()

    def undo(self) -> None:
        """Undo the last change to the active mask."""
        if (mask := self.select_mask()) is not None:
            mask.undo()

    def redo(self) -> None:
        """Redo what was undone last."""
        if (mask := self.select_mask()) is not None:
            mask.redo()

    def _on_idle(self) -> None:
        """Let one frame of a cine that is not shown follow the threshold."""
        while self._late:
            image_state, frame = self._late.pop()
            if image_state.history.bring_up_to_date(frame):
                if frame == self._images.shown_frame(image_state):
                    image_state.refresh_mask()
                return
        self._idle_timer.stop()
