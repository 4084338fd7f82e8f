"""What the reader has looked at in a frame, and what they called no artery.

Both are remembered with the reading, and with the image of a project until that is
closed. Where the reader says so, they are the reviewed part of the label.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.edits import Edit
    from napari_cmunet.vessels.segments import Segment

SEEN_AROUND = 12
"""Pixels around a segment that somebody who judges it has in view."""

_NEAR = 6.0


class LookedAt:
    """The memory of one reading."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape[1:]
        self._background: dict[int, np.ndarray] = {}
        self._seen: dict[int, np.ndarray] = {}
        self._skipped: dict[int, list[tuple[float, float]]] = {}

    def fits(self, image_state: ImageState) -> bool:
        """Whether this can be the memory of a reading."""
        return self._shape == image_state.shape[1:]

    def note_background(self, frame: int, edit: Edit) -> None:
        """A run was called no artery."""
        self._map(self._background, frame)[edit.where] = True

    def background(self, frame: int, mask: np.ndarray) -> np.ndarray | None:
        """What was called no artery and is still none; undone runs are artery again."""
        if frame not in self._background:
            return None
        return self._background[frame] & (mask == 0)

    def note_seen(self, frame: int, segment: Segment) -> None:
        """A place was judged, right or mended."""
        from scipy.ndimage import binary_dilation  # takes long to import

        line = np.zeros(self._shape, bool)
        line[tuple(segment.points.T)] = True
        around = binary_dilation(line, iterations=SEEN_AROUND)
        self._map(self._seen, frame)[around] = True

    def note_reviewed(self, frame: int, where: np.ndarray) -> None:
        """A part was reviewed before, as its label or draft says."""
        self._map(self._seen, frame)[where] = True

    def note_skipped(self, frame: int, segment: Segment) -> None:
        """A place was passed over: not offered again, and not reviewed."""
        self._skipped.setdefault(frame, []).append(segment.middle)

    def forget_skipped(self, frame: int) -> None:
        """Offer the places again that were passed over."""
        self._skipped.pop(frame, None)

    def is_done(self, frame: int, segment: Segment) -> bool:
        """Whether a segment need not be offered any more."""
        if any(
            segment.distance(point) < _NEAR for point in self._skipped.get(frame, [])
        ):
            return True
        seen = self._seen.get(frame)
        return seen is not None and seen[tuple(segment.points.T)].mean() > 0.5

    def reviewed(self, frame: int, mask: np.ndarray) -> np.ndarray | None:
        """The part of a frame that was reviewed, bool (Y, X); None for nothing."""
        seen = self._seen.get(frame)
        background = self.background(frame, mask)
        parts = [part for part in (seen, background) if part is not None]
        return np.logical_or.reduce(parts) if parts else None

    def _map(self, maps: dict[int, np.ndarray], frame: int) -> np.ndarray:
        if frame not in maps:
            maps[frame] = np.zeros(self._shape, bool)
        return maps[frame]


_memories: weakref.WeakKeyDictionary[ImageState, LookedAt] = weakref.WeakKeyDictionary()


def looked_at(image_state: ImageState) -> LookedAt:
    """The memory of a reading; outlives a panel that is closed and opened again."""
    memory = _memories.get(image_state)
    if memory is None or not memory.fits(image_state):
        memory = _memories[image_state] = LookedAt(image_state.shape)
    return memory


def recall(image_state: ImageState, memory: LookedAt) -> None:
    """Give a reading the memory of the one that its image had before."""
    if memory.fits(image_state):
        _memories[image_state] = memory
