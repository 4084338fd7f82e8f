"""What another model finds in the open image: found now, gone now. The mask stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap

from napari_cmunet.gui.images.frame_masks import FrameMasks
from napari_cmunet.gui.images.layers import (
    METADATA,
    geometry,
    insert_above,
    remove_layer,
    set_visible,
)

if TYPE_CHECKING:
    from napari.components import LayerList

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.prediction.prediction import Source

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


class DifferenceLayer:
    """The layer, made once there is something to show, over its image's others.

    It is visible while its image is.
    """

    def __init__(
        self,
        controller: Controller,
        image_state: ImageState,
        name: str = "found now, gone now",
    ) -> None:
        self._controller, self._image_state = controller, image_state
        self._name = name
        self.layer: Labels | None = None

    @property
    def _layers(self) -> LayerList:
        return self._controller.viewer.layers

    @property
    def was_deleted(self) -> bool:
        """Whether somebody has taken it out of the viewer."""
        return self.layer is not None and self.layer not in self._layers

    def show(self, frame: int, before: np.ndarray, now: np.ndarray) -> tuple[int, int]:
        """Show a frame's difference; returns the pixels found now, and gone now."""
        found, gone = now & ~before, before & ~now
        if self.layer is not None or found.any() or gone.any():
            self._draw(frame, found * np.uint8(FOUND) + gone * np.uint8(GONE))
        return int(found.sum()), int(gone.sum())

    def remove(self) -> None:
        """Take the layer out of the viewer. Idempotent."""
        if self.layer is not None and (viewer := self._controller.viewer) is not None:
            self._image_state.image.events.visible.disconnect(self._follow_image)
            remove_layer(viewer, self.layer)
        self.layer = None

    def _follow_image(self, event: Any = None) -> None:
        set_visible(self.layer, self._image_state.image.visible)

    def _draw(self, frame: int, pixels: np.ndarray) -> None:
        image_state = self._image_state
        if self.layer is None:
            blank = np.zeros(image_state.shape, np.uint8)
            self.layer = Labels(
                blank if image_state.is_cine else blank[0],
                name=self._name,
                colormap=CyclicLabelColormap(
                    colors=[(0, 0, 0, 0), FOUND_COLOUR, GONE_COLOUR]
                ),
                opacity=_OPACITY,
                metadata={METADATA: {"role": "change"}},
                **geometry(image_state.image),
            )
            self.layer.editable = False
            image_state.image.events.visible.connect(self._follow_image)
            self._follow_image()
            # Not over all: another image may lie above this one by now.
            own = [layer for layer in image_state.layers() if layer in self._layers]
            highest = max(own, key=self._layers.index, default=None)
            insert_above(self._controller.viewer, self.layer, highest)
        data = self.layer.data
        (data[frame] if data.ndim == 3 else data)[...] = pixels
        self.layer.refresh(extent=False)


class ModelChange:
    """Compares an image's predictions before and after a change of model.

    From its construction on, the frames that are predicted already keep their masks,
    corrected or not. Further changes of the model are compared with the predictions
    that these masks began with, so that going back leaves nothing to show.

    Parameters
    ----------
    image_state : ImageState
        Just about to be predicted anew.
    """

    def __init__(self, controller: Controller, image_state: ImageState) -> None:
        self._image_state = image_state
        self._shown = DifferenceLayer(controller, image_state)
        #: What was found, and which model found it.
        self._before: dict[int, tuple[np.ndarray, Source]] = {}
        #: What that model left out as there before the contrast.
        self._left_out = FrameMasks(image_state.shape[1:])
        self._differences: dict[int, Difference] = {}
        #: Frames whose difference is known since the new model left something out.
        self._final: set[int] = set()
        self.restart()

    @property
    def layer(self) -> Labels | None:
        """The layer that shows it; None while there is nothing to show."""
        return self._shown.layer

    def restart(self) -> None:
        """Get ready to compare: the model is about to change."""
        self.hide()
        self._hidden = False
        image_state = self._image_state
        for frame, source in image_state.sources.items():
            if frame not in self._before:
                self._before[frame] = image_state.found(frame), source
                self._left_out[frame] = image_state.seen_before[frame]
            if image_state.usable_mask:
                image_state.own_masks.setdefault(
                    frame, image_state.mask_frame(frame) != 0
                )

    def update(self, frame: int) -> None:
        """Compare a frame, once its new prediction is there."""
        image_state = self._image_state
        final = frame in image_state.seen_before
        known = frame in self._differences and (not final or frame in self._final)
        if self._hidden or known or frame not in self._before:
            return
        if not image_state.predicted[frame]:
            return
        before, former = self._before[frame]
        source = image_state.sources[frame]
        if (source.model, source.sha256) == (former.model, former.sha256):
            return
        # The new model leaves it out, too, once all frames are predicted.
        now = image_state.found(frame)
        if source.tells_contrast:
            now &= ~self._left_out[frame]
        if final:
            self._final.add(frame)
        found, gone = self._shown.show(frame, before, now)
        self._differences[frame] = Difference(former.model, source.model, found, gone)

    def difference(self, frame: int) -> Difference | None:
        """How a frame's predictions differ; None if that is not known yet."""
        return self._differences.get(frame)

    def accept(self, frame: int) -> None:
        """Note that a frame's mask is its new prediction by now."""
        self._before.pop(frame, None)

    def hide(self) -> None:
        """Remove the layer, until the model changes again."""
        self._hidden = True
        self._differences.clear()
        self._final.clear()
        self._shown.remove()
