"""Another image in the layers of one that is closed.

napari takes a tenth of a second to add a layer and longer to remove one, since it
collects all of Python's garbage each time. New pixels take some milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.gui.images.layers import geometry, source_array

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

    from napari_cmunet.gui.images.image_state import ImageState


def can_reuse(viewer: ViewerModel, former: ImageState, image_state: ImageState) -> bool:
    """Whether an image fits into the layers of another, and all of them are there."""
    old, new = former.image, image_state.image
    return (
        former.mask is not None
        and former.prediction is not None
        and all(layer in viewer.layers for layer in former.layers())
        and (old.ndim, old.rgb, old.multiscale) == (new.ndim, new.rgb, new.multiscale)
        and image_state.mask is None
        and new not in viewer.layers
    )


def reuse_layers(former: ImageState, image_state: ImageState) -> None:
    """Move an image into another's layers, with its prediction and a fresh mask.

    Nobody may listen to the layers meanwhile.
    """
    image, prediction, mask = former.image, former.prediction, former.mask
    shown = former.show_prediction and prediction.visible
    former.release()
    new = image_state.image
    image.data = source_array(new)
    image.contrast_limits_range = new.contrast_limits_range
    image.contrast_limits = new.contrast_limits
    image.name, image.metadata = new.name, dict(new.metadata)
    _lay_over(image, new)
    image_state.image = image
    prediction.data = image_state.prediction_pixels()
    prediction.name = f"{image.name} prediction"
    image_state.prediction = prediction
    image_state.show_prediction = shown
    tool = mask.mode
    mask.data = image_state.fresh_mask()
    mask.name = f"{image.name} mask"
    _forget_history(mask)
    mask.mode = tool
    for overlay in (prediction, mask):
        _lay_over(overlay, new)
    image_state.start_mask(mask)


def _forget_history(mask: Labels) -> None:
    # napari keeps the undo history when the pixels change, except over this.
    mask.editable = False
    mask.editable = True


def _lay_over(layer: Layer, image: Layer) -> None:
    """Lay a layer where an image would lie, if it does not already."""
    for name, value in geometry(image).items():
        if not _same(getattr(layer, name), value):
            setattr(layer, name, value)


def _same(one: object, other: object) -> bool:
    if hasattr(one, "affine_matrix"):
        return np.array_equal(one.affine_matrix, other.affine_matrix)
    return np.array_equal(one, other)
