"""The layer that shows what a click would do, before it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_cmunet.gui.images.layers import METADATA, insert_above

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.edits import Edit

Mark = tuple[np.ndarray, np.ndarray, int]
"""Rows, columns and a value of :data:`UNSURE` or :data:`PLACE`."""

ADDED, REMOVED, UNSURE, PLACE = 1, 2, 3, 4

# Apart in lightness as well as in hue, from each other, from the mask's orange and
# from the prediction's cyan.
_COLOURS = CyclicLabelColormap(
    colors=[
        (0, 0, 0, 0),
        (1.0, 1.0, 1.0, 1.0),
        (0.75, 0.0, 0.85, 1.0),
        (1.0, 0.95, 0.2, 1.0),
        (1.0, 1.0, 1.0, 1.0),
    ]
)


class Preview:
    """A layer of one frame above a mask, for the tool in hand and the tour's place.

    Parameters
    ----------
    viewer : ViewerModel
    name : str
        Of the layer.
    """

    def __init__(self, viewer: ViewerModel, name: str = "vessel tool preview") -> None:
        self._viewer, self._name = viewer, name
        self.layer: Labels | None = None
        self._of: tuple[ImageState, int] | None = None
        self._below = np.zeros((1, 1), np.uint8)
        self._drawn: tuple[Edit | None] | None = None

    def lies_over(self, image_state: ImageState, frame: int) -> bool:
        """Whether it is shown, and over this frame of this image."""
        return (
            self._of is not None
            and self._of[0] is image_state
            and self._of[1] == frame
            and self.layer in self._viewer.layers
        )

    def show(self, image_state: ImageState, frame: int) -> None:
        """Lay an empty preview over a frame, if it does not lie there yet."""
        if self.lies_over(image_state, frame):
            return
        self.hide()
        mask = image_state.mask
        shape = mask.data.shape[-2:]
        cine = mask.ndim == 3
        self._below = np.zeros(shape, np.uint8)
        geometry = {
            name: getattr(mask, name)
            for name in ("scale", "rotate", "shear", "affine", "units", "axis_labels")
        }
        # A cine's preview is a single frame, put where that frame lies.
        origin = mask.translate
        if cine:
            origin = np.array(mask.translate, float)
            origin[0] += frame * mask.scale[0]
        self.layer = Labels(
            np.zeros((1, *shape) if cine else shape, np.uint8),
            name=self._name,
            colormap=_COLOURS,
            opacity=0.75,
            metadata={METADATA: {"role": "preview"}},
            translate=origin,
            **geometry,
        )
        self.layer.editable = False
        insert_above(self._viewer, self.layer, mask)
        self._of = (image_state, frame)
        self._drawn = None

    def hide(self) -> None:
        """Take the preview away."""
        layer, self.layer, self._of = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            active = self._viewer.layers.selection.active
            self._viewer.layers.remove(layer)
            if active is not None and active is not layer:
                self._viewer.layers.selection.active = active

    def draw_below(self, marks: list[Mark]) -> None:
        """Set what is shown beneath every offer: unsure branches, the place to look."""
        self._below[...] = 0
        for rows, columns, value in marks:
            self._below[rows, columns] = value
        self._drawn = None
        self.draw(None)

    def draw(self, edit: Edit | None) -> None:
        """Show an edit: what it would add, and what it would remove."""
        if self.layer is None:
            return
        state = edit if edit is not None and len(edit) else None
        if self._drawn is not None and self._drawn[0] is state:
            return
        pixels = self.layer.data[0] if self.layer.ndim == 3 else self.layer.data
        pixels[...] = self._below
        if state is not None:
            pixels[edit.where] = np.where(edit.values > 0, ADDED, REMOVED)
        self._drawn = (state,)
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)
