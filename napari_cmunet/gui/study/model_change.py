"""What another model finds in the open image: found now, gone now. The mask stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_cmunet.gui.layers import METADATA, geometry

if TYPE_CHECKING:
    from napari.components import LayerList

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading

FOUND, GONE = 1, 2
# Apart from each other, from the orange mask and from the cyan prediction, for every
# kind of colour vision; the panel names them.
FOUND_COLOUR = (1.0, 1.0, 0.35, 1.0)
GONE_COLOUR = (0.85, 0.25, 0.95, 1.0)
_OPACITY = 0.8


@dataclass(frozen=True)
class Difference:
    """How two predictions of a frame differ, in pixels."""

    before: str
    now: str
    found: int
    gone: int


class ModelChange:
    """Compares an image's predictions before and after a change of model.

    From its construction on, the frames that are predicted already keep their masks,
    corrected or not.

    Parameters
    ----------
    controller : Controller
        Knows the viewer.
    reading : Reading
        Just about to be predicted anew.
    """

    def __init__(self, controller: Controller, reading: Reading) -> None:
        self._controller, self._reading = controller, reading
        self._before = {f: (reading.found(f), s) for f, s in reading.sources.items()}
        self._differences: dict[int, Difference] = {}
        self.layer: Labels | None = None
        if reading.usable_mask:
            for frame in self._before:
                reading.own.setdefault(frame, reading.mask_frame(frame) != 0)

    @property
    def _layers(self) -> LayerList:
        return self._controller.viewer.layers

    def update(self, frame: int) -> None:
        """Compare a frame, once its new prediction is there."""
        reading = self._reading
        if frame in self._differences or frame not in self._before:
            return
        if not reading.predicted[frame]:
            return
        before, source = self._before[frame]
        now = reading.found(frame)
        found, gone = now & ~before, before & ~now
        self._differences[frame] = Difference(
            source.model,
            reading.sources[frame].model,
            int(found.sum()),
            int(gone.sum()),
        )
        if found.any() or gone.any():
            self._show(frame, found * np.uint8(FOUND) + gone * np.uint8(GONE))

    def difference(self, frame: int) -> Difference | None:
        """How a frame's predictions differ; None if that is not known yet."""
        return self._differences.get(frame)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        if self.layer is not None and self.layer in self._layers:
            self._layers.remove(self.layer)
        self.layer = None

    def _show(self, frame: int, pixels: np.ndarray) -> None:
        reading = self._reading
        if self.layer is None:
            blank = np.zeros(reading.shape, np.uint8)
            self.layer = Labels(
                blank if reading.is_cine else blank[0],
                name="found now, gone now",
                colormap=CyclicLabelColormap(
                    colors=[(0, 0, 0, 0), FOUND_COLOUR, GONE_COLOUR]
                ),
                opacity=_OPACITY,
                metadata={METADATA: {"role": "change"}},
                **geometry(reading.image),
            )
            chosen = self._layers.selection.active
            self._layers.append(self.layer)
            self.layer.editable = False
            if chosen is not None:
                self._layers.selection.active = chosen
        data = self.layer.data
        (data[frame] if data.ndim == 3 else data)[...] = pixels
        self.layer.refresh(extent=False)
