"""Per-frame state of the vessel tools: the edit context, and what was reviewed."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import Frames, source_array
from napari_cmunet.gui.jobs import JobRunner

if TYPE_CHECKING:
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.vessels.edits import Edit
    from napari_cmunet.vessels.tools import EditContext
    from napari_cmunet.vessels.uncertainty import Segment
    from napari_cmunet.vessels.vesselness import FrameFeatures

REVIEW_MARGIN = 12
"""Pixels around a segment that count as reviewed with it."""

_MAX_CACHED_FRAMES = 6
_NEAR = 6.0


def _prepare(
    frames: Frames,
    frame: int,
    probability: np.ndarray,
    mask: np.ndarray,
    background: np.ndarray | None,
    seen_before: np.ndarray,
    features: FrameFeatures | None,
    report: Report,
    should_stop: ShouldStop,
) -> EditContext:
    """Prepare the context in a worker, which imports what the tools need."""
    from napari_cmunet.vessels.tools import prepare_context
    from napari_cmunet.vessels.vesselness import compute_features

    if features is None:
        features = compute_features(frames[frame], probability)
    return prepare_context(features, mask, background, seen_before)


class ContextCache:
    """Prepares the edit context of the shown frame, one at a time, in a worker.

    A context is valid as long as the fingerprint of the mask is the same: napari emits
    no event when it undoes.
    """

    #: The context that was asked for is ready, or could not be prepared.
    ready = Signal()

    def __init__(self) -> None:
        self._features: OrderedDict[tuple[int, ...], FrameFeatures] = OrderedDict()
        self._context: tuple[tuple[int, ...], int, EditContext] | None = None
        self._jobs = JobRunner(
            "Preparing the vessel tools",
            failure="The vessel tools cannot read this frame",
        )
        #: Message why the last one could not be prepared, or empty.
        self.problem = ""

    @property
    def running(self) -> bool:
        """Whether a context is being prepared."""
        return self._jobs.running

    def get(
        self, image_state: ImageState, frame: int, background: np.ndarray | None
    ) -> EditContext | None:
        """Return the context of a frame's present mask, or None until ``ready``."""
        key = self._key(image_state, frame)
        current = fingerprint(image_state.mask_frame(frame))
        if self._context is not None and self._context[:2] == (key, current):
            return self._context[2]
        if not self._jobs.running:
            self._start(image_state, frame, key, current, background)
        return None

    def clear(self) -> None:
        """Drop everything, including the result of a running job."""
        self._context = None
        self._features.clear()
        if self._jobs.running:
            self._jobs.cancel()

    @staticmethod
    def _key(image_state: ImageState, frame: int) -> tuple[int, ...]:
        # A new prediction has a new source; new pixels are a new array.
        data = source_array(image_state.image)
        return id(image_state), frame, id(image_state.sources.get(frame)), id(data)

    def _start(
        self,
        image_state: ImageState,
        frame: int,
        key: tuple[int, ...],
        current: int,
        background: np.ndarray | None,
    ) -> None:
        prepare = partial(
            _prepare,
            Frames.of(image_state.image),
            frame,
            image_state.probability[frame].copy(),
            image_state.mask_frame(frame) != 0,
            background,
            image_state.seen_before[frame],
            self._features.get(key),
        )

        def on_result(context: EditContext) -> None:
            self.problem = ""
            self._context = (key, current, context)
            self._features[key] = context.features
            while len(self._features) > _MAX_CACHED_FRAMES:
                self._features.popitem(last=False)
            self.ready.emit()

        def on_error(message: str) -> None:
            self.problem = message
            self.ready.emit()

        self._jobs.start(prepare, on_result=on_result, on_error=on_error)


class ReviewRecord:
    """What the user has reviewed in an image, and marked as not artery.

    Together they are the reviewed area of a label, if the user says so. Kept for each
    image of a project until that is closed.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape[1:]
        self._background: dict[int, np.ndarray] = {}
        self._reviewed: dict[int, np.ndarray] = {}
        self._skipped: dict[int, list[tuple[float, float]]] = {}

    def fits(self, image_state: ImageState) -> bool:
        """Whether this can be the record of an image."""
        return self._shape == image_state.shape[1:]

    def add_background(self, frame: int, edit: Edit) -> None:
        """Mark removed pixels as not artery."""
        self._map(self._background, frame)[edit.where] = True

    def background(self, frame: int, mask: np.ndarray) -> np.ndarray | None:
        """Pixels marked as not artery that are not in the mask again."""
        if frame not in self._background:
            return None
        return self._background[frame] & (mask == 0)

    def add_segment(self, frame: int, segment: Segment) -> None:
        """Mark the surroundings of a segment as reviewed."""
        from scipy.ndimage import binary_dilation  # slow to import

        line = np.zeros(self._shape, bool)
        line[tuple(segment.points.T)] = True
        around = binary_dilation(line, iterations=REVIEW_MARGIN)
        self._map(self._reviewed, frame)[around] = True

    def add_area(self, frame: int, area: np.ndarray) -> None:
        """Mark an area, bool (Y, X), as reviewed."""
        self._map(self._reviewed, frame)[area] = True

    def add_skipped(self, frame: int, segment: Segment) -> None:
        """Do not show a segment again; it is not reviewed."""
        self._skipped.setdefault(frame, []).append(segment.middle)

    def is_done(self, frame: int, segment: Segment) -> bool:
        """Whether a segment was reviewed or skipped."""
        if any(
            segment.distance(point) < _NEAR for point in self._skipped.get(frame, [])
        ):
            return True
        reviewed = self._reviewed.get(frame)
        return reviewed is not None and reviewed[tuple(segment.points.T)].mean() > 0.5

    def reviewed(self, frame: int, mask: np.ndarray) -> np.ndarray | None:
        """Reviewed area of a frame, bool (Y, X); None for nothing."""
        background = self.background(frame, mask)
        areas = [
            area for area in (self._reviewed.get(frame), background) if area is not None
        ]
        return np.logical_or.reduce(areas) if areas else None

    def _map(self, maps: dict[int, np.ndarray], frame: int) -> np.ndarray:
        if frame not in maps:
            maps[frame] = np.zeros(self._shape, bool)
        return maps[frame]


_records: weakref.WeakKeyDictionary[ImageState, ReviewRecord] = (
    weakref.WeakKeyDictionary()
)


def review_record(image_state: ImageState) -> ReviewRecord:
    """Return the record of an image; it outlives the panel."""
    record = _records.get(image_state)
    if record is None or not record.fits(image_state):
        record = _records[image_state] = ReviewRecord(image_state.shape)
    return record


def restore_record(image_state: ImageState, record: ReviewRecord) -> None:
    """Give an image that is opened again its former record."""
    if record.fits(image_state):
        _records[image_state] = record
