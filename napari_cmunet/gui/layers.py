"""Adds, shows and hides the layers of a reading in a viewer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import CyclicLabelColormap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cmunet.gui.image_state import ImageState


# The key of our entry in a layer's metadata. Its "role" marks our overlays, so that no
# panel takes a prediction for an angiogram. Layers are never looked up by it: they are
# held by reference.
METADATA = "napari_cmunet"

# An orange fill through which the vessel is still seen, and a thin cyan line: apart
# for every kind of colour vision, and on grey.
MASK_COLOUR = (1.0, 0.55, 0.0, 1.0)
MASK_OPACITY = 0.45
PREDICTION_COLOUR = (0.1, 0.9, 1.0, 1.0)
PREDICTION_OPACITY = 0.9
OUTLINE_WIDTH = 2


def is_image(layer: Layer) -> bool:
    """Whether the layer is an image that is not one of our own overlays."""
    return isinstance(layer, Image) and "role" not in record_of(layer)


def record_of(layer: Layer) -> Mapping[str, Any]:
    """Our own entry in a layer's metadata, empty where there is none."""
    record = layer.metadata.get(METADATA)
    return record if isinstance(record, Mapping) else {}


def source_array(image: Image) -> Any:
    """The full-resolution array behind an image layer."""
    return image.data[0] if image.multiscale else image.data


def is_cine(image: Image) -> bool:
    """Whether the image has a time axis."""
    return image.ndim == 3


def why_not(image: Image) -> str | None:
    """Say why an image cannot be segmented, or None where it can.

    Looks at shape and type and, for colour images, at a few thousand pixels, so
    it is quick enough for the GUI thread.
    """
    data = source_array(image)
    if image.ndim not in (2, 3):
        return (
            f"This image has {image.ndim} dimensions. An angiogram is one frame "
            "(Y, X) or a cine (T, Y, X)."
        )
    dtype = np.dtype(data.dtype)
    if dtype.kind == "b":
        return "This is a yes/no image, not an angiogram."
    if dtype.kind not in "uif":
        return f"Pixels of type {dtype} cannot be segmented."
    if image.rgb and not _is_grey(data, image.ndim):
        return "This is a colour image. An angiogram is grey."
    return None


def _is_grey(data: Any, ndim: int) -> bool:
    frame = data[data.shape[0] // 2] if ndim == 3 else data
    step = max(1, max(frame.shape[:2]) // 256)
    sample = np.asarray(frame[::step, ::step, :3])
    return bool((sample == sample[..., :1]).all())


def read_frame(data: Any, index: int, *, cine: bool, rgb: bool) -> np.ndarray:
    """Read one frame as (Y, X). May read from disk: for the worker's thread."""
    frame = np.asarray(data[index] if cine else data)
    return frame[..., 0] if rgb else frame


def frame_shape(image: Image) -> tuple[int, int, int]:
    """Return the (T, Y, X) of an image; T is 1 for a single frame."""
    shape = source_array(image).shape
    if image.rgb:
        shape = shape[:-1]
    return tuple(int(n) for n in ((1, *shape) if image.ndim == 2 else shape))


def shown_frame(image: Image, viewer: ViewerModel, count: int) -> int:
    """Index of the image's frame, of ``count``, that the viewer shows."""
    if not is_cine(image):
        return 0
    position = image.world_to_data(viewer.dims.point)[0]
    return int(np.clip(np.round(position), 0, max(0, count - 1)))


def show_frame(image: Image, viewer: ViewerModel, frame: int) -> None:
    """Let the viewer show a frame of a cine."""
    world = image.data_to_world((frame, 0, 0))
    viewer.dims.set_point(viewer.dims.ndim - image.ndim, world[0])


def geometry(image: Image) -> dict[str, Any]:
    """Where the image lies in the world, for a layer that covers the same pixels."""
    return {
        "scale": image.scale,
        "translate": image.translate,
        "rotate": image.rotate,
        "shear": image.shear,
        "affine": image.affine,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def let_viewer_keys_through(layer: Layer, viewer: ViewerModel) -> None:
    """Let the viewer's keys work on a layer whose kind has some of them for itself.

    Boxes and lines are drawn on Shapes layers, where napari would take S, D, T, I and A
    for tools of its own.
    """

    def passed_on(act: Callable[[ViewerModel], None]) -> Callable[[Layer], None]:
        return lambda _layer: act(viewer)

    for key, act in viewer.keymap.items():
        if key in type(layer).class_keymap and not inspect.isgeneratorfunction(act):
            layer.bind_key(key, passed_on(act), overwrite=True)


def _colours(colour: tuple[float, ...]) -> CyclicLabelColormap:
    # One colour for every label but 0: a stray label 2 is artery and must not look like
    # nothing. A direct colormap would do too, but compiles for seconds at first use.
    return CyclicLabelColormap(colors=[(0, 0, 0, 0), colour])


def make_prediction_layer(image: Image, found: np.ndarray) -> Labels:
    """Show what the model has found as a thin line, which no brush can change."""
    layer = Labels(
        found,
        name=f"{image.name} prediction",
        colormap=_colours(PREDICTION_COLOUR),
        opacity=PREDICTION_OPACITY,
        metadata={METADATA: {"role": "prediction"}},
        **geometry(image),
    )
    layer.contour = 1
    layer.editable = False
    return layer


def make_mask_layer(image: Image, data: np.ndarray) -> Labels:
    """Build the editable mask with a brush of sensible size."""
    mask = Labels(
        data,
        name=f"{image.name} mask",
        colormap=_colours(MASK_COLOUR),
        opacity=MASK_OPACITY,
        metadata={METADATA: {"role": "mask"}},
        **geometry(image),
    )
    mask.selected_label = 1
    mask.brush_size = max(2, round(min(data.shape[-2:]) / 75))
    return mask


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


def add_prediction(viewer: ViewerModel, image_state: ImageState) -> Layer:
    """Lay the prediction over the image."""
    layer = image_state.new_prediction_layer()
    place_above(viewer, layer, image_state.image)
    return layer


def add_mask(viewer: ViewerModel, image_state: ImageState, *, select: bool) -> Layer:
    """Lay a mask over image and prediction, and put the brush in hand."""
    layer = image_state.new_mask_layer()
    below = (
        image_state.prediction
        if image_state.prediction is not None
        else image_state.image
    )
    place_above(viewer, layer, below)
    if select:
        viewer.layers.selection.active = layer
    layer.mode = "paint"
    return layer


def show_alone(
    viewer: ViewerModel, image_states: Iterable[ImageState], chosen: ImageState
) -> None:
    """Show one image with its layers and hide the others; select what is edited."""
    for image_state in image_states:
        mine = image_state is chosen
        set_visible(image_state.image, mine)
        set_visible(image_state.mask, mine)
        set_visible(image_state.prediction, mine and image_state.show_prediction)
    target = chosen.mask if chosen.mask is not None else chosen.image
    if target in viewer.layers:
        viewer.layers.selection.active = target
