"""What another model finds in the open image: found now, gone now. The mask stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.gui.study.difference_layer import Difference, DifferenceLayer

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading


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
        self._reading = reading
        self._shown = DifferenceLayer(controller, reading)
        self._before = {f: (reading.found(f), s) for f, s in reading.sources.items()}
        self._differences: dict[int, Difference] = {}
        if reading.usable_mask:
            for frame in self._before:
                reading.own.setdefault(frame, reading.mask_frame(frame) != 0)

    @property
    def layer(self) -> Labels | None:
        """The layer that shows it; None while there is nothing to show."""
        return self._shown.layer

    def update(self, frame: int) -> None:
        """Compare a frame, once its new prediction is there."""
        reading = self._reading
        if frame in self._differences or frame not in self._before:
            return
        if not reading.predicted[frame]:
            return
        before, source = self._before[frame]
        found, gone = self._shown.show(frame, before, reading.found(frame))
        model = reading.sources[frame].model
        self._differences[frame] = Difference(source.model, model, found, gone)

    def difference(self, frame: int) -> Difference | None:
        """How a frame's predictions differ; None if that is not known yet."""
        return self._differences.get(frame)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        self._shown.remove()
