"""The layer that shows the names of vessels as text beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points

from napari_cmunet.gui.images.layers import (
    METADATA,
    geometry,
    insert_above,
    remove_layer,
)
from napari_cmunet.vessels.naming import DOUBTFUL
from napari_cmunet.vessels.segments import segment_title

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.naming import SegmentName

# Pixels of a frame 512 pixels wide; stretches that are not long show the number.
_LONG, _SHORT = 60.0, 30.0


class NamesLayer:
    """Text in the middle of each named stretch of a frame, in a layer of its own."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.layer: Points | None = None
        self._shown: object = None

    def show(self, image_state: ImageState, frame: int) -> None:
        """Show the names of a frame whose vessels the mask has."""
        names = image_state.names.get(frame, ())
        texts = names and shown_names(names, image_state.mask_frame(frame) != 0)
        if not texts:
            self.hide()
            return
        first = [frame] if image_state.is_cine else []
        shown = image_state.image, tuple(first), texts
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.layer = None  # the user has removed it: it comes with the next name
            self._shown = self._shown or shown
        if shown == self._shown:
            return
        self._remove()
        self._shown = shown
        self.layer = Points(
            np.array([[*first, *point] for point, _ in texts], float),
            name="vessel names",
            features={"name": [text for _, text in texts]},
            text={"string": "{name}", "color": "white", "size": 11, "anchor": "center"},
            size=3,
            face_color="white",
            border_width=0,
            metadata={METADATA: {"role": "names"}},
            **geometry(image_state.image),
        )
        self.layer.editable = False
        insert_above(self._viewer, self.layer, image_state.mask)

    def hide(self) -> None:
        """Remove the layer. Idempotent."""
        self._remove()
        self._shown = None

    def _remove(self) -> None:
        layer, self.layer = self.layer, None
        remove_layer(self._viewer, layer)


def shown_names(
    names: tuple[SegmentName, ...], mask: np.ndarray
) -> tuple[tuple[tuple[int, int], str], ...]:
    """Place and text of each name that has a vessel in the mask.

    Of a proposed segment, short stretches beside a longer one have no text.
    """
    scale = max(mask.shape) / 512
    height, width = mask.shape
    shown = []
    longest: dict[str, float] = {}
    for name in names:
        points = [
            (row, column)
            for row, column in name.points
            if 0 <= row < height and 0 <= column < width and mask[row, column]
        ]
        if not name.segment or 2 * len(points) < len(name.points):
            continue
        length = np.hypot(*np.diff(points, axis=0).T).sum() if len(points) > 1 else 0
        shown.append((name, points[len(points) // 2], length))
        longest[name.segment] = max(longest.get(name.segment, 0), length)
    found = []
    for name, place, length in shown:
        if name.doubt and length < min(_SHORT * scale, longest[name.segment]):
            continue
        long = length >= _LONG * scale
        text = segment_title(name.segment) if long else name.segment
        if name.doubt > DOUBTFUL:
            text += " ?"
        found.append((place, text))
    return tuple(found)
