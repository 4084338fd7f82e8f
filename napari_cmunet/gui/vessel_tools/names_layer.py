"""The layer that shows the names of vessels as text beside them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Points
from qtpy.QtCore import QTimer

from napari_cmunet.gui.images.layers import (
    METADATA,
    geometry,
    insert_above,
    remove_layer,
)
from napari_cmunet.vessels.naming import DOUBTFUL
from napari_cmunet.vessels.segments import segment_title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari.components import ViewerModel

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.naming import SegmentName

# Pixels of a frame 512 pixels wide; stretches that are not long show the number.
_LONG, _SHORT = 60.0, 30.0
_APART = 20.0  # at least, between stretches that do not go on from each other
_LINE, _CHARACTER = 20.0, 10.0  # height and width on the screen, in its pixels
_ZOOMED_MS = 150  # of rest, before names are placed anew


class PlacedName(NamedTuple):
    """The name of a stretch of vessel, at one of its points."""

    place: tuple[int, int]
    text: str  # empty where there is no room for it
    segment: str
    is_doubtful: bool


class NamesLayer:
    """Text beside the named vessels of a frame, in a layer of its own.

    Names that lie over each other at one zoom are placed anew at another.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.layer: Points | None = None
        #: The names that the mask has, also those that there is no room for.
        self.placed: tuple[PlacedName, ...] = ()
        #: Image, place, names and texts of the layer.
        self._shown: tuple[Any, ...] = ()
        self._of: tuple[ImageState, int] | None = None
        self._zoomed = QTimer()
        self._zoomed.setSingleShot(True)
        self._zoomed.setInterval(_ZOOMED_MS)
        self._zoomed.timeout.connect(self._place_again)

    def show(self, image_state: ImageState, frame: int) -> None:
        """Show the names of a frame whose vessels the mask has."""
        names = image_state.names.get(frame, ())
        zoom = self._zoom(image_state)
        self.placed = ()
        if names:
            self.placed = placed_names(names, image_state.mask_frame(frame) != 0, zoom)
        if not self.placed:
            self.hide()
            return
        self._of = image_state, frame
        first = [frame] if image_state.is_cine else []
        shown = image_state.image, tuple(first), names, self.placed
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.layer = None  # the user has removed it: it comes with the next name
        known = shown if self.layer is not None else shown[:3]
        if self._shown[: len(known)] == known:
            return
        self._remove()
        self._shown = shown
        self._viewer.scene.camera.events.zoom.connect(self._on_zoom)
        self.layer = Points(
            np.array([[*first, *name.place] for name in self.placed], float),
            name="vessel names",
            features={"name": [name.text for name in self.placed]},
            text={"string": "{name}", "color": "white", "size": 11, "anchor": "center"},
            size=3,
            face_color="white",
            border_width=0,
            metadata={METADATA: {"role": "names"}},
            **geometry(image_state.image),
        )
        self.layer.editable = False
        insert_above(self._viewer, self.layer, image_state.mask)

    def hide(self) -> None:
        """Remove the layer. Idempotent."""
        self._remove()
        self._shown, self._of, self.placed = (), None, ()

    def _remove(self) -> None:
        self._zoomed.stop()
        self._viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
        layer, self.layer = self.layer, None
        remove_layer(self._viewer, layer)

    def _zoom(self, image_state: ImageState) -> float:
        """Pixels of the screen for one of the image, in steps of a fifth."""
        zoom = self._viewer.scene.camera.zoom * abs(image_state.image.scale[-1])
        return 1.2 ** math.floor(math.log(zoom, 1.2))

    def _on_zoom(self, event: Any = None) -> None:
        self._zoomed.start()

    def _place_again(self) -> None:
        if self._of is not None and self._of[0].usable_mask:
            self.show(*self._of)


class _Stretch(NamedTuple):
    number: int  # in the names
    segment: str
    points: np.ndarray  # (n, 2), those in the mask
    length: float
    doubt: float


def placed_names(
    names: Sequence[SegmentName], mask: np.ndarray, zoom: float = np.inf
) -> tuple[PlacedName, ...]:
    """Place the names of the vessels that the mask has.

    Stretches of one segment that go on from each other share one text; long ones have
    their own, a number. No text lies over another one or beyond the frame: the longest
    stretch of each segment comes first, and what has no room is left out.

    Parameters
    ----------
    names : sequence of SegmentName
    mask : bool array (Y, X)
    zoom : float
        Pixels of the screen for one of the frame; by default, all have room.
    """
    scale = max(mask.shape) / 512
    placed: dict[int, PlacedName] = {}
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for stretch in _with_text(list(_stretches(names, mask)), scale):
        doubtful = stretch.doubt > DOUBTFUL
        texts = [stretch.segment + " ?" * doubtful]
        known = any(stretch.segment == name.segment for name in placed.values())
        if stretch.length >= _LONG * scale and not known:
            texts.insert(0, segment_title(stretch.segment) + " ?" * doubtful)
        for text in texts:
            half = np.array([_LINE, _CHARACTER * len(text)]) / (2 * zoom)
            boxes = stretch.points - half, stretch.points + half
            free = (boxes[0] >= 0).all(1) & (boxes[1] <= mask.shape).all(1)
            for low, high in taken:
                free &= ((boxes[0] >= high) | (boxes[1] <= low)).any(1)
            if free.any():
                break
        else:
            text = ""
        middle = len(stretch.points) // 2
        away = abs(np.arange(len(stretch.points)) - middle)
        at = int(np.where(free, away, np.inf).argmin()) if text else middle
        if text:
            taken.append((boxes[0][at], boxes[1][at]))
        row, column = map(int, stretch.points[at])
        name = PlacedName((row, column), text, stretch.segment, doubtful)
        if text or not known:
            placed[stretch.number] = name
    return tuple(placed[number] for number in sorted(placed))


def _stretches(names: Sequence[SegmentName], mask: np.ndarray) -> Iterator[_Stretch]:
    """The named stretches of which the mask has half at least."""
    for number, name in enumerate(names):
        points = np.array(name.points)
        points = points[(points >= 0).all(1) & (points < mask.shape).all(1)]
        points = points[mask[tuple(points.T)]]
        if name.segment and len(points) and 2 * len(points) >= len(name.points):
            steps = (np.hypot(*(after - before)) for before, after in pairwise(points))
            length = float(sum(steps))
            yield _Stretch(number, name.segment, points, length, name.doubt)


def _with_text(stretches: list[_Stretch], scale: float) -> list[_Stretch]:
    """Those with a text: the longest of each segment, then the others, by length."""
    from scipy.sparse.csgraph import connected_components  # slow to import
    from scipy.spatial.distance import cdist

    first, others = [], []
    for segment in dict.fromkeys(stretch.segment for stretch in stretches):
        same = [stretch for stretch in stretches if stretch.segment == segment]
        same.sort(key=lambda stretch: -stretch.length)
        points = np.concatenate([stretch.points for stretch in same])
        of = np.repeat(np.arange(len(same)), [len(s.points) for s in same])
        joined = (cdist(points, points) < _APART * scale) | (of[:, None] == of)
        groups = connected_components(joined)[1]
        _, longest = np.unique(groups, return_index=True)
        alone = {int(of[index]) for index in longest}
        first.append(same[0])
        for number, stretch in enumerate(same[1:], 1):
            proposed = bool(stretch.doubt) and stretch.length < _SHORT * scale
            if stretch.length >= _LONG * scale or (number in alone and not proposed):
                others.append(stretch)
    return [
        *sorted(first, key=lambda stretch: -stretch.length),
        *sorted(others, key=lambda stretch: -stretch.length),
    ]
