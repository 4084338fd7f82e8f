"""What napari shows of open images: the view, the frame of a stroke, units, pixels.

Layers whose file napari has read otherwise are exchanged; those of an image that is
closed show the next one.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.layers._source import layer_source

from napari_cmunet.gui.images import layers
from napari_cmunet.gui.images.layers import (
    METADATA,
    geometry,
    record_of,
    reset_tools,
    source_array,
)
from napari_cmunet.gui.jobs import Job
from napari_cmunet.reader import may_differ, read_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import JobResult
    from napari_cmunet.reader import LayerData


_MARGIN = 0.05  # of the canvas, as napari's own


class StrokeHold:
    """Keeps a stroke in the frame it began in, whatever moves the slider.

    One undo step would otherwise change several frames, all but one out of sight.
    """

    def __init__(self) -> None:
        self._point: tuple[float, ...] | None = None

    def hold(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """Hold the slider until the mouse button is released. A drag callback."""
        self._point = viewer.dims.point
        try:
            yield
            while event.type == "mouse_move":
                yield
        finally:
            self._point = None

    def restore(self, viewer: ViewerModel) -> bool:
        """Move the slider back during a stroke; return whether there is one."""
        if self._point is None:
            return False
        dims = viewer.dims
        if dims.point != self._point and len(dims.point) == len(self._point):
            dims.point = self._point
        return True


class ViewFitter:
    """Fits the view to one image, whatever else is open and hidden.

    napari's Home fits all layers, hidden ones too: an image of another scale becomes a
    stamp in a corner. A fitted view stays fitted when the canvas is resized.

    Parameters
    ----------
    image : callable
        Returns the image to fit, if any.
    """

    def __init__(self, image: Callable[[], Layer | None]) -> None:
        self._image = image
        self._viewer: weakref.ref[ViewerModel] | None = None
        self._fitted: tuple[float, ...] = ()

    def connect(self, viewer: ViewerModel) -> None:
        """Follow Home and the size of the canvas."""
        self._viewer = weakref.ref(viewer)
        viewer.events.reset_view.connect(self.fit)
        viewer.canvas.events.size.connect(self._on_resized)

    def disconnect(self, viewer: ViewerModel) -> None:
        """Stop following."""
        viewer.events.reset_view.disconnect(self.fit)
        viewer.canvas.events.size.disconnect(self._on_resized)

    def fit(self, event: Any = None) -> None:
        """Fit the view to the image."""
        viewer = self._viewer() if self._viewer is not None else None
        if viewer is None:
            return
        image = self._image()
        if image is not None and not _fit_2d(viewer, image):
            return
        self._fitted = _camera(viewer)

    def _on_resized(self, event: Any = None) -> None:
        viewer = self._viewer() if self._viewer is not None else None
        if viewer is None or not self._fitted:
            return
        if np.allclose(_camera(viewer), self._fitted):
            self.fit()


def _fit_2d(viewer: ViewerModel, image: Layer) -> bool:
    """Fit the view to one image; napari's own can only fit the widest layers."""
    dims = viewer.dims
    if dims.ndisplay != 2 or tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
        return False
    corners = image.extent.world[:, -2:]
    size = np.abs(corners[1] - corners[0]) + np.abs(image.scale[-2:])
    if not (np.all(np.isfinite(size)) and np.all(size > 0)):
        return False
    camera = viewer.scene.camera
    camera.center = (0.0, *(float(value) for value in corners.mean(axis=0)))
    camera.zoom = float((1 - _MARGIN) * np.min(np.array(viewer.canvas.size) / size))
    return True


def _camera(viewer: ViewerModel) -> tuple[float, ...]:
    camera = viewer.scene.camera
    return (*camera.center[-2:], camera.zoom)


class UnitKeeper:
    """Gives all layers the same units.

    napari warns about layers in millimetres beside layers in pixels and ignores the
    units of both. So as long as both are open, all are in pixels; the pixel size stays
    in the metadata.
    """

    def __init__(self) -> None:
        self._own: weakref.WeakKeyDictionary[Layer, tuple] = weakref.WeakKeyDictionary()
        self._updating = False

    def note(self, layer: Layer) -> None:
        """Take the units that a layer was given by somebody else."""
        if not self._updating:
            self._own[layer] = tuple(layer.units)

    def update(
        self, layers: Sequence[Layer], image_of: Callable[[Layer], Layer | None]
    ) -> None:
        """Use each layer's own units if they agree, else pixels."""
        if self._updating:
            return
        self._updating = True
        try:
            wanted = {layer: self._units(layer, image_of(layer)) for layer in layers}
            agree = _agree(wanted.values())
            for layer, units in wanted.items():
                if not agree:
                    _keep_pixel_size(layer)
                    units = ("pixel",) * layer.ndim
                if [str(u) for u in layer.units] != [str(u) for u in units]:
                    layer.units = units
        finally:
            self._updating = False

    def _units(self, layer: Layer, image: Layer | None) -> tuple:
        source = layer if image is None or image.ndim != layer.ndim else image
        return self._own.setdefault(source, tuple(source.units))


def _agree(units: Any) -> bool:
    axes: dict[int, Any] = {}
    for layer_units in units:
        for axis, unit in enumerate(reversed(layer_units)):
            kind = getattr(unit, "dimensionality", unit)
            if axes.setdefault(axis, kind) != kind:
                return False
    return True


def _keep_pixel_size(layer: Layer) -> None:
    in_mm = all(str(u) in ("mm", "millimeter") for u in layer.units[-2:])
    if isinstance(layer, Image) and in_mm and "pixel_size_mm" not in record_of(layer):
        size = tuple(float(value) for value in layer.scale[-2:])
        layer.metadata[METADATA] = {**record_of(layer), "pixel_size_mm": size}


def _note_eye(image_state: ImageState) -> None:
    """Take over whether the user has hidden the prediction by the layer's eye.

    Where the mask is hidden as well, the program may have done it: another image is in
    front, or a catheter is measured.
    """
    prediction = image_state.prediction
    if prediction is not None and any(o.visible for o in image_state.overlays()):
        image_state.show_prediction = prediction.visible


def show_alone(
    viewer: ViewerModel, images: Iterable[ImageState], chosen: ImageState
) -> None:
    """Show one image with its layers, hide the others; select what is edited."""
    for image_state in images:
        _note_eye(image_state)
        shown = image_state is chosen
        layers.set_visible(image_state.image, shown)
        layers.set_visible(image_state.mask, shown)
        layers.set_visible(
            image_state.prediction, shown and image_state.show_prediction
        )
    if not layers.has_shown_frame(chosen.image, viewer, chosen.count):
        last = layers.shown_frame(chosen.image, viewer, chosen.count)
        layers.show_frame(chosen.image, viewer, last)
    target = chosen.mask if chosen.mask is not None else chosen.image
    if target in viewer.layers:
        viewer.layers.selection.active = target


class FileCheck:
    """Compares new image layers with their files, as this program reads them.

    The command line and a project read files with this program's reader, so a layer
    that shows other pixels is exchanged for one that shows the same.

    Parameters
    ----------
    on_checked : callable
        Called when a layer that was pending is checked.
    """

    def __init__(
        self, viewer: weakref.ref[ViewerModel], on_checked: Callable[[], None]
    ) -> None:
        self._viewer, self._on_checked = viewer, on_checked
        self._jobs: dict[Image, Job] = {}
        self._checked: weakref.WeakSet[Image] = weakref.WeakSet()
        self._problems: weakref.WeakKeyDictionary[Image, str] = (
            weakref.WeakKeyDictionary()
        )

    def problem(self, image: Image) -> str | None:
        """Return why the file of a layer cannot be used, None if it can."""
        return self._problems.get(image)

    def is_pending(self, image: Image) -> bool:
        """Whether a layer is being checked; starts the check where one is needed."""
        if image in self._jobs:
            return True
        if image in self._checked or image.source.reader_plugin != "napari":
            return False
        path = Path(str(image.source.path))
        odd = layers.unsupported(image) is not None or layers.is_small(image)
        if not path.is_file() or not (odd or may_differ(path)):
            return False

        def ended(result: JobResult) -> None:
            self._jobs.pop(image, None)
            self._checked.add(image)
            viewer = self._viewer()
            if viewer is None or image not in viewer.layers:
                return
            if result.error is not None:
                self._problems[image] = str(result.error)
            elif not layers.shows(image, result.result[0]):
                _exchange(viewer, image, result.result, path)
            self._on_checked()

        job = Job("Reading the file", lambda *_: read_again(path), ended)
        self._jobs[image] = job.start()
        return True


def _exchange(viewer: ViewerModel, image: Image, read: LayerData, path: Path) -> None:
    """Exchange a layer for one with the pixels that were read from its file."""
    data, options, _ = read
    with layer_source(path=str(path), reader_plugin="napari-cmunet"):
        made = type(image)(data, **options | {"name": image.name})
    index = viewer.layers.index(image)
    viewer.layers.remove(image)
    viewer.layers.insert(index, made)
    viewer.layers.selection.active = made


# Adding and removing layers is slow in napari: it collects Python's garbage each time.
# New pixels in an existing layer are fast.
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
    _note_eye(former)
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
    image_state.show_prediction = former.show_prediction
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
