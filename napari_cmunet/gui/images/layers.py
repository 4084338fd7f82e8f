"""Layers of an image in napari: make, place, show and hide them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_cmunet.io.formats.decoded import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cmunet.gui.images.mask_history import MaskHistory

MIN_SIDE = DEFAULT_LIMITS.min_side

# The key of our entry in a layer's metadata. Its "role" marks our overlays, so that no
# panel takes a prediction for an angiogram. Layers are held by reference and never
# looked up by it.
METADATA = "napari_cmunet"

# An orange fill that leaves the vessel visible, a thin cyan line, and a darker blue one
# around what was there before the contrast: distinct for every kind of colour vision.
MASK_COLOUR = (1.0, 0.55, 0.0, 1.0)
MASK_OPACITY = 0.45
PREDICTION_COLOUR = (0.1, 0.9, 1.0, 1.0)
PREDICTION_OPACITY = 0.9
SEEN_BEFORE_COLOUR = (0.4, 0.5, 1.0, 1.0)
SEEN_BEFORE = 2
"""Value, in the layer of the prediction, of what was there before the contrast."""
OUTLINE_WIDTH = 2


def is_image(layer: Layer) -> bool:
    """Whether the layer is an image that is not one of our own overlays."""
    return isinstance(layer, Image) and "role" not in record_of(layer)


def record_of(layer: Layer) -> Mapping[str, Any]:
    """Our own entry in a layer's metadata, empty if there is none."""
    record = layer.metadata.get(METADATA)
    return record if isinstance(record, Mapping) else {}


def is_inverted(image: Image) -> bool:
    """Whether an image shows the inverted grey values of its file."""
    return bool(record_of(image).get("is_inverted"))


def pixel_size_mm(image: Image) -> tuple[float, float] | None:
    """Pixel size (y, x), if known from the file or from the layer's units."""
    size = record_of(image).get("pixel_size_mm") or image.metadata.get("pixel_size_mm")
    if size is None and all(str(u) in ("mm", "millimeter") for u in image.units[-2:]):
        size = image.scale[-2:]
    try:
        height, width = (abs(float(value)) for value in size)
    except (TypeError, ValueError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def source_array(image: Image) -> Any:
    """The full-resolution array behind an image layer."""
    return image.data[0] if image.multiscale else image.data


def is_cine(image: Image) -> bool:
    """Whether the image has a time axis."""
    return image.ndim == 3


def unsupported(image: Image) -> str | None:
    """Say why an image cannot be segmented; None if it can.

    Looks at shape and type and, for colour images, at a few thousand pixels, so
    it is quick enough for the GUI thread.
    """
    data = source_array(image)
    if image.ndim not in (2, 3):
        return (
            f"This image has {image.ndim} dimensions. An angiogram is one frame "
            "(Y, X) or a cine (T, Y, X)."
        )
    rows, columns = frame_shape(image)[-2:]
    if min(rows, columns) < MIN_SIDE:
        return (
            f"Too small: {rows} x {columns} pixels. An angiogram has at least "
            f"{MIN_SIDE} x {MIN_SIDE}."
        )
    dtype = np.dtype(data.dtype)
    if dtype.kind == "b":
        return "This is a yes/no image, not an angiogram."
    if dtype.kind not in "uif":
        return f"Pixels of type {dtype} cannot be segmented."
    if image.rgb and not _is_grey(data, image.ndim):
        return "This is a colour image. An angiogram is grey."
    return None


def is_small(image: Image) -> bool:
    """Whether a file with such frames is refused as too small for an angiogram."""
    return min(source_array(image).shape[1 if is_cine(image) else 0 :]) < MIN_SIDE


def shows(image: Image, read: Any) -> bool:
    """Whether a layer shows the frames that were read from its file."""
    data = source_array(image)
    if image.rgb or data.shape != read.shape or data.dtype != read.dtype:
        return False
    return all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in (zip(data, read, strict=True) if data.ndim == 3 else [(data, read)])
    )


def _is_grey(data: Any, ndim: int) -> bool:
    frame = data[data.shape[0] // 2] if ndim == 3 else data
    step = max(1, max(frame.shape[:2]) // 256)
    sample = np.asarray(frame[::step, ::step, :3])
    return bool((sample == sample[..., :1]).all())


@dataclass(frozen=True)
class Frames:
    """The frames of an image. Reading one may decode a file: for worker threads."""

    data: Any
    is_cine: bool
    rgb: bool

    @classmethod
    def of(cls, image: Image) -> Frames:
        """Refer to the frames that an image layer has now."""
        return cls(source_array(image), is_cine(image), bool(image.rgb))

    def __len__(self) -> int:
        return len(self.data) if self.is_cine else 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one frame as (Y, X)."""
        frame = np.asarray(self.data[index] if self.is_cine else self.data)
        return frame[..., 0] if self.rgb else frame


def frame_shape(image: Image) -> tuple[int, int, int]:
    """Return the (T, Y, X) of an image; T is 1 for a single frame."""
    shape = source_array(image).shape
    if image.rgb:
        shape = shape[:-1]
    frames = 1 if image.ndim == 2 else int(shape[0])
    return frames, int(shape[-2]), int(shape[-1])


def frame_position(image: Image, viewer: ViewerModel) -> float:
    """Where the viewer's slider is, in frames of the image; 0 for a single frame."""
    if not is_cine(image):
        return 0.0
    return float(image.world_to_data(viewer.dims.point)[0])


def shown_frame(image: Image, viewer: ViewerModel, count: int) -> int:
    """Index of the image's frame, of ``count``, that the viewer shows."""
    position = frame_position(image, viewer)
    return int(np.clip(np.round(position), 0, max(0, count - 1)))


def pixel_at(mask: Labels, position: Sequence[float]) -> tuple[float, float] | None:
    """Row and column of a mask at a position in the world; None outside."""
    row, column = mask.world_to_data(position)[-2:]
    rows, columns = mask.data.shape[-2:]
    inside = -0.5 <= row < rows - 0.5 and -0.5 <= column < columns - 0.5
    return (float(row), float(column)) if inside else None


def show_frame(image: Image, viewer: ViewerModel, frame: int) -> None:
    """Show a frame of a cine in the viewer."""
    world = image.data_to_world((frame, 0, 0))
    viewer.dims.set_point(viewer.dims.ndim - image.ndim, world[0])


def geometry(image: Image) -> dict[str, Any]:
    """Scale, position and units of the image, for a layer over the same pixels."""
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
    """Make the viewer's keys work in a layer whose type binds some of them itself.

    Shapes layers bind S, D, T, I and A to tools of their own, Image layers Y.
    """

    def passed_on(key: Any) -> Callable[[Layer], None]:
        def act(_layer: Layer) -> None:
            if (bound := viewer.keymap.get(key)) is not None:
                bound(viewer)

        return act

    for key, act in viewer.keymap.items():
        if key in type(layer).class_keymap and not inspect.isgeneratorfunction(act):
            layer.bind_key(key, passed_on(key), overwrite=True)


def _colours(*colours: tuple[float, ...]) -> CyclicLabelColormap:
    # In a mask, one colour for every label but 0: a stray label 2 is artery, too. A
    # direct colormap would do the same, but compiles for seconds at first use.
    return CyclicLabelColormap(colors=[(0, 0, 0, 0), *colours])


def make_prediction_layer(image: Image, found: np.ndarray) -> Labels:
    """Make the read-only layer of the prediction, a thin outline.

    Parameters
    ----------
    found : uint8 array
        1 is artery, :data:`SEEN_BEFORE` what was there before the contrast.
    """
    layer = Labels(
        found,
        name=f"{image.name} prediction",
        colormap=_colours(PREDICTION_COLOUR, SEEN_BEFORE_COLOUR),
        opacity=PREDICTION_OPACITY,
        metadata={METADATA: {"role": "prediction"}},
        **geometry(image),
    )
    layer.contour = 1
    layer.editable = False
    return layer


def make_mask_layer(image: Image, data: np.ndarray) -> Labels:
    """Make the editable mask, with a brush size that suits the image."""
    mask = Labels(
        data,
        name=f"{image.name} mask",
        colormap=_colours(MASK_COLOUR),
        opacity=MASK_OPACITY,
        metadata={METADATA: {"role": "mask"}},
        **geometry(image),
    )
    reset_tools(mask)
    return mask


def reset_tools(mask: Labels) -> None:
    """Put all tools down, and set the brush to a width that suits the image."""
    mask.mode = "pan_zoom"
    mask.selected_label = 1
    mask.preserve_labels = False
    mask.contiguous = True
    mask.n_edit_dimensions = 2
    mask.brush_size = max(2, round(min(mask.data.shape[-2:]) / 75))


def set_visible(layer: Layer | None, visible: bool) -> None:
    """Show or hide a layer. Setting the same again would reset its tool."""
    if layer is not None and layer.visible != visible:
        layer.visible = visible


def insert_above(viewer: ViewerModel, layer: Layer, below: Layer | None) -> None:
    """Insert a layer right above another; the selection stays."""
    layers = viewer.layers
    selected = set(layers.selection)
    active = layers.selection.active
    index = layers.index(below) + 1 if below in layers else len(layers)
    layers.insert(index, layer)
    if active is not None:
        layers.selection.active = active
        layers.selection.update(selected)


def remove_layer(viewer: ViewerModel, layer: Layer | None) -> None:
    """Remove a layer, if it is there; another active one stays active."""
    layers = viewer.layers
    if layer is None or layer not in layers:
        return
    active = layers.selection.active
    layers.remove(layer)
    if active is not None and active is not layer:
        layers.selection.active = active


def watch_undo(
    mask: Labels,
    history: MaskHistory,
    on_undo: Callable[[], None],
    on_redo: Callable[[], None],
) -> None:
    """Call back after an undo or redo of a layer, for which napari has no event.

    Steps that are in the program's history alone are undone there.
    """
    undo, redo = mask.undo, mask.redo

    def undo_and_notify() -> None:
        if not history.undo_naming():
            undo()
            on_undo()

    def redo_and_notify() -> None:
        if not history.redo_naming():
            redo()
            on_redo()

    mask.undo, mask.redo = undo_and_notify, redo_and_notify


def unwatch_undo(mask: Labels) -> None:
    """Restore napari's own undo and redo."""
    del mask.undo, mask.redo


def has_shown_frame(image: Layer, viewer: ViewerModel, count: int) -> bool:
    """Whether the slider is at one of the ``count`` frames of an image."""
    return -0.5 <= frame_position(image, viewer) <= max(0, count - 1) + 0.5


def emitters(
    layers: Iterable[Layer | None], slots: Mapping[str, Callable]
) -> Iterator[tuple[Any, Callable]]:
    """Pair the events that layers have with the slots that are meant for them."""
    for layer in filter(None, layers):
        for name, slot in slots.items():
            if name in layer.events.emitters:
                yield getattr(layer.events, name), slot
