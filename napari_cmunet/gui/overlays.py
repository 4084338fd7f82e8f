"""Adds, shows and hides the layers of a reading in a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cmunet.gui.reading import Reading


def set_visible(layer: Layer | None, visible: bool) -> None:
    """Show or hide a layer. Showing a shown one would take its tool away."""
    if layer is not None and layer.visible != visible:
        layer.visible = visible


def place_above(viewer: ViewerModel, layer: Layer, below: Layer | None) -> None:
    """Insert a layer right above another without changing what is selected."""
    layers = viewer.layers
    selected = set(layers.selection)
    active = layers.selection.active
    index = layers.index(below) + 1 if below in layers else len(layers)
    layers.insert(index, layer)
    if active is not None:
        layers.selection.active = active
        layers.selection.update(selected)


def add_prediction(viewer: ViewerModel, reading: Reading) -> Layer:
    """Lay the prediction over the image."""
    layer = reading.new_prediction_layer()
    place_above(viewer, layer, reading.image)
    return layer


def add_mask(viewer: ViewerModel, reading: Reading, *, select: bool) -> Layer:
    """Lay a mask over image and prediction, and put the brush in hand."""
    layer = reading.new_mask_layer()
    below = reading.prediction if reading.prediction is not None else reading.image
    place_above(viewer, layer, below)
    if select:
        viewer.layers.selection.active = layer
    layer.mode = "paint"
    return layer


def show_alone(
    viewer: ViewerModel, readings: Iterable[Reading], chosen: Reading
) -> None:
    """Show one image with its layers and hide the others; select what is edited."""
    for reading in readings:
        mine = reading is chosen
        set_visible(reading.image, mine)
        set_visible(reading.mask, mine)
        set_visible(reading.prediction, mine and reading.show_prediction)
    target = chosen.mask if chosen.mask is not None else chosen.image
    if target in viewer.layers:
        viewer.layers.selection.active = target
