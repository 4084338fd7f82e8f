"""Notices that the reader is there: the mouse moves, turns or presses in the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel


class Attention:
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
