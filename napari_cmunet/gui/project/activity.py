"""Activity of the user in a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel


class ActivityTracker:
    """Calls back while the viewer is used.

    Parameters
    ----------
    on_activity : callable
        Called whenever the mouse moves or is pressed: it must be quick.
    on_gesture : callable
        Called while a hand paints, drags, zooms or changes the frame.
    """

    def __init__(
        self, on_activity: Callable[[], None], on_gesture: Callable[[], None]
    ) -> None:
        self._on_activity, self._on_gesture = on_activity, on_gesture
        self._viewer: ViewerModel | None = None

    def start(self, viewer: ViewerModel) -> None:
        """Start following a viewer."""
        self.stop()
        self._viewer = viewer
        for callbacks, own in self._lists(viewer):
            callbacks.append(own)
        viewer.dims.events.current_step.connect(self._on_frame)

    def stop(self) -> None:
        """Stop following the viewer. Idempotent."""
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            for callbacks, own in self._lists(viewer):
                if own in callbacks:
                    callbacks.remove(own)
            viewer.dims.events.current_step.disconnect(self._on_frame)

    def _lists(self, viewer: ViewerModel) -> tuple[tuple[list, Callable], ...]:
        return (
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_wheel_callbacks, self._on_wheel),
            (viewer.mouse_drag_callbacks, self._on_press),
        )

    def _on_move(self, viewer: ViewerModel, event: Any) -> None:
        self._on_activity()

    def note_gesture(self) -> None:
        """Note a gesture outside the viewer, such as a drag of a slider."""
        self._on_activity()
        self._on_gesture()

    def _on_wheel(self, viewer: ViewerModel, event: Any) -> None:
        self.note_gesture()

    def _on_press(self, viewer: ViewerModel, event: Any) -> Generator[None]:
        self._on_activity()
        yield
        while event.type == "mouse_move":
            self.note_gesture()
            yield

    def _on_frame(self, event: Any) -> None:
        self._on_gesture()
