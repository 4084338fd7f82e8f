"""Exchange what layers show: the pixels of a file that is read again, another image."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers._source import layer_source

from napari_cmunet.gui.images import layers
from napari_cmunet.gui.images.layers import geometry, reset_tools, source_array
from napari_cmunet.gui.jobs import Job
from napari_cmunet.reader import may_differ, read_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import JobResult
    from napari_cmunet.reader import LayerData


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
