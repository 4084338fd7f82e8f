"""What the layer menu offers."""

from __future__ import annotations

import napari  # noqa: TC002 - napari resolves the annotation to hand over its viewer

from napari_cmunet.gui.layers import is_image


def segment_arteries(viewer: napari.Viewer) -> None:
    """Open the panel and segment the selected image."""
    layer = viewer.layers.selection.active
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    panel.controller.segment_layer(layer if layer and is_image(layer) else None)
