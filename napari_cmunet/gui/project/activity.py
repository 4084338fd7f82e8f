"""Annotation time: a clock that leaves out pauses, driven by the mouse."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel


PAUSE_SECONDS = 15.0
"""Somebody who looks and thinks moves the mouse or presses a key before long."""


class AnnotationClock:
    """Adds up the time between activities; a longer gap counts as a pause."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last: float | None = None

    def restart(self) -> None:
        """Restart from zero."""
        self._seconds = 0.0
        self._last = monotonic()

    def go_on(self) -> None:
        """Resume: the image is shown again."""
        self._last = monotonic()

    def stop(self) -> None:
        """Pause: the image is no longer shown."""
        self._seconds = self.seconds
        self._last = None

    def tick(self) -> None:
        """Note an activity."""
        if self._last is not None:
            self._seconds = self.seconds
            self._last = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of activity up to now."""
        if self._last is None:
            return self._seconds
        return self._seconds + min(monotonic() - self._last, PAUSE_SECONDS)


class ActivityTracker:
    """Calls back whenever the mouse is used in a viewer.

    Parameters
    ----------
    on_activity : callable
        Called often: it must be quick.
    """

    def __init__(self, on_activity: Callable[[], None]) -> None:
        self._on_activity = on_activity
        self._viewer: ViewerModel | None = None

    def start(self, viewer: ViewerModel) -> None:
        """Start following the mouse in a viewer."""
        self.stop()
        self._viewer = viewer
        for callbacks in self._lists(viewer):
            callbacks.append(self._on_mouse)

    def stop(self) -> None:
        """Stop following the mouse. Idempotent."""
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            for callbacks in self._lists(viewer):
                if self._on_mouse in callbacks:
                    callbacks.remove(self._on_mouse)

    @staticmethod
    def _lists(viewer: ViewerModel) -> tuple[list, ...]:
        return (
            viewer.mouse_move_callbacks,
            viewer.mouse_wheel_callbacks,
            viewer.mouse_drag_callbacks,
        )

    def _on_mouse(self, viewer: ViewerModel, event) -> None:
        self._on_activity()
