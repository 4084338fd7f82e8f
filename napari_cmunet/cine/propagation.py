"""Propagation of changes between the frames of a cine, by optical flow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    gaussian_filter,
    map_coordinates,
    zoom,
)
from skimage.registration import optical_flow_ilk

from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_cmunet.vessels.naming import SegmentName

SIDE = 256
"""Side, in pixels, to which frames are reduced for the optical flow."""

_FINE, _COARSE = 1.0, 12.0  # scales of a band-pass, in reduced pixels
_RADIUS, _WARPS = 7, 10

MIN_CONFIDENCE = 0.6
"""Changes are propagated as long as the confidence is at least this."""

_AROUND = 8  # pixels of a frame 512 wide around the changes that are compared
_SHARE = 0.6  # of a branch that must be covered for it to be removed whole


@dataclass(frozen=True)
class Changes:
    """What a user changed in the mask of a frame, and the names of its vessels."""

    #: added, removed: bool array (Y, X)
    added: np.ndarray
    removed: np.ndarray
    #: How well the frame matches the one that was corrected, around the changes:
    #: the correlation of both, 1 for the corrected frame itself.
    confidence: float = 1.0
    #: As doubtful as the frame is unlike the one whose vessels were named.
    names: tuple[SegmentName, ...] = ()

    def apply(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask (Y, X) with the changes, bool.

        A branch of the mask that is mostly removed is removed whole: a prediction does
        not end where it did in the other frame.
        """
        mask = mask != 0
        removed = binary_dilation(self.removed, iterations=2) & ~self.added
        gone = removed & mask
        if gone.any():
            tree = build_tree(mask)
            numbers = tree.numbers[mask]
            sizes = np.bincount(numbers, minlength=len(tree.branches))
            covered = np.bincount(tree.numbers[gone], minlength=len(tree.branches))
            whole = np.flatnonzero(covered > _SHARE * np.maximum(sizes, 1))
            gone |= np.isin(tree.numbers, whole) & mask
        return (mask & ~gone) | self.added


def propagate_changes(
    changes: Changes,
    read: Callable[[int], np.ndarray],
    order: Sequence[int],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Changes]]:
    """Move changes from frame to frame, until the frames no longer match.

    Parameters
    ----------
    changes : Changes
        Of the first frame of ``order``.
    read : callable
        Returns a frame (Y, X) of the cine by its index.
    order : sequence of int
        The corrected frame, then its successors in one direction.
    should_stop : callable
        Called before each frame.

    Yields
    ------
    frame : int
    Changes
        The changes at their place in that frame.

    Notes
    -----
    Iterative Lucas-Kanade optical flow [1]_ on band-passed frames, from frame to frame:
    over several at once the heart moves too far.

    References
    ----------
    .. [1] G. Le Besnerais and F. Champagnat, "Dense optical flow by iterative local
       window registration", ICIP 2005.
    """
    first = before = read(order[0])
    shape = first.shape
    flow = np.zeros((2, *shape), np.float32)
    reference = _detail(first, 1.0)
    around = max(1, round(_AROUND * max(shape) / 512))
    for index in order[1:]:
        if should_stop():
            return
        frame = read(index)
        step = estimate_motion(before, frame)
        flow = step + np.stack([warp(part, step) for part in flow])
        added, removed = (
            warp(part.astype(np.float32), flow) > 0.5
            for part in (changes.added, changes.removed)
        )
        names = _move(changes.names, flow)
        place = added | removed
        if names and not place.any():
            place[tuple(np.transpose([p for name in names for p in name.points]))] = (
                True
            )
        place = binary_dilation(place, iterations=around)
        confidence = _correlation(warp(reference, flow), _detail(frame, 1.0), place)
        if confidence < MIN_CONFIDENCE:
            return
        doubt = max(0.001, round(1 - confidence, 3))  # nobody has confirmed them
        names = tuple(replace(n, doubt=max(n.doubt, doubt)) for n in names)
        yield index, Changes(added, removed, confidence, names)
        before = frame


def _move(names: Sequence[SegmentName], flow: np.ndarray) -> tuple[SegmentName, ...]:
    """Names at their place in the frame whose pixels a flow takes back."""
    moved = []
    for name in names:
        points = np.transpose(name.points).astype(np.float32)
        at = points
        for _ in range(_WARPS):  # the inverse of the flow, as its fixed point
            back = [map_coordinates(part, at, order=1, mode="nearest") for part in flow]
            at = points - back
        rows, columns = at.round().astype(int)
        seen = (
            (rows >= 0)
            & (rows < flow.shape[1])
            & (columns >= 0)
            & (columns < flow.shape[2])
        )
        if seen.any():
            places = zip(rows[seen].tolist(), columns[seen].tolist(), strict=True)
            moved.append(replace(name, points=tuple(places)))
    return tuple(moved)


def _correlation(one: np.ndarray, other: np.ndarray, place: np.ndarray) -> float:
    """Correlation of two images where a place is; 0 where that is too small."""
    if place.sum() < 16:
        return 0.0
    a, b = one[place] - one[place].mean(), other[place] - other[place].mean()
    return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-9))


def estimate_motion(frame: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Offsets (2, Y, X) of pixels of ``neighbour`` to their place in ``frame``."""
    height, width = frame.shape
    shrink = min(1.0, SIDE / max(height, width))
    moved = optical_flow_ilk(
        _detail(neighbour, shrink),
        _detail(frame, shrink),
        radius=_RADIUS,
        num_warp=_WARPS,
    )
    back = (height / moved.shape[1], width / moved.shape[2])
    return np.stack(
        [
            zoom(part, back, order=1) * factor
            for part, factor in zip(moved, back, strict=True)
        ]
    )


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample an image (Y, X) at the positions given by a flow."""
    rows, columns = np.indices(image.shape, np.float32)
    return map_coordinates(
        image, [rows + flow[0], columns + flow[1]], order=1, mode="constant"
    )


def _detail(frame: np.ndarray, shrink: float) -> np.ndarray:
    small = np.asarray(frame, np.float32)
    if shrink < 1:
        small = zoom(gaussian_filter(small, 0.5 / shrink), shrink, order=1)
    detail = gaussian_filter(small, _FINE) - gaussian_filter(small, _COARSE)
    return detail / max(float(detail.std()), 1e-6)
