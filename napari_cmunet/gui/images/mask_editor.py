"""Edits of the active mask: tools, threshold, undo, and how the mask is shown.

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

    def select_mask(self) -> Labels | None:
        """Select and show the active mask, so that tools act on it; return it."""
        mask = self._mask()
        if mask is not None:
            set_visible(mask, True)
            self._images.viewer.layers.selection.active = mask
        return mask

    def _image_state(self) -> ImageState | None:
        """The active image, if it has a mask and its frame is shown."""
        image_state = self._images.active
        if image_state is None or not image_state.usable_mask:
            return None
        # Nothing acts on a frame that is not shown.
        return image_state if self._images.has_shown_frame(image_state) else None

    def _mask(self) -> Labels | None:
        image_state = self._image_state()
        return None if image_state is None else image_state.mask

    # -- threshold ------------------------------------------------------------

    def begin_threshold(self) -> None:
        """Begin a drag of the threshold slider."""
        if (image_state := self._image_state()) is not None:
            set_visible(image_state.mask, True)
            image_state.history.begin_drag(self._images.shown_frame(image_state))

    def move_threshold(self, threshold: float, join: bool = False) -> None:
        """Set the threshold; during a drag, as a preview.

        ``join`` makes it one undo step with the move before.
        """
        image_state = self._image_state()
        if image_state is None:
            return
        if image_state.history.dragging:
            image_state.history.preview(threshold)
        else:
            image_state.history.set_threshold(
                self._images.shown_frame(image_state), threshold, join=join
            )
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
        image_state = self._image_state()
        if image_state is None:
            return
        frame = self._images.shown_frame(image_state)
        if image_state.has_prediction(frame):
            image_state.history.reset(frame)
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
