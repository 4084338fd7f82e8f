"""Points of the active mask that are chosen by clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cmunet.gui.canvas import is_click
from napari_cmunet.gui.images.layers import pixel_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState

    Place = tuple[ImageState, int, tuple[float, float]]


class Picker:
    """Takes clicks on the active mask until it is stopped.

    Esc and any tool of napari's stop it, too.

    Parameters
    ----------
    controller : Controller
    on_click : callable
        Called with the position in the world, and whether Shift was held.
    on_stop : callable
        Called once it has stopped.
    """

    #: Clicks are about to be taken.
    starting = Signal()

    def __init__(
        self,
        controller: Controller,
        on_click: Callable[[tuple[float, ...], bool], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._controller, self._viewer = controller, controller.viewer
        self._on_click, self._on_stop = on_click, on_stop
        self._mask: Labels | None = None

    @property
    def active(self) -> bool:
        """Whether clicks are taken."""
        return self._mask is not None

    def start(self) -> bool:
        """Take clicks from now on; False if there is no mask to click on."""
        self.stop()
        mask = self._controller.editor.select_mask()
        if mask is None:
            return False
        self.starting.emit()
        mask.mode = "pan_zoom"
        mask.cursor = "crosshair"
        mask.events.mode.connect(self._on_mode)
        mask.bind_key("Escape", lambda _layer: self.stop(), overwrite=True)
        self._mask = mask
        self._viewer.mouse_drag_callbacks.append(self._on_press)
        return True

    def stop(self) -> None:
        """Take no more clicks. Idempotent."""
        mask, self._mask = self._mask, None
        if mask is None:
            return
        mask.events.mode.disconnect(self._on_mode)
        mask.bind_key("Escape", None)
        if str(mask.mode) == "pan_zoom":
            mask.cursor = "standard"
        self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._on_stop()

    def place(self, position: tuple[float, ...]) -> Place | None:
        """Image, frame, and row and column of a position that is inside."""
        here = self._controller.images.editable
        if here is None:
            return None
        assert here[0].mask is not None
        point = pixel_at(here[0].mask, position)
        return None if point is None else (*here, point)

    def _on_mode(self, event: Any) -> None:
        if str(event.source.mode) != "pan_zoom":
            self.stop()

    def _on_press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        position, shift = tuple(event.position), "Shift" in event.modifiers
        if (yield from is_click(event)):
            self._on_click(position, shift)
