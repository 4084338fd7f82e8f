"""The state of one open image: its layers, its prediction and its mask.

Layers are held by reference; their names, order and selection do not matter. Any layer
may be removed from the viewer at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cmunet.gui.images import layers
from napari_cmunet.gui.images.corrections import Corrections, frames_of
from napari_cmunet.gui.images.frame_masks import FrameMasks
from napari_cmunet.gui.images.mask_history import MaskHistory
from napari_cmunet.model.threshold import DEFAULT_THRESHOLD, mask_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari.layers import Image, Labels, Layer

    from napari_cmunet.gui.images.corrections import Companion, Names, Pixels, Where
    from napari_cmunet.gui.prediction.prediction import Source
    from napari_cmunet.io.provenance import Provenance
    from napari_cmunet.vessels.qca import Analysis


class ImageState:
    """Owns the mask, the prediction and the undo history of an image.

    Parameters
    ----------
    image : Image
        A frame or a cine.
    threshold : float
        Threshold of the first mask.
    problem : str, optional
        Why the image's file cannot be segmented.
    """

    #: Frames of the mask that a stroke, an undo or the threshold may have changed.
    mask_changed = Signal(object)
    #: A step was undone or redone; with this state and the frames of the step.
    undone = Signal(object, object)

    def __init__(
        self,
        image: Image,
        threshold: float = DEFAULT_THRESHOLD,
        problem: str | None = None,
    ) -> None:
        self.image = image
        #: Why the image cannot be segmented; None if it can.
        self.unsupported = problem or layers.unsupported(image)
        self.prediction: Labels | None = None
        self.mask: Labels | None = None
        self.mask_was_deleted = self.prediction_was_deleted = False
        self.show_prediction = True
        self.threshold = threshold
        #: The file, if this program has opened it and not napari.
        self.file: Path | None = None
        #: Whether it is an image of the open project.
        self.in_project = False
        #: Whether the best frame was searched for, and which has most dark ridges.
        self.best_frame_searched = False
        self.fullest_frame: int | None = None
        #: Whether the pixels of the image layer were replaced.
        self.image_replaced = False
        self.shape = (0, 0, 0) if self.unsupported else layers.frame_shape(image)
        self._reset()

    def _reset(self) -> None:
        frames = self.shape[0]
        self.probability = np.zeros(self.shape, np.uint8)
        self.predicted = np.zeros(frames, bool)
        #: What was there before the contrast, and is no artery.
        self.seen_before = FrameMasks(self.shape[1:])
        #: Frames whose pixels are all alike.
        self.flat: set[int] = set()
        #: Whether the arteries seem bright as the image is shown.
        self.bright_vessels = False
        #: The threshold of each frame's mask.
        self.thresholds = np.full(frames, self.threshold)
        self.sources: dict[int, Source] = {}
        #: Masks of the user's own, such as accepted ones, (Y, X) bool by frame.
        self.own_masks: dict[int, np.ndarray] = {}
        #: Where masks come from that are not of the last prediction, by frame: of a
        #: file, a label, or a former model.
        self.origins: dict[int, Provenance] = {}
        #: By frame: fingerprint of a mask, analyses of the model's mask and of it.
        self.measured: dict[int, tuple[int, Analysis | None, Analysis]] = {}
        #: By frame: the SYNTAX segments of its vessels.
        self.names: dict[int, Names] = {}
        self.corrections = Corrections(self.mask_frame, self.is_corrected)
        self.history = MaskHistory(self)

    @property
    def is_cine(self) -> bool:
        """Whether the image has a time axis."""
        return layers.is_cine(self.image)

    @property
    def count(self) -> int:
        """Number of frames."""
        return self.shape[0]

    @property
    def usable_mask(self) -> bool:
        """Whether there is a mask, of the image's shape."""
        return self.mask is not None and self.mask.data.shape == self._layer_shape

    @property
    def _layer_shape(self) -> tuple[int, ...]:
        return self.shape if self.is_cine else self.shape[1:]

    def mask_frame(self, frame: int) -> np.ndarray:
        """Return a frame of the mask, as a view of the layer's own array."""
        assert self.mask is not None
        return self.mask.data[frame] if self.mask.ndim == 3 else self.mask.data

    # -- layers ---------------------------------------------------------------

    def _as_layer_data(self, pixels: np.ndarray) -> np.ndarray:
        return pixels if self.is_cine else pixels[0]

    def layers(self) -> list[Layer]:
        """Return the layers that exist, the lowest first."""
        every = (self.image, self.prediction, self.mask)
        return [layer for layer in every if layer is not None]

    def overlays(self) -> list[Layer]:
        """Return the layers over the image."""
        return [layer for layer in self.layers() if layer is not self.image]

    def new_prediction_layer(self) -> Labels:
        """Make the layer of the prediction."""
        pixels = self.prediction_pixels()
        self.prediction = layers.make_prediction_layer(self.image, pixels)
        self.prediction.visible = self.show_prediction and self.image.visible
        self.prediction_was_deleted = False
        return self.prediction

    def prediction_pixels(self) -> np.ndarray:
        """Values of the prediction layer, of the image layer's shape."""
        found = np.zeros(self.shape, np.uint8)
        for frame in self.sources:
            found[frame] = self._prediction_frame(frame)
        return self._as_layer_data(found)

    def _prediction_frame(self, frame: int) -> np.ndarray:
        return self.seen_before.drawn(frame, self.found(frame), layers.SEEN_BEFORE)

    def found(self, frame: int) -> np.ndarray:
        """The predicted mask of a frame, at the model's own threshold."""
        return mask_at(self.probability[frame], self.sources[frame].threshold)

    def new_mask_layer(self) -> Labels:
        """Make a new mask layer from what is predicted, hidden if the image is."""
        self.start_mask(layers.make_mask_layer(self.image, self.fresh_mask()))
        assert self.mask is not None
        self.mask.visible = self.image.visible
        return self.mask

    def fresh_mask(self) -> np.ndarray:
        """The first mask, of the image layer's shape: the user's own or predicted."""
        self._set_thresholds()
        pixels = np.zeros(self.shape, np.uint8)
        for frame in self.sources:
            pixels[frame] = self.thresholded(frame)
        for frame, own in self.own_masks.items():
            pixels[frame] = own
        return self._as_layer_data(pixels)

    def start_mask(self, mask: Labels) -> None:
        """Use a layer with a new mask, and follow its edits."""
        self.mask = mask
        self.mask_was_deleted = False
        self.corrections = Corrections(self.mask_frame, self.is_corrected)
        self.history = MaskHistory(self)
        self._connect(mask)

    def _connect(self, mask: Labels) -> None:
        # Not through the controller: strokes count also while the panel is closed.
        mask.events.paint.connect(self._on_paint)
        mask.events.editable.connect(self._on_editable)
        layers.watch_undo(mask, self.history, self._on_undo, self._on_redo)

    def release(self) -> None:
        """Give up the overlays, which another image reuses."""
        if self.mask is not None:
            self.mask.events.paint.disconnect(self._on_paint)
            self.mask.events.editable.disconnect(self._on_editable)
            layers.unwatch_undo(self.mask)
        self.prediction = self.mask = None

    def _on_undo(self) -> None:
        assert self.mask is not None
        stepped = self.history.can_undo
        frames = self.history.note_undo()
        self._after_undo(frames, self.mask._redo_history if stepped else ())

    def _on_redo(self) -> None:
        assert self.mask is not None
        stepped = self.history.can_redo
        frames = self.history.note_redo()
        self._after_undo(frames, self.mask._undo_history if stepped else ())

    def _after_undo(self, frames: set[int], history: Sequence[Any]) -> None:
        """Follow an undo or redo, whose item is the last of a history of napari."""
        self.corrections.note_undo()
        self.refresh_mask()
        self.mask_changed.emit(set(self.corrections.in_history))
        if history and self.mask is not None:
            frames = frames or frames_of(history[-1], self.mask.ndim, self.count)
            self.undone.emit(self, frames)

    def _on_paint(self, event) -> None:
        if event.source is not self.mask:
            return
        self.history.note_item()
        if self.usable_mask:
            frames = frames_of(event.value, self.mask.ndim, self.count)
            self.corrections.note_change(frames)
            self.mask_changed.emit(frames)

    def _on_editable(self, event) -> None:
        if event.source is self.mask and not self.mask.editable:
            self.history.clear()

    def on_mask_removed(self) -> None:
        """Follow the removal of the mask layer; keep corrections for the next one."""
        if self.usable_mask:
            for frame in self.corrections.in_history:
                if self.is_corrected(frame):
                    self.own_masks[frame] = self.mask_frame(frame) != 0
        self.mask = None
        self.mask_was_deleted = True

    def on_prediction_removed(self) -> None:
        """Follow the removal of the prediction layer; the probability is kept."""
        self.prediction = None
        self.prediction_was_deleted = True
        self.show_prediction = False

    # -- prediction -----------------------------------------------------------

    def waiting_frames(self) -> list[int]:
        """Frames without a prediction."""
        return [int(f) for f in np.flatnonzero(~self.predicted)]

    def has_prediction(self, frame: int) -> bool:
        """Whether a frame has a probability, perhaps of an earlier model."""
        return frame in self.sources

    def is_empty(self, frame: int) -> bool:
        """Whether a frame was predicted, and no artery was found in it."""
        return self.has_prediction(frame) and not self.found(frame).any()

    @property
    def best_frame(self) -> int | None:
        """The frame best filled with contrast; None if unknown, or if none is."""
        frame = self.fullest_frame
        return None if frame is None or self.is_empty(frame) else frame

    def discard_predictions(self) -> None:
        """Have all frames predicted again; masks stay until they are replaced."""
        self.predicted[:] = False

    def set_prediction(
        self, frame: int, probability: np.ndarray, source: Source, shown: int
    ) -> bool:
        """Store a predicted frame, and fill the mask unless it was corrected.

        The fill is no undo step, except in a frame that is in the undo history: there
        an older step would undo into the wrong pixels.

        Returns
        -------
        bool
            False if the frame was corrected, and so left as it is.
        """
        corrected = self.usable_mask and self.is_corrected(frame)
        self.probability[frame] = probability
        self.predicted[frame] = True
        self.sources[frame] = source
        self._show_found(frame, shown)
        if not self.usable_mask or corrected:
            return not corrected
        self.thresholds[frame] = self.threshold
        if frame in self.corrections.in_history:
            self.replace(frame, self.thresholded(frame))
        else:
            self.mask_frame(frame)[...] = self.thresholded(frame)
            if frame == shown:
                self.refresh_mask()
        self.history.rebase(frame)
        return True

    def _show_found(self, frame: int, shown: int) -> None:
        layer = self.prediction
        if layer is None or layer.data.shape != self._layer_shape:
            return
        data = layer.data[frame] if layer.ndim == 3 else layer.data
        data[...] = self._prediction_frame(frame)
        if frame == shown:
            layer.refresh(extent=False)

    def is_corrected(self, frame: int) -> bool:
        """Whether a frame's mask differs from what the program has put there."""
        if frame in self.own_masks:
            return True
        mask = self.mask_frame(frame)
        if not self.has_prediction(frame):
            return bool(mask.any())
        if self.history.has_kept_pixels(frame):
            return True
        return not np.array_equal(mask != 0, self.thresholded(frame))

    def thresholded(self, frame: int) -> np.ndarray:
        """The prediction of a frame at the threshold of its mask."""
        return mask_at(self.probability[frame], self.thresholds[frame])

    # -- changes that can be undone -------------------------------------------

    def replace(
        self,
        frame: int,
        wanted: np.ndarray,
        names: Names | None = None,
        companion: Companion | None = None,
    ) -> None:
        """Set a frame of the mask, bool (Y, X), and its names, in one undo step."""
        rows, columns = np.nonzero((self.mask_frame(frame) != 0) != wanted)
        values = wanted[rows, columns].astype(np.uint8)
        self.history.write_with(names, companion, frame, (rows, columns), values)

    def write(self, frame: int, where: Where, values: Pixels) -> None:
        """Set pixels of a frame through napari's own undo history."""
        if not len(where[0]):
            return
        assert self.mask is not None
        if not self.mask.visible:
            # napari slices no hidden layer, and data_setitem needs a slice.
            self.mask.set_view_slice()
        along = (np.full(len(where[0]), frame),) if self.mask.ndim == 3 else ()
        self.mask.data_setitem((*along, *where), values)

    def undo(self) -> None:
        """Undo the last step in napari's history."""
        assert self.mask is not None
        self.mask.undo()

    def refresh_mask(self, *, thumbnail: bool = True) -> None:
        """Redraw the mask after a change that napari does not know of."""
        assert self.mask is not None
        self.mask.refresh(extent=False, highlight=False, thumbnail=thumbnail)

    # -- changes from outside ---------------------------------------------------

    def on_data_replaced(self) -> None:
        """Follow a new array in the mask layer: all of it is the user's own."""
        self.history.on_pixels_replaced()
        if self.usable_mask:
            self.corrections.note_change(range(self.count))
            self.mask_changed.emit(set(range(self.count)))

    def on_image_replaced(self) -> None:
        """Follow a new array in the image layer."""
        self.image_replaced = True
        self.unsupported = layers.unsupported(self.image)
        shape = (0, 0, 0) if self.unsupported else layers.frame_shape(self.image)
        if shape == self.shape:
            self.predicted[:] = False
            return
        self.shape = shape
        self.prediction = self.mask = None  # they no longer fit
        self.mask_was_deleted = self.prediction_was_deleted = False
        self._reset()

    def start_threshold(self, threshold: float) -> None:
        """Begin with the model's recommended threshold, before the first mask."""
        if not self.sources and not self.corrections.in_history:
            self.threshold = threshold
            self._set_thresholds()

    def _set_thresholds(self) -> None:
        for frame in range(self.count):
            if frame not in self.own_masks:
                self.thresholds[frame] = self.threshold

    def snapshot(self) -> np.ndarray:
        """Copy the mask as bool, (Y, X) or (T, Y, X)."""
        for frame in self.history.late_frames():
            self.history.bring_up_to_date(frame)
        assert self.mask is not None
        return np.array(self.mask.data != 0)
