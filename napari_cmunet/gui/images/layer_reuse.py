"""Show an image in the layers of another one, which is closed.

Adding and removing layers is slow in napari: it collects Python's garbage each time.
New pixels in an existing layer are fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.gui.images.layers import geometry, reset_tools, source_array

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

    from napari_cmunet.gui.images.image_state import ImageState


def can_reuse(viewer: ViewerModel, former: ImageState, image_state: ImageState) -> bool:
    """Whether the layers of ``former`` exist and can show ``image_state``."""
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
    """Move an image into another's layers, with its prediction and a new mask.

    The events of the layers must be disconnected.
    """
    image, prediction, mask = former.image, former.prediction, former.mask
    assert prediction is not None and mask is not None
    shown = former.show_prediction and prediction.visible
    former.release()
    new = image_state.image
    image.data = source_array(new)
    image.contrast_limits_range = new.contrast_limits_range
    image.contrast_limits = new.contrast_limits
    image.name, image.metadata = new.name, dict(new.metadata)
    _copy_geometry(image, new)
    image_state.image = image
    prediction.data = image_state.prediction_pixels()
    prediction.name = f"{image.name} prediction"
    image_state.prediction = prediction
    image_state.show_prediction = shown
    mask.data = image_state.fresh_mask()
    mask.name = f"{image.name} mask"
    _forget_history(mask)
    reset_tools(mask)
    for overlay in (prediction, mask):
        _copy_geometry(overlay, new)
    image_state.start_mask(mask)


def _forget_history(mask: Labels) -> None:
    # napari keeps the undo history when the pixels change, but not over this.
    mask.editable = False
    mask.editable = True


def _copy_geometry(layer: Layer, image: Layer) -> None:
    """Give a layer the scale, position and units of an image."""
    for name, value in geometry(image).items():
        if not _same(getattr(layer, name), value):
            setattr(layer, name, value)


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "affine_matrix"):
        return np.array_equal(one.affine_matrix, other.affine_matrix)
    return np.array_equal(one, other)
