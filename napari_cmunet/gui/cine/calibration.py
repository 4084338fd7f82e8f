"""Calibration of the pixel size on a catheter of known width.

The result becomes the scale of the layers and goes into exports, with its source. It
can be undone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_cmunet.gui.images.layers import (
    METADATA,
    Frames,
    geometry,
    let_viewer_keys_through,
    record_of,
    set_visible,
)
from napari_cmunet.gui.jobs import JobRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cmunet.cine.catheter import CatheterWidth
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop

USUAL_FRENCH = 6
BEFORE = "before_calibration"
"""Key of the layer's metadata for the pixel size before calibration."""
_LINE, _EDGE = "#ffe14d", "#ffffff"
HINT = (
    "Drag a line along a straight part of the catheter's shaft, best in a frame "
    "without contrast in it."
)


def _measure(
    frames: Frames, frame: int, line: np.ndarray, report: Report, stop: ShouldStop
) -> CatheterWidth | str:
    """Measure in a worker; return a message if no catheter was found."""
    from napari_cmunet.cine.catheter import CatheterNotFoundError, measure_catheter

    try:
        return measure_catheter(frames[frame], *line)
    except CatheterNotFoundError as error:
        return str(error)


class CatheterCalibration:
    """Measures a catheter in the active image."""

    #: The line, the width or the message has changed.
    changed = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.layer: Shapes | None = None
        self.image_state: ImageState | None = None
        self.width: CatheterWidth | None = None
        self.french = USUAL_FRENCH
        self.message = ""
        self._hidden: list[Layer] = []
        self.jobs = JobRunner(
            "Measuring the catheter", failure="The catheter cannot be measured"
        )

    @property
    def active(self) -> bool:
        """Whether a catheter is being measured."""
        return self.layer is not None

    # -- actions ---------------------------------------------------------------

    def start(self) -> None:
        """Add a layer to draw the line in."""
        image_state = self._controller.active
        if image_state is None or image_state.unsupported is not None or self.active:
            return
        if image_state.image not in self._controller.viewer.layers:
            return
        self.image_state = image_state
        self.layer = Shapes(
            ndim=image_state.image.ndim,
            name="catheter",
            edge_color=_LINE,
            face_color="transparent",
            edge_width=1,
            metadata={METADATA: {"role": "catheter"}},
            **geometry(image_state.image),
        )
        let_viewer_keys_through(self.layer, self._controller.viewer)
        self.layer.bind_key("Escape", lambda _layer: self.cancel(), overwrite=True)
        layers = self._controller.viewer.layers
        layers.append(self.layer)
        layers.selection.active = self.layer
        self.layer.mode = "add_line"
        # Overlays would hide the edges.
        self._hidden = [layer for layer in image_state.overlays() if layer.visible]
        for layer in self._hidden:
            set_visible(layer, False)
        self.layer.events.data.connect(self._on_data)
        self._say(HINT)

    def set_french(self, french: int) -> None:
        """Set the outer diameter in French."""
        self.french = french
        self._show_width()

    def apply(self) -> None:
        """Set the pixel size of the image to the result."""
        image_state, width = self.image_state, self.width
        if image_state is None or width is None:
            return
        side = width.pixel_size_mm(self.french)
        self.cancel()
        image = image_state.image
        record = dict(record_of(image))
        before = record.pop(BEFORE, None) or {
            "pixel_size_mm": record.get("pixel_size_mm"),
            "pixel_size_source": record.get("pixel_size_source"),
            "pixel_size_error": record.get("pixel_size_error"),
            "scale": tuple(float(value) for value in image.scale[-2:]),
            "unit": str(image.units[-1]),
        }
        record |= {
            "pixel_size_mm": (side, side),
            "pixel_size_source": (
                f"from a {self.french} F catheter, measured {width.pixels:.1f} px"
            ),
            "pixel_size_error": width.spread / width.pixels,
            BEFORE: before,
        }
        self._set(image_state, record, (side, side), "mm")

    def reset(self) -> None:
        """Restore the pixel size from before the calibration."""
        image_state = self._controller.active
        if image_state is None or not is_calibrated(image_state):
            return
        record = dict(record_of(image_state.image))
        before = dict(record.pop(BEFORE))
        scale, unit = before.pop("scale"), before.pop("unit")
        self._set(image_state, record | before, scale, unit)

    def cancel(self) -> None:
        """Remove the line and keep the pixel size."""
        layer, self.layer = self.layer, None
        self.jobs.cancel()
        image_state, self.image_state, self.width = self.image_state, None, None
        if layer is not None and image_state is not None:
            layer.events.data.disconnect(self._on_data)
            layers = self._controller.viewer.layers
            if layer in layers:
                layers.remove(layer)
            for hidden in self._hidden:
                set_visible(hidden, image_state.image.visible)
            if image_state.mask in layers:
                layers.selection.active = image_state.mask
        self._say("")

    def update(self) -> None:
        """Follow the viewer: cancel if another image is active."""
        if self.active and (
            self.image_state is not self._controller.active
            or self.layer not in self._controller.viewer.layers
        ):
            self.cancel()

    # -- measurement -----------------------------------------------------------

    def _on_data(self, event: Any) -> None:
        if str(getattr(event.action, "value", event.action)) != "added":
            return
        layer, image_state = self.layer, self.image_state
        assert layer is not None
        assert image_state is not None
        line = np.array(layer.data[-1], float)
        self.width = None
        self._show(line, None)
        frame = self._controller.shown(image_state)
        measure = partial(_measure, Frames.of(image_state.image), frame, line[:, -2:])
        self._say("Measuring…")
        self.jobs.start(measure, on_result=self._on_measured, on_error=self._say)

    def _on_measured(self, found: CatheterWidth | str) -> None:
        if self.layer is None:
            return
        if isinstance(found, str):
            self._say(found)
            return
        self.width = found
        line = np.array(self.layer.data[0], float)
        self._show(line, found.edges)
        self._show_width()

    def _show(self, line: np.ndarray, edges: np.ndarray | None) -> None:
        """Show the line and the edges that were found."""
        layer = self.layer
        assert layer is not None
        shapes, kinds, colours = [line], ["line"], [_LINE]
        for edge in () if edges is None else edges:
            lead = np.broadcast_to(line[0, :-2], (len(edge), line.shape[1] - 2))
            shapes.append(np.concatenate([lead, edge], axis=1))
            kinds.append("path")
            colours.append(_EDGE)
        with layer.events.data.blocker():
            tool = layer.mode
            layer.selected_data = set(range(len(layer.data)))
            layer.remove_selected()
            layer.add(shapes, shape_type=kinds, edge_color=colours, edge_width=1)
            layer.selected_data = set()
            layer.mode = tool

    def _show_width(self) -> None:
        width = self.width
        if width is None:
            return
        side = width.pixel_size_mm(self.french)
        self._say(
            f"{width.pixels:.1f} ± {width.spread:.1f} px between the white lines; with "
            f"{self.french} F a pixel is {side:.3g} mm. Use it if the lines lie on the "
            "catheter's edges."
        )

    # -- the pixel size --------------------------------------------------------

    def _set(
        self,
        image_state: ImageState,
        record: dict[str, Any],
        scale: Sequence[float],
        unit: str,
    ) -> None:
        image_state.image.metadata = {**image_state.image.metadata, METADATA: record}
        set_pixel_size(self._controller.viewer, image_state, scale, unit)
        self._controller.changed.emit()
        self.changed.emit()

    def _say(self, message: str) -> None:
        self.message = message
        self.changed.emit()


def is_calibrated(image_state: ImageState) -> bool:
    """Whether the pixel size was measured on a catheter."""
    return BEFORE in record_of(image_state.image)


def set_pixel_size(
    viewer: ViewerModel, image_state: ImageState, scale: Sequence[float], unit: str
) -> None:
    """Set the pixel size of an image and its overlays, keeping the view.

    Parameters
    ----------
    scale : (y, x)
        Size of a pixel in ``unit``.
    """
    size = np.array(scale, float)
    former = np.array(image_state.image.scale[-2:], float)
    centre = np.array(viewer.scene.camera.center, float)
    zoom = viewer.scene.camera.zoom
    for layer in list(viewer.layers):
        ours = layer in image_state.layers() or "role" in record_of(layer)
        if ours and np.array_equal(layer.scale[-2:], former):
            _set_scale(layer, size, unit)
    # The camera stays over the same pixels.
    centre[-2:] *= size / former
    viewer.scene.camera.center = tuple(centre)
    viewer.scene.camera.zoom = zoom * float(former[0] / size[0])


def _set_scale(layer: Layer, scale: np.ndarray, unit: str) -> None:
    layer.scale = (*layer.scale[:-2], *scale)
    layer.units = (*layer.units[:-2], unit, unit)
