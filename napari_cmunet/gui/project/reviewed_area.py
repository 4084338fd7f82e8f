"""Which part of a frame was reviewed: what was drawn, painted, or looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_cmunet.gui.images.layers import METADATA, geometry, let_viewer_keys_through
from napari_cmunet.gui.vessel_tools.frame_state import review_record

if TYPE_CHECKING:
    from napari.components import LayerList

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.project.open_image import OpenImage

BOX, LASSO = "add_rectangle", "add_polygon_lasso"
_COLOUR = "#ffe14d"
_SMALLEST = 8
"""Pixels: what is smaller than this in every direction was a click, not a box."""
_AROUND_STROKES = 4
"""Pixels around a stroke that its painter has looked at, too."""


class ReviewedArea:
    """The reviewed part of the frames of one image; by default each whole frame.

    Parameters
    ----------
    controller : Controller
        Knows the viewer.
    opened : OpenImage
    """

    #: Another part counts as reviewed.
    changed = Signal()

    def __init__(self, controller: Controller, opened: OpenImage) -> None:
        self._controller, self._opened = controller, opened
        self.layer: Shapes | None = None
        # What was reviewed when a label or a draft was saved.
        self._before: dict[int, np.ndarray] = {}
        self._by_looking: set[int] = set()
        # Frames whose part is another than their label's, and those with shapes.
        self._changed: set[int] = set()
        self._drawn: set[int] = set()
        for frame, draft in opened.drafts.items():
            label = opened.labels.get(frame)
            before = label.reviewed if label is not None else None
            if not _same(draft.reviewed, before):
                self._changed.add(frame)
        for frame, label in (opened.labels | opened.drafts).items():
            if label.reviewed is not None:
                self._before[frame] = label.reviewed
                review_record(opened.image_state).add_area(frame, label.reviewed)

    @property
    def _layers(self) -> LayerList:
        return self._controller.viewer.layers

    # -- drawing --------------------------------------------------------------

    def draw(self, tool: str) -> None:
        """Put a tool in hand that draws a box or a lasso.

        Parameters
        ----------
        tool : {BOX, LASSO}
        """
        if self.layer is None or self.layer not in self._layers:
            self._add_layer()
        self._layers.selection.active = self.layer
        self.layer.visible = True
        self.layer.mode = tool

    def _add_layer(self) -> None:
        self._let_go()
        image = self._opened.image_state.image
        self.layer = Shapes(
            ndim=image.ndim,
            name="reviewed part",
            edge_color=_COLOUR,
            face_color="transparent",
            edge_width=2,
            metadata={METADATA: {"role": "reviewed"}},
            **geometry(image),
        )
        let_viewer_keys_through(self.layer, self._controller.viewer)
        self.layer.bind_key("Escape", self._on_escape, overwrite=True)
        self._layers.append(self.layer)
        self.layer.events.data.connect(self._on_data)

    def _on_data(self, event) -> None:
        if str(getattr(event.action, "value", event.action)) == "added":
            if len(self.layer.data) and np.ptp(self._last(), axis=0).max() < _SMALLEST:
                self._take_last_away()
                return
            # Drawn: the brush is back in hand.
            mask = self._opened.image_state.mask
            if mask in self._layers:
                self.layer.mode = "pan_zoom"
                self._layers.selection.active = mask
        drawn = set(self._frames())
        self._changed |= drawn | self._drawn
        self._drawn = drawn
        self.changed.emit()

    def _on_escape(self, layer: Shapes) -> None:
        layer.mode = "pan_zoom"
        mask = self._opened.image_state.mask
        if mask in self._layers:
            self._layers.selection.active = mask
        self.changed.emit()

    def _last(self) -> np.ndarray:
        return self.layer.data[-1][:, -2:]

    def _take_last_away(self) -> None:
        """A click is no box: the tool stays in hand."""
        tool = self.layer.mode
        self.layer.selected_data = {len(self.layer.data) - 1}
        self.layer.remove_selected()
        self.layer.mode = tool

    def clear(self, frame: int) -> None:
        """Let the whole frame count again."""
        self._before.pop(frame, None)
        self._by_looking.discard(frame)
        self._changed.add(frame)
        if self.layer is not None:
            gone = {n for n, at in enumerate(self._frames()) if at == frame}
            self.layer.selected_data = gone
            self.layer.remove_selected()
            if self.is_begun:
                self.layer.mode = "pan_zoom"
        self.changed.emit()

    def take_looked_at(self, frame: int, on: bool = True) -> None:
        """Let what the reader looks at count, before and after this, or no more.

        That is what the tour has shown, what was removed as no artery, and what was
        painted. Boxes and lassos add to it.
        """
        (self._by_looking.add if on else self._by_looking.discard)(frame)
        self._changed.add(frame)
        self.changed.emit()

    def accepted(self, frame: int) -> None:
        """A label was accepted with the part that counts now."""
        self._changed.discard(frame)

    def taken_back(self, frame: int) -> None:
        """The label counts no more; the part is kept with the draft."""
        self._changed.add(frame)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        layer = self.layer
        self._let_go()
        if layer is not None and layer in self._layers:
            self._layers.remove(layer)

    def _let_go(self) -> None:
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
        self.layer = None

    # -- what counts ----------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether a box or lasso is to be drawn, also if the brush is used before."""
        return (
            self.layer is not None
            and self.layer in self._layers
            and self.layer.mode in (BOX, LASSO)
        )

    def is_part(self, frame: int) -> bool:
        """Whether only a part of a frame counts as reviewed."""
        return (
            frame in self._before
            or frame in self._by_looking
            or frame in self._frames()
        )

    def is_changed(self, frame: int) -> bool:
        """Whether another part counts than in the label, or than all without one."""
        labelled = frame in self._opened.labels
        return frame in self._changed and (labelled or self.is_part(frame))

    def is_by_looking(self, frame: int) -> bool:
        """Whether what was looked at counts."""
        return frame in self._by_looking

    def reviewed(self, frame: int, mask: np.ndarray) -> np.ndarray | None:
        """Where a frame was reviewed, bool (Y, X); None for all of it.

        Parameters
        ----------
        frame : int
        mask : bool array (Y, X)
            The frame's mask, to tell what was painted.
        """
        if not self.is_part(frame):
            return None
        from skimage.draw import polygon2mask  # takes long to import

        area = self._painted(frame, mask)
        memory = review_record(self._opened.image_state)
        if frame in self._by_looking:
            seen = memory.reviewed(frame, mask)
        else:
            seen = memory.background(frame, mask)
        if seen is not None:
            area = area | seen
        before = self._before.get(frame)
        if before is not None:
            area |= before
        for number, at in enumerate(self._frames()):
            if at == frame:
                corners = self.layer.data[number][:, -2:]
                if self.layer.shape_type[number] == "ellipse":
                    corners = _ellipse(corners)
                area |= polygon2mask(area.shape, corners)
        return area

    def _painted(self, frame: int, mask: np.ndarray) -> np.ndarray:
        image_state = self._opened.image_state
        if image_state.has_prediction(frame):
            painted = mask != image_state.thresholded(frame)
        else:
            painted = mask
        rows, columns = (np.flatnonzero(painted.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return painted
        from scipy.ndimage import binary_dilation  # takes long to import

        # Only where something is: a whole large frame would take too long.
        around = tuple(
            slice(max(0, n[0] - _AROUND_STROKES), n[-1] + _AROUND_STROKES + 1)
            for n in (rows, columns)
        )
        area = np.zeros_like(painted)
        area[around] = binary_dilation(painted[around], iterations=_AROUND_STROKES)
        return area

    def _frames(self) -> list[int]:
        """The frame of each shape."""
        if self.layer is None or self.layer not in self._layers:
            return []
        if self.layer.ndim == 2:
            return [0] * len(self.layer.data)
        return [round(float(corners[0, 0])) for corners in self.layer.data]


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _ellipse(box: np.ndarray) -> np.ndarray:
    """Points along the ellipse in a box of four corners, (64, 2)."""
    centre = box.mean(axis=0)
    across, down = (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    return centre + np.cos(angle) * across + np.sin(angle) * down
