"""Corrections of a mask: the steps of its undo history, and what is not exported."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari_cmunet.io.provenance import Provenance
    from napari_cmunet.vessels.naming import SegmentName


Where = tuple[np.ndarray, np.ndarray]
Pixels = np.ndarray | int
Names = tuple["SegmentName", ...]


class EditedMask(Protocol):
    """What the history needs of the mask whose threshold it moves."""

    #: The threshold of the image, and of each frame: not all have followed yet.
    threshold: float
    thresholds: np.ndarray
    #: Of each frame, (T, Y, X) uint8.
    probability: np.ndarray
    corrections: Corrections
    #: By frame, of its vessels.
    names: dict[int, Names]
    origins: dict[int, Provenance]
    #: Signals: frames that may have changed; an undone step, as ImageState has them.
    mask_changed: Any
    undone: Any

    @property
    def count(self) -> int: ...
    @property
    def usable_mask(self) -> bool: ...
    def has_prediction(self, frame: int) -> bool: ...
    def is_corrected(self, frame: int) -> bool: ...
    def mask_frame(self, frame: int) -> np.ndarray: ...
    def write(self, frame: int, where: Where, values: Pixels) -> None: ...
    def undo(self) -> None: ...
    def refresh_mask(self, *, thumbnail: bool = True) -> None: ...


@dataclass(frozen=True)
class State:
    """What belongs to a frame's mask besides its pixels."""

    threshold: float
    frame_threshold: float
    shown_threshold: float
    kept: np.ndarray | None
    shown_kept: np.ndarray | None
    origin: Provenance | None  # see ``ImageState.origins``


@dataclass(frozen=True)
class ThresholdStep:
    """One undoable change that the program has made."""

    frame: int
    shown: int
    before: State
    after: State


@dataclass(frozen=True)
class Companion:
    """What is undone and redone together with a change of the mask."""

    undo: Callable[[], None]
    redo: Callable[[], None]


@dataclass(frozen=True)
class NamesStep:
    """A change of the names of a frame's vessels, and what goes with it."""

    frame: int
    before: Names
    after: Names
    companion: Companion | None = None
    with_pixels: bool = False  # as a step of napari, which knows of no names


def frames_of(history_item: Iterable[Any], ndim: int, count: int) -> set[int]:
    """Return the frames that an undo item of a Labels layer changed.

    Parameters
    ----------
    history_item : iterable
        The value of a ``paint`` event: changes by region, or by index.
    ndim : int
        Of the layer; a single frame is always frame 0.
    count : int
        Number of frames.
    """
    if ndim == 2:
        return {0}
    frames: set[int] = set()
    for change in history_item:
        where = getattr(change, "slice_key", None)
        first = (where if where is not None else change[0])[0]
        if isinstance(first, slice):
            frames.update(range(*first.indices(count)))
        else:
            frames.update(int(f) for f in np.unique(first))
    return frames


def fingerprint(mask: np.ndarray) -> int:
    """Hash a frame's mask, to detect changes."""
    return zlib.crc32((mask != 0).tobytes())


def fingerprints(mask: np.ndarray) -> dict[int, int]:
    """Hash every frame of a mask."""
    frames = mask if mask.ndim == 3 else mask[None]
    return {index: fingerprint(frame) for index, frame in enumerate(frames)}


class Corrections:
    """The frames that were changed, and which of them are exported unchanged.

    Parameters
    ----------
    mask_of : callable
        Returns the mask of a frame, (Y, X).
    is_corrected : callable
        Whether a frame differs from its prediction.
    """

    def __init__(
        self,
        mask_of: Callable[[int], np.ndarray],
        is_corrected: Callable[[int], bool],
    ) -> None:
        self._mask_of = mask_of
        self._is_corrected = is_corrected
        self._exported: dict[int, int] = {}
        self._unsaved: set[int] = set()
        # Frames to compare when ``unsaved`` is asked for.
        self._unchecked: set[int] = set()
        #: Frames in napari's undo history.
        self.in_history: set[int] = set()
        #: The threshold of the last export, None before the first.
        self.exported_at: float | None = None

    def note_change(self, frames: Iterable[int]) -> None:
        """Note that frames were changed through the undo history."""
        self.in_history.update(frames)
        self._unchecked.update(frames)

    def note_undo(self) -> None:
        """Note an undo: any frame of the undo history may have changed."""
        self._unchecked |= self.in_history

    def note_export(self, prints: Mapping[int, int], threshold: float) -> None:
        """Note that frames with these hashes are exported."""
        self._exported.update(prints)
        self.exported_at = threshold
        self.note_undo()

    def unsaved(self) -> list[int]:
        """Return the frames that were changed since they were exported."""
        for frame in self._unchecked:
            if self._changed(frame):
                self._unsaved.add(frame)
            else:
                self._unsaved.discard(frame)
        self._unchecked.clear()
        return sorted(self._unsaved)

    def _changed(self, frame: int) -> bool:
        exported = self._exported.get(frame)
        if exported is None:
            return self._is_corrected(frame)
        return fingerprint(self._mask_of(frame)) != exported
