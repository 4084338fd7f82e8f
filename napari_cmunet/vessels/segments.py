"""Stretches of vessel to be judged: branches of the mask, and others just missed.

Each is described by a few numbers, from which :mod:`.doubt` says how likely it is
artery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter1d
from skimage.filters import apply_hysteresis_threshold

from napari_cmunet.vessels.centreline import length
from napari_cmunet.vessels.tree import grow_tree

if TYPE_CHECKING:
    from napari_cmunet.vessels.features import Evidence
    from napari_cmunet.vessels.tree import VesselTree

SHORTEST = 12.0
"""Shorter ones are not proposed, in pixels of the working grid."""

_FAINT, _PLAIN = 0.16, 0.46
_CLEAR = 2

FEATURES = (
    "probability",
    "least probability",
    "ridge",
    "least ridge",
    "length",
    "width",
    "connection",
    "contrast",
    "straightness",
    "border",
    "log-odds",
    "least log-odds",
)


@dataclass(frozen=True)
class Segment:
    """A stretch of vessel, in the mask or proposed.

    Parameters
    ----------
    points : int array (N, 2)
        Centreline in pixels of the frame.
    in_mask : bool
    numbers : float array
        One for each of ``FEATURES``.
    branch : int
        Number of the branch in the mask's tree, -1 for a proposal.
    """

    points: np.ndarray
    in_mask: bool
    numbers: np.ndarray
    branch: int = -1

    @property
    def length(self) -> float:
        """In pixels."""
        return length(self.points)

    @property
    def middle(self) -> tuple[float, float]:
        """A point half way."""
        row, column = self.points[len(self.points) // 2]
        return float(row), float(column)

    def distance(self, point: tuple[float, float]) -> float:
        """How far a point is from the centreline, in pixels."""
        return float(np.hypot(*(self.points - point).T).min())


def segments_of_mask(evidence: Evidence, tree: VesselTree) -> list[Segment]:
    """Describe the branches of the mask, but for specks of a pixel or two."""
    parts = tree.components
    share = np.bincount(
        [parts[tuple(b.points[0])] for b in tree.branches] or [0],
        weights=[b.length for b in tree.branches] or [0],
    )
    return [
        Segment(
            b.points,
            True,
            _numbers(evidence, b.points, b.radius, share[parts[tuple(b.points[0])]]),
            b.number,
        )
        for b in tree.branches
        if len(b.points) > 2
    ]


def missing_segments(
    evidence: Evidence, mask: np.ndarray, background: np.ndarray | None = None
) -> list[Segment]:
    """Find stretches that look like a vessel and are not in the mask.

    Parameters
    ----------
    evidence : Evidence
    mask : bool array (Y, X)
    background : bool array (Y, X), optional
        What a reader has called no artery; nothing is proposed there.
    """
    step = evidence.step
    taken = mask if background is None else mask | background
    known = binary_dilation(taken[::step, ::step], iterations=_CLEAR)
    pull = np.where(known, 0, evidence.pull)
    found = apply_hysteresis_threshold(pull, _FAINT, _PLAIN)
    tree = grow_tree(found)
    away = distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, 99.0)
    segments = []
    for branch in tree.branches:
        if branch.length < SHORTEST:
            continue
        points = np.minimum(branch.points * step, np.array(mask.shape) - 1)
        near = away[tuple(points[[0, -1]].T)].min()
        numbers = _numbers(evidence, points, branch.radius * step, near)
        segments.append(Segment(points, False, numbers))
    return segments


def _numbers(evidence, points, radius, connection) -> np.ndarray:
    step = evidence.step
    at = tuple(points.T)
    sure = evidence.probability[at].astype(float) / 255
    ridge = evidence.ridge[tuple((points // step).T)].astype(float)
    least = gaussian_filter1d(sure, 2.0, mode="nearest").min()
    shape = np.array(evidence.shape)
    border = np.minimum(points, shape - 1 - points).min() / step
    chord = np.hypot(*(points[-1] - points[0]))
    return np.array(
        [
            sure.mean(),
            least,
            ridge.mean(),
            gaussian_filter1d(ridge, 2.0, mode="nearest").min(),
            np.log(length(points) / step + 1),
            np.log(radius / step),
            np.log(connection / step + 1),
            _contrast(evidence, points, radius),
            chord / max(length(points), 1.0),
            np.log(border + 1),
            _log_odds(sure.mean()),
            _log_odds(least),
        ]
    )


def _log_odds(chance: float) -> float:
    # A probability comes in steps of 1/255: neither 0 nor 1 is meant.
    return float(np.log((chance + 0.01) / (1.01 - chance)))


def _contrast(evidence, points, radius) -> float:
    """How much darker the line is than both its sides."""
    grey = evidence.grey
    shape = np.array(grey.shape)
    reach = int(np.ceil(2 * radius + 2 * evidence.step))
    rows, columns = points.T
    ring = [
        grey[
            np.clip(rows + y * reach, 0, shape[0] - 1),
            np.clip(columns + x * reach, 0, shape[1] - 1),
        ]
        for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    return float((np.median(ring, axis=0) - grey[rows, columns]).mean())
