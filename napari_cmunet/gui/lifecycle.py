"""The menu command, and what happens when the panel or its window is destroyed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_cmunet.gui.images.layers import is_image

if TYPE_CHECKING:
    import weakref

    import napari

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.project.session import ProjectSession


def segment_arteries(viewer: napari.Viewer) -> None:
    """Open the panel and segment the selected image. Command of the layer menu."""
    layer = viewer.layers.selection.active
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    panel.controller.segment_layer(layer if layer and is_image(layer) else None)


# Called by Qt when the panel may be half deleted: none of these holds it.


def may_close(panel: weakref.ref[Any]) -> bool:
    """Whether the project may be closed: an existing panel asks the user."""
    found = panel()
    return found is None or found.may_end_training()


def on_panel_destroyed(controller: Controller, project: ProjectSession) -> None:
    # When the program ends, Qt may have deleted the controller's timers already.
    with suppress(RuntimeError):
        if controller.connected:  # otherwise the dock was closed before
            project.workspace.changed.disconnect()
            project.close_window()
        controller.disconnect()
