"""One image being read: its layers, its prediction and its mask.

The layers are held by reference. Names, order and selection mean nothing here, and
any layer may be gone at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cmunet.gui.corrections import Corrections, frames_of
from napari_cmunet.gui.layers import (
    frame_shape,
    is_cine,
    make_mask_layer,
    make_prediction_layer,
    why_not,
)
from napari_cmunet.gui.mask_history import ThresholdSteps
from napari_cmunet.model.threshold import DEFAULT_THRESHOLD, mask_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.layers import Image, Labels, Layer

    from napari_cmunet.gui.prediction import Engine


@dataclass(frozen=True)
class Source:
    """Which model made a prediction."""

    model: str
    sha256: str
    device: str
    threshold: float

    @classmethod
    def of(cls, engine: Engine) -> Source:
        """What is to be noted of an engine."""
        return cls(engine.name, engine.sha256, engine.device(), engine.threshold)


class ImageState:
    """The state of one image.

    Parameters
    ----------
    image : Image
        A frame or a cine.
    threshold : float
        Where the mask starts.
    """

    #: Frames of the mask that strokes, undo or the threshold may have changed.
    touched = Signal(object)

    def __init__(self, image: Image, threshold: float = DEFAULT_THRESHOLD) -> None:
        self.image = image
        self.why_not = why_not(image)
        self.prediction: Labels | None = None
        self.mask: Labels | None = None
        self.mask_was_deleted = False
        self.prediction_was_deleted = False
        self.show_prediction = True
        self.threshold = threshold
        #: The file, where the program has opened it and not napari.
        self.file: Path | None = None
        #: Whether it is an image of the open project.
        self.in_project = False
        #: Whether other pixels were put into the image layer.
        self.image_replaced = False
        self.shape = frame_shape(image) if self.why_not is None else (0, 0, 0)
        self._new_pixels()

    def _new_pixels(self) -> None:
        frames = self.shape[0]
        self.probability = np.zeros(self.shape, np.uint8)
        self.predicted = np.zeros(frames, bool)
        #: The threshold at which each frame's mask was cut.
        self.thresholds = np.full(frames, self.threshold)
        self.sources: dict[int, Source] = {}
        #: Frames whose whole mask is the reader's, such as accepted ones, (Y, X) bool.
        self.own: dict[int, np.ndarray] = {}
        self.corrections = Corrections(self.mask_frame, self.is_corrected)
        self.steps = ThresholdSteps(self)

    @property
    def is_cine(self) -> bool:
        """Whether there is more than a single frame."""
        return is_cine(self.image)

    @property
    def count(self) -> int:
        """Number of frames."""
        return self.shape[0]

    @property
    def image_changed(self) -> bool:
        """Whether the image now has pixels of another shape."""
        return self.why_not is None and frame_shape(self.image) != self.shape

    @property
    def usable_mask(self) -> bool:
        """Whether there is a mask that still fits the image."""
        if self.mask is None:
            return False
        return self.mask.data.shape == self._layer_shape

    @property
    def _layer_shape(self) -> tuple[int, ...]:
        return self.shape if self.is_cine else self.shape[1:]

    def mask_frame(self, frame: int) -> np.ndarray:
        """Return a frame of the mask, as a view of the layer's own array."""
        return self.mask.data[frame] if self.mask.ndim == 3 else self.mask.data

    # -- layers ---------------------------------------------------------------

    def _as_layer_data(self, pixels: np.ndarray) -> np.ndarray:
        return pixels if self.is_cine else pixels[0]

    def layers(self) -> list[Layer]:
        """Return the layers that there are, the lowest first."""
        return [
            layer
            for layer in (self.image, self.prediction, self.mask)
            if layer is not None
        ]

    def overlays(self) -> list[Layer]:
        """Return the layers that lie over the image."""
        return [layer for layer in self.layers() if layer is not self.image]

    def new_prediction_layer(self) -> Labels:
        """Make the layer that shows what the model has found."""
        self.prediction = make_prediction_layer(self.image, self.prediction_pixels())
        self.prediction.visible = self.show_prediction
        self.prediction_was_deleted = False
        return self.prediction

    def prediction_pixels(self) -> np.ndarray:
        """What has been found in all frames, of the image layer's shape."""
        found = np.zeros(self.shape, np.uint8)
        for frame in self.sources:
            found[frame] = self.found(frame)
        return self._as_layer_data(found)

    def found(self, frame: int) -> np.ndarray:
        """What the model has found, at its own threshold, whatever the slider says."""
        return mask_at(self.probability[frame], self.sources[frame].threshold)

    def new_mask_layer(self) -> Labels:
        """Make a fresh mask, cut from whatever has been predicted."""
        self.start_mask(make_mask_layer(self.image, self.fresh_mask()))
        return self.mask

    def fresh_mask(self) -> np.ndarray:
        """The mask to begin with, of the image layer's shape: own or predicted."""
        self._set_thresholds()
        pixels = np.zeros(self.shape, np.uint8)
        for frame in self.sources:
            pixels[frame] = self.cut(frame)
        for frame, own in self.own.items():
            pixels[frame] = own
        return self._as_layer_data(pixels)

    def start_mask(self, mask: Labels) -> None:
        """Take a layer with a fresh mask, and follow what is done to it."""
        self.mask = mask
        self.mask_was_deleted = False
        self.corrections = Corrections(self.mask_frame, self.is_corrected)
        self.steps = ThresholdSteps(self)
        self._listen(mask)

    def _listen(self, mask: Labels) -> None:
        # Not through the controller: strokes count while the panel is closed, too.
        mask.events.paint.connect(self._on_paint)
        mask.events.editable.connect(self._on_editable)
        # napari tells nobody that it undoes, so this mask's own methods do.
        undo, redo = mask.undo, mask.redo

        def undo_and_tell() -> None:
            undo()
            self._after_undo(self.steps.note_undo)

        def redo_and_tell() -> None:
            redo()
            self._after_undo(self.steps.note_redo)

        mask.undo, mask.redo = undo_and_tell, redo_and_tell

    def release(self) -> None:
        """Let go of the overlays, which are another image's from now on."""
        if self.mask is not None:
            self.mask.events.paint.disconnect(self._on_paint)
            self.mask.events.editable.disconnect(self._on_editable)
            del self.mask.undo, self.mask.redo  # napari's own again
        self.prediction = self.mask = None

    def _after_undo(self, note: Callable[[], None]) -> None:
        note()
        self.corrections.note_undo()
        self.refresh_mask()
        self.touched.emit(set(self.corrections.in_history))

    def _on_paint(self, event) -> None:
        if event.source is not self.mask:
            return
        self.steps.note_item()
        if self.usable_mask:
            frames = frames_of(event.value, self.mask.ndim, self.count)
            self.corrections.note_change(frames)
            self.touched.emit(frames)

    def _on_editable(self, event) -> None:
        if event.source is self.mask and not self.mask.editable:
            self.steps.forget_history()

    def forget_mask(self) -> None:
        """The mask layer is gone. What was drawn comes back with the next one."""
        if self.usable_mask:
            for frame in self.corrections.in_history:
                if self.is_corrected(frame):
                    self.own[frame] = self.mask_frame(frame) != 0
        self.mask = None
        self.mask_was_deleted = True

    def forget_prediction(self) -> None:
        """The prediction layer is gone; the probability itself is kept."""
        self.prediction = None
        self.prediction_was_deleted = True
        self.show_prediction = False

    # -- prediction -----------------------------------------------------------

    def waiting_frames(self) -> list[int]:
        """Frames without a prediction."""
        return [int(f) for f in np.flatnonzero(~self.predicted)]

    def has_prediction(self, frame: int) -> bool:
        """Whether a probability is there, be it of an earlier model."""
        return frame in self.sources

    def start_over(self) -> None:
        """Forget that anything was predicted; masks stay until they are replaced."""
        self.predicted[:] = False

    def set_prediction(
        self, frame: int, probability: np.ndarray, source: Source, shown: int
    ) -> bool:
        """Take in a predicted frame; fill the mask where nobody has painted.

        The fill is no undo step, except in a frame that the undo history holds
        already: there, older steps would otherwise undo into the wrong pixels.

        Returns
        -------
        bool
            False if the frame holds the reader's own work and so was left as it is.
        """
        mine = self.usable_mask and self.is_corrected(frame)
        self.probability[frame] = probability
        self.predicted[frame] = True
        self.sources[frame] = source
        self._show_found(frame, shown)
        if not self.usable_mask or mine:
            return not mine
        self.thresholds[frame] = self.threshold
        if frame in self.corrections.in_history:
            self.replace(frame, self.cut(frame))
        else:
            self.mask_frame(frame)[...] = self.cut(frame)
            if frame == shown:
                self.refresh_mask()
        self.steps.rebase(frame)
        return True

    def _show_found(self, frame: int, shown: int) -> None:
        layer = self.prediction
        if layer is None or layer.data.shape != self._layer_shape:
            return
        (layer.data[frame] if layer.ndim == 3 else layer.data)[...] = self.found(frame)
        if frame == shown:
            layer.refresh(extent=False)

    def is_corrected(self, frame: int) -> bool:
        """Whether a frame's mask is other than what the program has put there."""
        if frame in self.own:
            return True
        mask = self.mask_frame(frame)
        if not self.has_prediction(frame):
            return bool(mask.any())
        if self.steps.keeps(frame):
            return True
        return not np.array_equal(mask != 0, self.cut(frame))

    def cut(self, frame: int) -> np.ndarray:
        """The prediction cut at the threshold of a frame."""
        return mask_at(self.probability[frame], self.thresholds[frame])

    # -- changes that can be undone -------------------------------------------

    def replace(self, frame: int, wanted: np.ndarray) -> None:
        """Set a frame of the mask, bool (Y, X), in one undo step."""
        rows, columns = np.nonzero((self.mask_frame(frame) != 0) != wanted)
        self.write(frame, (rows, columns), wanted[rows, columns].astype(np.uint8))

    def write(
        self,
        frame: int,
        where: tuple[np.ndarray, np.ndarray],
        values: np.ndarray | int,
    ) -> None:
        """Set pixels of a frame through napari's own undo history."""
        if not len(where[0]):
            return
        if not self.mask.visible:
            # napari slices no hidden layer, and data_setitem needs a slice.
            self.mask.set_view_slice()
        if self.mask.ndim == 3:
            where = (np.full(len(where[0]), frame), *where)
        self.mask.data_setitem(where, values)

    def refresh_mask(self, *, thumbnail: bool = True) -> None:
        """Draw the mask again after a change that napari has not made itself."""
        self.mask.refresh(extent=False, highlight=False, thumbnail=thumbnail)

    # -- what the controller tells ----------------------------------------------

    def on_data_replaced(self) -> None:
        """Another array was put into the layer: all of it is the reader's now."""
        self.steps.forget()
        if self.usable_mask:
            self.corrections.note_change(range(self.count))
            self.touched.emit(set(range(self.count)))

    def on_image_replaced(self) -> None:
        """Another array was put into the image layer."""
        self.image_replaced = True
        self.why_not = why_not(self.image)
        shape = frame_shape(self.image) if self.why_not is None else (0, 0, 0)
        if shape == self.shape:
            self.predicted[:] = False
            return
        # Nothing of before fits: prediction and mask are no longer this image's.
        self.shape = shape
        self.prediction = self.mask = None
        self.mask_was_deleted = self.prediction_was_deleted = False
        self._new_pixels()

    def start_threshold(self, threshold: float) -> None:
        """Begin at what the model's card recommends, if nothing is cut yet."""
        if not self.sources and not self.corrections.in_history:
            self.threshold = threshold
            self._set_thresholds()

    def _set_thresholds(self) -> None:
        for frame in range(self.count):
            if frame not in self.own:  # which was cut where it was cut
                self.thresholds[frame] = self.threshold

    # -- export ---------------------------------------------------------------

    def snapshot(self) -> np.ndarray:
        """Copy the mask as bool, (Y, X) or (T, Y, X)."""
        for frame in self.steps.late_frames():
            self.steps.bring_up_to_date(frame)
        return np.array(self.mask.data != 0)
