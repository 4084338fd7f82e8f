"""Invert the grey values of an image layer: the model expects dark arteries."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari_cmunet.gui.images.layers import (
    METADATA,
    is_inverted,
    record_of,
    source_array,
)
from napari_cmunet.gui.widgets import check, embolden
from napari_cmunet.io.polarity import invert, invert_window

if TYPE_CHECKING:
    from qtpy.QtWidgets import QCheckBox

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState


def invert_image(image_state: ImageState) -> None:
    """Invert the grey values of an image; twice restores them. Masks stay."""
    image = image_state.image
    if image.multiscale or image_state.unsupported is not None:
        return
    data = source_array(image)
    limits = invert_window(tuple(image.contrast_limits), data.dtype)
    record = {**record_of(image), "is_inverted": not is_inverted(image)}
    was_replaced = image_state.image_replaced
    image.metadata = {**image.metadata, METADATA: record}
    image.data = invert(data)
    image.contrast_limits_range = sorted(
        (
            min(limits[0], image.contrast_limits_range[0]),
            max(limits[1], image.contrast_limits_range[1]),
        )
    )
    image.contrast_limits = limits
    image_state.image_replaced = was_replaced  # still the pixels of its file
    image_state.bright_vessels = False


def invert_switch(controller: Controller) -> QCheckBox:
    """Make the panel's switch; call its ``refresh`` when the state has changed."""
    switch = check(
        "Invert",
        "The model expects dark arteries. Invert the grey values of an image whose "
        "arteries are bright; masks stay.",
    )
    found = weakref.ref(controller)

    def on_clicked(_: bool) -> None:
        owner = found()
        if owner is None or owner.active is None:
            return
        invert_image(owner.active)
        if owner.pre_segment:
            owner.segment()

    switch.clicked.connect(on_clicked)
    return switch


def refresh_switch(switch: QCheckBox, image_state: ImageState | None) -> None:
    """Show whether the image is inverted; offer it where its arteries seem bright."""
    switch.setEnabled(image_state is not None and image_state.unsupported is None)
    inverted = image_state is not None and is_inverted(image_state.image)
    bright = image_state is not None and image_state.bright_vessels
    switch.setChecked(inverted)
    switch.setText("Invert: seems bright" if bright else "Invert")
    embolden(switch, bright)
