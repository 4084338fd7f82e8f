"""The reviewed area of a frame: drawn, painted, or looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_cmunet.gui.images.corrections import Companion
from napari_cmunet.gui.images.layers import METADATA, geometry, let_viewer_keys_through
from napari_cmunet.gui.vessel_tools.frame_state import review_record

if TYPE_CHECKING:
    from napari.components import LayerList

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.project.images.open_image import OpenImage
    from napari_cmunet.io.masks.label_file import Label

BOX, LASSO = "add_rectangle", "add_polygon_lasso"
_COLOUR = "#ffe14d"
_SMALLEST = 8
"""Pixels: what is smaller than this in every direction was a click, not a box."""
_AROUND_STROKES = 4
"""Pixels around a stroke that its painter has looked at, too."""


@dataclass(frozen=True)
class _AreaState:
    """The reviewed area of one frame, to come back to."""

    before: Label | None
    by_looking: bool
    shapes: tuple[tuple[np.ndarray, str], ...]


class ReviewedArea:
    """The reviewed area of each frame of an image; the whole frame by default."""

    #: The reviewed area has changed.
    changed = Signal()

    def __init__(self, controller: Controller, opened: OpenImage) -> None:
        self._controller, self._opened = controller, opened
        self.layer: Shapes | None = None
        self._removed = False
        # The label, draft or reading that the area begins with, where it has one.
        self._before: dict[int, Label] = {}
        self._by_looking: set[int] = set()
        # Frames whose area differs from their label's, and those with shapes.
        self._changed: set[int] = set()
        self._drawn: set[int] = set()
        for frame, draft in opened.drafts.items():
            label = opened.labels.get(frame)
            before = label.reviewed if label is not None else None
            if not _same(draft.reviewed, before):
                self._changed.add(frame)
        own = opened.labels | opened.drafts
        first = {frame: readings.first for frame, readings in opened.readings.items()}
        for frame, label in (first | own).items():
            if label.reviewed is not None:
                self._before[frame] = label
                if frame in own:  # the reviewer has not seen what a reader has
                    review_record(opened.image_state).add_area(frame, label.reviewed)

    @property
    def _layers(self) -> LayerList:
        return self._controller.images.viewer.layers

    # -- drawing --------------------------------------------------------------

    def draw(self, tool: str) -> None:
        """Select a tool that draws a box or a lasso.

        Parameters
        ----------
        tool : {BOX, LASSO}
        """
        layer = self.layer
        if layer is None or layer not in self._layers:
            layer = self._add_layer()
        self._layers.selection.active = layer
        layer.visible = True
        layer.mode = tool

    def _add_layer(self) -> Shapes:
        self._disconnect()
        image = self._opened.image_state.image
        self.layer = layer = Shapes(
            ndim=image.ndim,
            name="reviewed part",
            edge_color=_COLOUR,
            face_color="transparent",
            edge_width=2,
            metadata={METADATA: {"role": "reviewed"}},
            **geometry(image),
        )
        let_viewer_keys_through(layer, self._controller.viewer)
        layer.bind_key("Escape", self._on_escape, overwrite=True)
        self._layers.append(layer)
        layer.events.data.connect(self._on_data)
        return layer

    def _on_data(self, event: Any) -> None:
        layer = self.layer
        if layer is None:
            return
        if str(getattr(event.action, "value", event.action)) == "added":
            if len(layer.data) and np.ptp(layer.data[-1][:, -2:], 0).max() < _SMALLEST:
                _remove_last(layer)
                return
            # Drawn: select the brush again.
            mask = self._opened.image_state.mask
            if mask in self._layers:
                layer.mode = "pan_zoom"
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

    def clear(self, frame: int) -> None:
        """Count the whole frame as reviewed."""
        self._clear(frame)
        self.changed.emit()

    def _clear(self, frame: int) -> None:
        self._before.pop(frame, None)
        self._by_looking.discard(frame)
        self._changed.add(frame)
        if self.layer is not None:
            gone = {n for n, at in enumerate(self._frames()) if at == frame}
            self.layer.selected_data = gone
            self.layer.remove_selected()
            if self.is_begun:
                self.layer.mode = "pan_zoom"

    def add_looked_at(self, frame: int, on: bool = True) -> None:
        """Count what was looked at as reviewed, or stop counting it.

        That is what the guided review has shown, what was removed as no artery, and
        what was painted. Boxes and lassos add to it.
        """
        (self._by_looking.add if on else self._by_looking.discard)(frame)
        self._changed.add(frame)
        self.changed.emit()

    def accepted(self, frame: int) -> None:
        """A label was accepted with the present area."""
        self._changed.discard(frame)

    def take_over(self, frame: int, label: Label) -> Companion:
        """Let the area of a frame be a label's; return what undoes that."""
        state = self._state(frame)
        self._set(frame, label)
        return Companion(
            undo=lambda: self._restore(frame, state),
            redo=lambda: self._set(frame, label),
        )

    def restored(self, frame: int, label: Label) -> Companion:
        """Take over the area of the frame's own label; return what undoes that."""
        companion = self.take_over(frame, label)
        self._changed.discard(frame)
        return companion

    def _set(self, frame: int, label: Label) -> None:
        self._clear(frame)
        if label.reviewed is not None:
            self._before[frame] = label
        self._compare(frame)
        self.changed.emit()

    def _compare(self, frame: int) -> None:
        """Note where the area of a frame is its label's again."""
        label, before = self._opened.labels.get(frame), self._before.get(frame)
        if label is None or frame in self._by_looking or frame in self._frames():
            return
        if before is None:
            same = label.reviewed is None
        else:
            same = _same(before.reviewed, label.reviewed) and np.array_equal(
                before.mask, label.mask
            )
        if same:
            self._changed.discard(frame)

    def _state(self, frame: int) -> _AreaState:
        shapes = []
        if self.layer is not None:
            for number, at in enumerate(self._frames()):
                if at == frame:
                    kind = self.layer.shape_type[number]
                    shapes.append((self.layer.data[number].copy(), kind))
        before, by_looking = self._before.get(frame), frame in self._by_looking
        return _AreaState(before, by_looking, tuple(shapes))

    def _restore(self, frame: int, state: _AreaState) -> None:
        self._clear(frame)
        if state.before is not None:
            self._before[frame] = state.before
        if state.by_looking:
            self._by_looking.add(frame)
        self._compare(frame)
        if state.shapes and not self._removed:
            layer = self.layer
            if layer is None or layer not in self._layers:
                layer = self._add_layer()
            layer.add(list(state.shapes))
        self.changed.emit()

    def withdrawn(self, frame: int) -> None:
        """The label was withdrawn; the area is kept with the draft."""
        self._changed.add(frame)

    def remove(self) -> None:
        """Take the layer out of the viewer; an undo does not bring it back."""
        self._removed = True
        layer = self.layer
        self._disconnect()
        if layer is not None and layer in self._layers:
            self._layers.remove(layer)

    def _disconnect(self) -> None:
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
        self.layer = None

    # -- state ----------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether a box or lasso tool is selected."""
        return (
            self.layer is not None
            and self.layer in self._layers
            and self.layer.mode in (BOX, LASSO)
        )

    def is_part(self, frame: int) -> bool:
        """Whether only part of a frame counts as reviewed."""
        return (
            frame in self._before
            or frame in self._by_looking
            or frame in self._frames()
        )

    def is_changed(self, frame: int) -> bool:
        """Whether the area differs from the label's, or from all if there is none."""
        labelled = frame in self._opened.labels
        return frame in self._changed and (labelled or self.is_part(frame))

    def is_by_looking(self, frame: int) -> bool:
        """Whether what was looked at counts as reviewed."""
        return frame in self._by_looking

    def reviewed(self, frame: int, mask: np.ndarray) -> np.ndarray | None:
        """Reviewed area of a frame, bool (Y, X); None for all of it.

        Parameters
        ----------
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
        if before is not None and before.reviewed is not None:
            area |= before.reviewed
        for number, at in enumerate(self._frames()):
            if at == frame:
                assert self.layer is not None
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
        if frame in self._before:  # painted since
            painted = painted & (mask != self._before[frame].mask)
        rows, columns = (np.flatnonzero(painted.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return painted
        from scipy.ndimage import binary_dilation  # takes long to import

        # Dilate only around the strokes: a whole large frame would take too long.
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


def _remove_last(layer: Shapes) -> None:
    """Remove a shape of one click; the tool stays selected."""
    tool = layer.mode
    layer.selected_data = {len(layer.data) - 1}
    layer.remove_selected()
    layer.mode = tool


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
