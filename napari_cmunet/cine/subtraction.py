"""What a cine shows before the contrast agent is no artery.

As in digital subtraction angiography, frames before the contrast tell what is there in
any case: catheters, wires, leads, ribs. They are not subtracted pixel by pixel, since
the heart moves: a stretch of the predicted tree is left out where the network finds an
artery before the contrast, too, and the line is about as dark there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_cmunet.cine.best_frame import Frames

KEPT_PROBABILITY = 0.25
"""Share of its probability that a pixel keeps when a prediction leaves it out."""

MIN_FRAMES, MAX_FRAMES = 3, 6
"""Frames before the contrast that are looked at: the first ones.

The last ones hold the first of the contrast, too little of it to be told.
"""

LIKELY = 0.5
"""Probability of artery before the contrast from which a stretch may be left out."""

AS_DARK = 0.8
"""Darkness of a line before the contrast, as a share of that with it, likewise.

An artery that holds a rest of an earlier injection is found, too, but is less dark.
"""

_EMPTIED = round(255 * KEPT_PROBABILITY)

# In pixels of a frame 512 wide.
_REACH = 4  # that a line may have moved
_STRETCH = 6.0  # SD of the mean along the centreline
_LEAST, _CONNECTION = 30, 60  # shorter pieces stay; these if they connect others
_HALO = 12  # beside the mask
_SCRAP = 48  # extent below which a piece that was cut off goes, too


@dataclass(frozen=True)
class BeforeContrast:
    """What is there before the contrast, as far as a line may move.

    Parameters
    ----------
    likely : float array (Y, X)
        Artery probability.
    depth : float array (Y, X)
        How much darker than its surroundings, in grey values.
    """

    likely: np.ndarray
    depth: np.ndarray


def frames_before(probability: np.ndarray, threshold_byte: int) -> list[int]:
    """The first frames without contrast, before the fullest one; none if too few.

    Parameters
    ----------
    probability : uint8 array (T, Y, X)
        Of a network that leaves frames without contrast empty: no pixel keeps more than
        :data:`KEPT_PROBABILITY`.
    threshold_byte : int
        Least probability that counts as artery.
    """
    fullest = int(np.argmax([(p >= threshold_byte).sum() for p in probability]))
    empty = [i for i in range(fullest) if probability[i].max() <= _EMPTIED]
    return empty[:MAX_FRAMES] if len(empty) >= MIN_FRAMES else []


def before_contrast(
    frames: Frames, probability: np.ndarray, before: Sequence[int]
) -> BeforeContrast:
    """Look at frames without contrast.

    Parameters
    ----------
    frames : array (T, Y, X)
        Grey values, arteries dark. May be lazy.
    probability : uint8 array (T, Y, X)
        Of a network that leaves frames without contrast empty.
    before : sequence of int
        Of :func:`frames_before`; not empty.
    """
    size = 2 * max(1, round(_REACH * _unit(probability))) + 1
    likely, depth = [], []
    for index in before:
        # As it was before the frame was left empty.
        raw = probability[index] / np.float32(255 * KEPT_PROBABILITY)
        likely.append(ndimage.maximum_filter(raw.clip(0, 1), size))
        dark = ndimage.gaussian_filter(_depth(frames[index]), 1.0)
        depth.append(ndimage.maximum_filter(dark, size))
    return BeforeContrast(np.mean(likely, 0), np.mean(depth, 0))


def seen_before(
    frame: np.ndarray,
    probability: np.ndarray,
    threshold_byte: int,
    background: BeforeContrast,
) -> np.ndarray:
    """Find what was there before the contrast in a frame with contrast.

    Parameters
    ----------
    frame : array (Y, X)
        Grey values, arteries dark.
    probability : uint8 array (Y, X)
    threshold_byte : int
        Least probability that counts as artery.
    background : BeforeContrast

    Returns
    -------
    bool array (Y, X)
        Stretches of the predicted tree, with what is faint beside them.
    """
    mask, unit = probability >= threshold_byte, _unit(probability)
    centreline = skeletonize(mask)
    weight = np.maximum(_along(centreline, 1.0, unit), 1e-6)
    likely = _along(centreline, background.likely, unit) / weight
    depth = _along(centreline, _depth(frame), unit) / weight
    before = _along(centreline, background.depth, unit) / weight
    found = centreline & (likely >= LIKELY) & (before >= AS_DARK * depth) & (before > 0)
    pieces, count = ndimage.label(found, np.ones((3, 3)))
    lengths = np.bincount(pieces.ravel(), minlength=count + 1)
    long = lengths >= _LEAST * unit
    long[0] = False
    if not long.any():
        return np.zeros(mask.shape, bool)
    away, nearest = ndimage.distance_transform_edt(~centreline, return_indices=True)
    faint = probability >= KEPT_PROBABILITY * threshold_byte
    near = mask | (faint & (away <= _HALO * unit))
    owner = np.where(near, pieces[tuple(nearest)], 0)
    _keep_connections(mask, owner, long, lengths < _CONNECTION * unit)
    gone = long[owner]
    return gone | _scraps(mask & ~gone, gone, _SCRAP * unit)


def _keep_connections(
    mask: np.ndarray, owner: np.ndarray, left_out: np.ndarray, short: np.ndarray
) -> None:
    """Keep short pieces that connect what stays: a hole in an artery is worse.

    Parameters
    ----------
    mask : bool array (Y, X)
    owner : int array (Y, X)
        The piece that each pixel belongs to.
    left_out, short : bool arrays
        For each piece; the former is changed in place.
    """
    rest, _ = ndimage.label(mask & ~left_out[owner], np.ones((3, 3)))
    for piece in np.flatnonzero(left_out & short):
        around = ndimage.binary_dilation(owner == piece, np.ones((3, 3)))
        if len(np.unique(rest[around & (rest > 0)])) > 1:
            left_out[piece] = False


def _scraps(mask: np.ndarray, gone: np.ndarray, extent: float) -> np.ndarray:
    """Small pieces of a mask that what is left out has cut off, bool (Y, X)."""
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    beside = np.unique(pieces[ndimage.binary_dilation(gone, np.ones((3, 3)))])
    small = np.zeros(count + 1, bool)
    for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), 1):
        size = np.hypot(rows.stop - rows.start, columns.stop - columns.start)
        small[number] = number in beside and size < extent
    return small[pieces]


def subtract(
    frames: Frames, probability: np.ndarray, threshold_byte: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Find what is no artery in each frame.

    Parameters
    ----------
    frames : array (T, Y, X)
        Grey values, arteries dark. May be lazy.
    probability : uint8 array (T, Y, X)
        Of a network that leaves frames without contrast empty.
    threshold_byte : int
        See :func:`seen_before`.

    Yields
    ------
    frame : int
    found : bool array (Y, X) or None
        Of :func:`seen_before`; None for nothing.
    """
    before = frames_before(probability, threshold_byte)
    if not before:
        return
    step = max(1, round(_unit(probability)))
    coarse = probability[:, ::step, ::step]
    small = _Coarse(frames, step)
    background = before_contrast(small, coarse, before)
    likely = background.likely >= LIKELY
    for index, one in enumerate(coarse):
        fine = None
        if (likely & (one >= threshold_byte)).any():
            found = seen_before(small[index], one, threshold_byte, background)
            if found.any():
                fine = found.repeat(step, 0).repeat(step, 1)
                fine = fine[: probability.shape[1], : probability.shape[2]]
        yield index, fine


@dataclass(frozen=True)
class _Coarse:
    """Frames of which every so many pixels are taken: as many as of 512 suffice."""

    frames: Frames
    step: int

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.asarray(self.frames[index])[:: self.step, :: self.step]


def suppressed(probability: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A probability (Y, X) of any type, a quarter where something was found."""
    made = probability.copy()
    made[found] = (made[found] * KEPT_PROBABILITY).astype(made.dtype)
    return made


def _unit(frame: np.ndarray) -> float:
    """Pixels for one pixel of a frame 512 wide."""
    return max(frame.shape[-2:]) / 512


def _along(
    centreline: np.ndarray, values: np.ndarray | float, unit: float
) -> np.ndarray:
    """Sum of values along a centreline, weighted by distance."""
    weighted = np.where(centreline, values, 0).astype(np.float32)
    return ndimage.gaussian_filter(weighted, _STRETCH * unit)


def _depth(frame: np.ndarray) -> np.ndarray:
    """How much darker than its surroundings each pixel is, in grey values."""
    grey, unit = np.asarray(frame, np.float32), _unit(frame)
    return ndimage.gaussian_filter(grey, 12 * unit) - ndimage.gaussian_filter(
        grey, 1.5 * unit
    )
