"""The layer that shows a measured stretch: its borders, its lesion and its MLD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap
from napari.utils.transforms import Affine

from napari_cmunet.gui.images.layers import (
    METADATA,
    geometry,
    insert_above,
    remove_layer,
)
from napari_cmunet.vessels.centreline import resample

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.qca import Analysis

BORDER, LESION = 1, 2
# Apart from the mask's orange, and from each other in lightness and width.
_COLOURS = CyclicLabelColormap(
    colors=[(0, 0, 0, 0), (0.34, 0.71, 0.91, 1.0), (1.0, 1.0, 1.0, 1.0)]
)
_FINE = 4  # pixels of the layer for each of the image, both ways
_MARGIN = 24  # pixels of the image around the stretch
_BAR = 4.0  # beyond the borders, where the lesion begins and ends: pixels


class MeasurementOverlay:
    """A layer of one frame, finer than the image, around the measured stretch."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.layer: Labels | None = None
        self._origin = np.zeros(2, int)

    def show(self, image_state: ImageState, frame: int, analysis: Analysis) -> None:
        """Draw an analysis over a frame of an image."""
        curves = [
            (BORDER, 1, curve, None) for curve in analysis.borders.curves()
        ] + _lesion_curves(analysis)
        points = np.concatenate([curve for _, _, curve, _ in curves])
        if self.layer is None or not self._holds(points):
            self.hide()
            self._add(image_state, frame, points)
        layer = self.layer
        assert layer is not None
        pixels = layer.data[0] if layer.ndim == 3 else layer.data
        pixels[...] = 0
        for value, width, curve, part in curves:
            _draw(pixels, (curve[part] if part else curve) - self._origin, value, width)
        layer.refresh(thumbnail=False, highlight=False, extent=False)

    def hide(self) -> None:
        """Remove the layer. Idempotent."""
        layer, self.layer = self.layer, None
        remove_layer(self._viewer, layer)

    def _holds(self, points: np.ndarray) -> bool:
        assert self.layer is not None
        size = np.array(self.layer.data.shape[-2:]) / _FINE
        inside = (points >= self._origin) & (points < self._origin + size)
        return self.layer in self._viewer.layers and bool(inside.all())

    def _add(self, image_state: ImageState, frame: int, points: np.ndarray) -> None:
        image = image_state.image
        self._origin = np.floor(points.min(axis=0)).astype(int) - _MARGIN
        size = np.ceil(points.max(axis=0)).astype(int) + _MARGIN - self._origin
        shape = (int(_FINE * size[0]), int(_FINE * size[1]))
        # On a cine it is a single frame at the position of that frame.
        first = [frame] if image_state.is_cine else []
        corner = [*first, *(self._origin + 0.5 / _FINE - 0.5)]
        place = geometry(image)
        place["translate"] = Affine(
            scale=image.scale,
            rotate=image.rotate,
            shear=image.shear,
            translate=image.translate,
        )(corner)
        place["scale"] = (*image.scale[:-2], *(image.scale[-2:] / _FINE))
        self.layer = Labels(
            np.zeros((1, *shape) if first else shape, np.uint8),
            name="measurement",
            colormap=_COLOURS,
            opacity=0.9,
            metadata={METADATA: {"role": "measurement"}},
            **place,
        )
        self.layer.editable = False
        insert_above(self._viewer, self.layer, image_state.mask)


def _lesion_curves(
    analysis: Analysis,
) -> list[tuple[int, int, np.ndarray, slice | None]]:
    """Value, width and points of what is drawn of the lesion."""
    lesion, (left, right) = analysis.narrowest, analysis.borders.curves()
    part = slice(lesion.start, lesion.end + 1)
    curves: list[tuple[int, int, np.ndarray, slice | None]] = [
        (LESION, 2, curve, part) for curve in (left, right)
    ]
    for at, longer in ((lesion.start, _BAR), (lesion.at, 0.0), (lesion.end, _BAR)):
        across = right[at] - left[at]
        across = across / max(float(np.hypot(*across)), 1e-9)
        bar = np.stack([left[at] - longer * across, right[at] + longer * across])
        curves.append((LESION, 2 if at == lesion.at else 1, bar, None))
    return curves


def _draw(pixels: np.ndarray, curve: np.ndarray, value: int, width: int) -> None:
    """Draw a curve in pixels of the image, so many pixels of the layer wide."""
    fine = (resample(curve, 1 / _FINE) + 0.5) * _FINE - 0.5
    at = np.round(fine - width / 2).astype(int)
    at = at[((at >= 0) & (at < np.array(pixels.shape) - width)).all(axis=1)]
    for row, column in np.ndindex(width + 1, width + 1):
        pixels[at[:, 0] + row, at[:, 1] + column] = value
