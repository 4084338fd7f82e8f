"""What the undo history of a mask keeps beside napari's own steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.images.corrections import Corrections
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


@dataclass(frozen=True)
class Step:
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
class Naming:
    """A change of the names of a frame's vessels, and what goes with it."""

    frame: int
    before: Names
    after: Names
    companion: Companion | None = None
    with_pixels: bool = False  # as a step of napari, which knows of no names
