"""Connects a controller to the events of its viewer and of the layers it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.events import EmitterGroup


class Follower(Protocol):
    """What a controller does when something happens in the viewer."""

    def on_inserted(self, event) -> None: ...
    def on_removed(self, event) -> None: ...
    def on_selected(self, event) -> None: ...
    def on_dims(self, event) -> None:
        """Another frame is shown."""

    def on_looks(self, event) -> None:
        """A name, an eye, a tool or an outline."""

    def on_data(self, event) -> None:
        """Another array was put into a layer."""

    def on_paint(self, event) -> None:
        """Something was drawn, or the threshold moved."""

    def on_redraw(self, event) -> None:
        """A mask was drawn anew: another frame, or an undo."""

    def on_editable(self, event) -> None: ...


_VIEWER = (
    ("layers.events", "inserted", "on_inserted"),
    ("layers.events", "removed", "on_removed"),
    ("layers.selection.events", "active", "on_selected"),
    ("dims.events", "current_step", "on_dims"),
)
_LAYER = (
    ("name", "on_looks"),
    ("visible", "on_looks"),
    ("mode", "on_looks"),
    ("contour", "on_looks"),
    ("data", "on_data"),
    # Labels alone have these; napari draws anew after an undo, and says no more.
    ("paint", "on_paint"),
    ("set_data", "on_redraw"),
    ("editable", "on_editable"),
)


def follow_viewer(viewer: ViewerModel, follower: Follower) -> None:
    """Connect the viewer."""
    for path, event, slot in _VIEWER:
        getattr(_events(viewer, path), event).connect(getattr(follower, slot))


def leave_viewer(viewer: ViewerModel, follower: Follower) -> None:
    """Disconnect the viewer."""
    for path, event, slot in _VIEWER:
        getattr(_events(viewer, path), event).disconnect(getattr(follower, slot))


def follow_layers(follower: Follower, *layers: Layer | None) -> None:
    """Connect layers, those that there are."""
    for layer in layers:
        for event, slot in _LAYER if layer is not None else ():
            if event in layer.events.emitters:
                getattr(layer.events, event).connect(getattr(follower, slot))


def leave_layers(follower: Follower, *layers: Layer | None) -> None:
    """Disconnect layers."""
    for layer in layers:
        for event, slot in _LAYER if layer is not None else ():
            if event in layer.events.emitters:
                getattr(layer.events, event).disconnect(getattr(follower, slot))


def _events(viewer: ViewerModel, path: str) -> EmitterGroup:
    found = viewer
    for name in path.split("."):
        found = getattr(found, name)
    return found
