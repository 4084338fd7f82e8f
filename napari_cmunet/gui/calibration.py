"""Pixel size from a catheter of known width: the line, the measuring, the scale.

The size is the layer's scale from then on and goes into exports, with where it comes
from. It can be taken back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from napari.qt.threading import create_worker
from psygnal import Signal

from napari_cmunet.gui.images.layers import (
    METADATA,
    geometry,
    let_viewer_keys_through,
    read_frame,
    record_of,
    set_visible,
    source_array,
)
from napari_cmunet.gui.jobs import spare_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cmunet.cine.catheter import CatheterWidth
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState

logger = logging.getLogger(__name__)

USUAL_FRENCH = 6
BEFORE = "before_calibration"
"""In our entry of an image's metadata: the pixel size that a measured one replaced."""
_LINE, _EDGE = "#ffe14d", "#ffffff"
BEGIN = (
    "Drag a line along a straight part of the catheter's shaft, best in a frame "
    "without contrast in it."
)


@dataclass(frozen=True)
class _Job:
    """Copies and references that the worker's thread may read."""

    number: int
    frames: Any
    frame: int
    cine: bool
    rgb: bool
    line: np.ndarray


class Calibrating:
    """Measures a catheter in the active image, one at a time.

    Parameters
    ----------
    controller : Controller
        Knows the active reading and the viewer; told when the pixel size has changed.
    """

    #: Another line, another width, or nothing more to measure.
    changed = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.layer: Shapes | None = None
        self.image_state: ImageState | None = None
        self.width: CatheterWidth | None = None
        self.french = USUAL_FRENCH
        self.message = ""
        self._hidden: list[Layer] = []
        self._number = 0

    @property
    def begun(self) -> bool:
        """Whether a catheter is being measured."""
        return self.layer is not None

    # -- what the reader does --------------------------------------------------

    def begin(self) -> None:
        """Put a tool in hand that draws a line."""
        image_state = self._controller.active
        if image_state is None or image_state.unsupported is not None or self.begun:
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
        # A mask would hide the edges that are to be looked at.
        self._hidden = [layer for layer in image_state.overlays() if layer.visible]
        for layer in self._hidden:
            set_visible(layer, False)
        self.layer.events.data.connect(self._on_data)
        self._say(BEGIN)

    def set_french(self, french: int) -> None:
        """Say how wide the catheter is, in French."""
        self.french = french
        self._tell_width()

    def use(self) -> None:
        """Take the size that follows for the image's own."""
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
            "scale": tuple(float(value) for value in image.scale[-2:]),
            "unit": str(image.units[-1]),
        }
        record |= {
            "pixel_size_mm": (side, side),
            "pixel_size_source": (
                f"from a {self.french} F catheter, measured {width.pixels:.1f} px"
            ),
            BEFORE: before,
        }
        self._set(image_state, record, (side, side), "mm")

    def take_back(self) -> None:
        """Let the pixel size be what it was before it was measured."""
        image_state = self._controller.active
        if image_state is None or not is_calibrated(image_state):
            return
        record = dict(record_of(image_state.image))
        before = dict(record.pop(BEFORE))
        scale, unit = before.pop("scale"), before.pop("unit")
        self._set(image_state, record | before, scale, unit)

    def cancel(self) -> None:
        """Take the line away; the pixel size stays as it is."""
        layer, self.layer = self.layer, None
        self._number += 1
        image_state, self.image_state, self.width = self.image_state, None, None
        if layer is not None:
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
        """Follow the viewer: the line is of one image."""
        if self.begun and (
            self.image_state is not self._controller.active
            or self.layer not in self._controller.viewer.layers
        ):
            self.cancel()

    # -- measuring -------------------------------------------------------------

    def _on_data(self, event) -> None:
        if str(getattr(event.action, "value", event.action)) != "added":
            return
        layer, image = self.layer, self.image_state.image
        line = np.array(layer.data[-1], float)
        self._number += 1
        self.width = None
        self._show(line, None)
        job = _Job(
            self._number,
            source_array(image),
            self._controller.shown(self.image_state),
            self.image_state.is_cine,
            bool(image.rgb),
            line[:, -2:],
        )
        self._say("Measuring…")
        worker = create_worker(_measure, job)
        worker.returned.connect(self._on_measured)
        worker.start()

    def _on_measured(self, result: tuple[_Job, CatheterWidth | None, str]) -> None:
        job, width, problem = result
        if job.number != self._number or self.layer is None:
            return
        self.width = width
        if width is None:
            self._say(problem)
            return
        line = np.array(self.layer.data[0], float)
        self._show(line, width.edges)
        self._tell_width()

    def _show(self, line: np.ndarray, edges: np.ndarray | None) -> None:
        """Show the line and what was taken for the catheter's edges."""
        layer = self.layer
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

    def _tell_width(self) -> None:
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
        lay_on_grid(self._controller.viewer, image_state, scale, unit)
        self._controller.changed.emit()
        self.changed.emit()

    def _say(self, message: str) -> None:
        self.message = message
        self.changed.emit()


def is_calibrated(image_state: ImageState) -> bool:
    """Whether the image's pixel size was measured on a catheter in this window."""
    return BEFORE in record_of(image_state.image)


def lay_on_grid(
    viewer: ViewerModel, image_state: ImageState, scale: Sequence[float], unit: str
) -> None:
    """Give an image and all that lies over it a pixel size; what is seen stays.

    Parameters
    ----------
    scale : (y, x)
        Of a pixel, in ``unit``.
    """
    scale = np.array(scale, float)
    former = np.array(image_state.image.scale[-2:], float)
    centre = np.array(viewer.scene.camera.center, float)
    zoom = viewer.scene.camera.zoom
    for layer in list(viewer.layers):
        ours = layer in image_state.layers() or "role" in record_of(layer)
        if ours and np.array_equal(layer.scale[-2:], former):
            _set_scale(layer, scale, unit)
    # The camera stays over the same pixels; napari would leave it where it was.
    centre[-2:] *= scale / former
    viewer.scene.camera.center = tuple(centre)
    viewer.scene.camera.zoom = zoom * float(former[0] / scale[0])


def _set_scale(layer: Layer, scale: np.ndarray, unit: str) -> None:
    layer.scale = (*layer.scale[:-2], *scale)
    layer.units = (*layer.units[:-2], unit, unit)


def _measure(job: _Job) -> tuple[_Job, CatheterWidth | None, str]:
    """Runs in a worker; may decode the frame."""
    from napari_cmunet.cine.catheter import CatheterNotFoundError, measure_catheter

    try:
        with spare_thread():
            frame = read_frame(job.frames, job.frame, cine=job.cine, rgb=job.rgb)
            return job, measure_catheter(frame, *job.line), ""
    except CatheterNotFoundError as exc:
        return job, None, str(exc)
    except (OSError, ValueError, MemoryError) as exc:
        return job, None, f"The catheter cannot be measured ({exc})."
    except Exception as exc:
        logger.exception("Measuring a catheter failed")
        return (
            job,
            None,
            (
                f"The catheter cannot be measured, for an unexpected error ({exc}). "
                "Help > Show logs has the details."
            ),
        )
