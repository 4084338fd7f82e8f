"""Notices that the reader is there: the mouse moves, turns or presses in the viewer."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel


PAUSE_SECONDS = 15.0
"""Somebody who looks and thinks moves the mouse or presses a key before long."""


class AnnotationClock:
    """Adds up the time between signs of life; a longer gap counts as a pause."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last: float | None = None

    def restart(self) -> None:
        """Begin anew, from now."""
        self._seconds = 0.0
        self._last = monotonic()

    def go_on(self) -> None:
        """The image is seen from now on; the time before does not count."""
        self._last = monotonic()

    def stop(self) -> None:
        """The image is left."""
        self._seconds = self.seconds
        self._last = None

    def tick(self) -> None:
        """The reader has done something."""
        if self._last is not None:
            self._seconds = self.seconds
            self._last = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of attention up to now."""
        if self._last is None:
            return self._seconds
        return self._seconds + min(monotonic() - self._last, PAUSE_SECONDS)


class ActivityTracker:
    """Tells of each sign of life, from :meth:`listen` to :meth:`let_go`.

    Parameters
    ----------
    noticed : callable
        Called often: it must be quick.
    """

    def __init__(self, noticed: Callable[[], None]) -> None:
        self._noticed = noticed
        self._viewer: ViewerModel | None = None

    def listen(self, viewer: ViewerModel) -> None:
        """Follow the mouse in a viewer."""
        self.let_go()
        self._viewer = viewer
        for callbacks in self._lists(viewer):
            callbacks.append(self._on_mouse)

    def let_go(self) -> None:
        """Follow no more. Safe to call more than once."""
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
        self._noticed()
