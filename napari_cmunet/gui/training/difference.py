"""What another model finds on an image that the one before did not, and what it lost.

A layer to look at: no brush changes it, and the reader's own mask is not touched.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_cmunet.gui.layers import METADATA, geometry
from napari_cmunet.gui.overlays import place_above

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

FOUND_NOW, GONE_NOW = 1, 2
# A bright yellow and a dark purple: apart by lightness alone, and from the mask's
# orange and the prediction's cyan.
_COLOURS = [(0, 0, 0, 0), (0.94, 0.89, 0.26, 1), (0.8, 0.3, 0.75, 1)]
_OPACITY = 0.85


@dataclass(frozen=True)
class Difference:
    """How much changed, in pixels; ``str()`` is for people."""

    found: int
    gone: int
    before: int

    def __str__(self) -> str:
        if not self.found and not self.gone:
            return "The new model finds exactly the same here."
        parts = []
        for pixels, what in (
            (self.found, "found now (yellow)"),
            (self.gone, "gone now (purple)"),
        ):
            share = f" ({pixels / self.before:.0%})" if self.before else ""
            parts.append(f"{pixels:,} pixels{share} {what}")
        return ", ".join(parts) + ". Your own mask was not touched."


class DifferenceView:
    """Shows the difference of two predictions over one image at a time.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._layer: weakref.ref[Labels] | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer that is shown, None if there is none or the reader deleted it."""
        layer, viewer = self._layer() if self._layer else None, self._viewer()
        if layer is None or viewer is None or layer not in viewer.layers:
            return None
        return layer

    def show(
        self,
        image: Image,
        before: np.ndarray,
        after: np.ndarray,
        below: Layer | None = None,
    ) -> Difference:
        """Lay the difference over an image, in the place of an earlier one.

        Parameters
        ----------
        image : Image
        before, after : bool arrays (Y, X) or (T, Y, X)
            What the two models find, on the image's own grid.
        below : Layer, optional
            The layer to lie right above, such as the prediction; the image by default.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        if before.shape != after.shape:
            raise ValueError(f"shapes differ: {before.shape} and {after.shape}")
        before, after = before != 0, after != 0
        change = np.zeros(before.shape, np.uint8)
        change[after & ~before] = FOUND_NOW
        change[before & ~after] = GONE_NOW
        self.hide()
        layer = Labels(
            change,
            name=f"{image.name} difference",
            colormap=CyclicLabelColormap(colors=_COLOURS),
            opacity=_OPACITY,
            metadata={METADATA: {"role": "difference"}},
            **geometry(image),
        )
        layer.editable = False
        place_above(self._viewer(), layer, below if below is not None else image)
        self._layer = weakref.ref(layer)
        return Difference(
            int((change == FOUND_NOW).sum()),
            int((change == GONE_NOW).sum()),
            int(before.sum()),
        )

    def hide(self) -> None:
        """Take the layer away; nothing if it is gone already."""
        if (layer := self.layer) is not None:
            self._viewer().layers.remove(layer)
        self._layer = None
