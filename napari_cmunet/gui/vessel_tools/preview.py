"""The layer that previews an edit and marks uncertain places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_cmunet.gui.images.layers import (
    MASK_COLOUR,
    METADATA,
    PREDICTION_COLOUR,
    SEEN_BEFORE_COLOUR,
    insert_above,
    remove_layer,
)
from napari_cmunet.vessels.centreline import tube

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.edits import Edit
    from napari_cmunet.vessels.tools import EditContext, VesselTool

Mark = tuple[np.ndarray, np.ndarray, int]
"""Rows, columns and a value of :data:`UNCERTAIN` or :data:`PLACE`."""

ADDED, REMOVED, UNCERTAIN, PLACE = 1, 2, 3, 4

# Distinct in lightness and hue from each other, from the mask's orange and from the
# prediction's cyan.
ADDED_COLOUR = (1.0, 1.0, 1.0, 1.0)
REMOVED_COLOUR = (0.75, 0.0, 0.85, 1.0)
UNCERTAIN_COLOUR = (1.0, 0.95, 0.2, 1.0)
LEGEND = (
    ("mask", MASK_COLOUR),
    ("prediction", PREDICTION_COLOUR),
    ("before contrast", SEEN_BEFORE_COLOUR),
    ("to be added", ADDED_COLOUR),
    ("to be removed", REMOVED_COLOUR),
    ("uncertain", UNCERTAIN_COLOUR),
)
_COLOURS = CyclicLabelColormap(
    colors=[
        (0, 0, 0, 0),
        ADDED_COLOUR,
        REMOVED_COLOUR,
        UNCERTAIN_COLOUR,
        (1.0, 1.0, 1.0, 1.0),
    ]
)


class Preview:
    """A layer of one frame above a mask, for the active tool and the guided review."""

    def __init__(self, viewer: ViewerModel, name: str = "vessel tool preview") -> None:
        self._viewer, self._name = viewer, name
        self.layer: Labels | None = None
        self._of: tuple[ImageState, int] | None = None
        self._below = np.zeros((1, 1), np.uint8)
        self._drawn: tuple[Edit | None] | None = None

    def is_over(self, image_state: ImageState, frame: int) -> bool:
        """Whether it is shown over this frame of this image."""
        return (
            self._of is not None
            and self._of[0] is image_state
            and self._of[1] == frame
            and self.layer in self._viewer.layers
        )

    def show(self, image_state: ImageState, frame: int) -> None:
        """Show an empty preview over a frame, unless it is there already."""
        if self.is_over(image_state, frame):
            return
        self.hide()
        mask = image_state.mask
        assert mask is not None
        shape = mask.data.shape[-2:]
        cine = mask.ndim == 3
        self._below = np.zeros(shape, np.uint8)
        geometry = {
            name: getattr(mask, name)
            for name in ("scale", "rotate", "shear", "affine", "units", "axis_labels")
        }
        # On a cine, the preview is a single frame at the position of that frame.
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
        """Remove the layer."""
        layer, self.layer, self._of = self.layer, None, None
        remove_layer(self._viewer, layer)

    def draw_below(self, marks: list[Mark]) -> None:
        """Set the marks shown below every edit."""
        self._below[...] = 0
        for rows, columns, value in marks:
            self._below[rows, columns] = value
        self._drawn = None
        self.draw(None)

    def draw(self, edit: Edit | None) -> None:
        """Show what an edit would add and remove."""
        if self.layer is None:
            return
        state = edit if edit is not None and len(edit) else None
        if self._drawn is not None and self._drawn[0] is state:
            return
        pixels = self.layer.data[0] if self.layer.ndim == 3 else self.layer.data
        pixels[...] = self._below
        if state is not None:
            pixels[state.where] = np.where(state.values > 0, ADDED, REMOVED)
        self._drawn = (state,)
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)


def uncertain_marks(context: EditContext, tool: VesselTool) -> list[Mark]:
    """Mark the uncertain segments that a tool can fix."""
    marks: list[Mark] = []
    for segment in context.uncertain:
        if not tool.can_fix(segment):
            continue
        if segment.in_mask:
            branch = context.tree.branches[segment.branch]
            marks.append((*context.tree.pixels(branch), UNCERTAIN))
        else:
            radii = np.full(len(segment.points), 1.2 * context.features.step)
            marks.append((*tube(segment.points, radii, context.mask.shape), UNCERTAIN))
    return marks
