"""How likely each stretch of vessel is artery: branches of a mask, and missing ones.

A logistic model over a few numbers for each stretch (``python -m
benchmarks.fit_uncertainty``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from napari_cmunet.vessels.centreline import length
from napari_cmunet.vessels.tree import build_tree
from napari_cmunet.vessels.vesselness import compute_features

if TYPE_CHECKING:
    from napari_cmunet.vessels.tree import VesselTree
    from napari_cmunet.vessels.vesselness import FrameFeatures

MIN_PROBABILITY = 0.15
"""Missing branches that are less likely to be artery are not proposed."""

MIN_LENGTH = 12.0
"""Length of the shortest branch that is proposed, in pixels of the working grid."""

# Hysteresis thresholds of the vessel map, and the distance kept from the mask.
_LOW, _HIGH = 0.16, 0.46
_CLEARANCE = 2

FEATURE_NAMES = (
    "probability",
    "minimum probability",
    "vesselness",
    "minimum vesselness",
    "length",
    "width",
    "connection",
    "contrast",
    "straightness",
    "border",
    "log-odds",
    "minimum log-odds",
)

# Of a branch of the mask, the log-odds of the mean probability say most: intercept and
# slope, chosen on three hospitals (benchmarks/results/vessel_tools.md).
CALIBRATION_IN_MASK = (-3.0, 1.6)

# Of a missing branch: intercept, then one weight for each of FEATURE_NAMES, fitted on
# phantoms; and intercept and slope of a calibration on the same hospitals.
WEIGHTS_MISSING = (
    *(2.394, -10.245, 9.571, 1.256, -0.349, -0.29, -0.333),
    *(-0.817, 2.265, 1.37, 0.366, 1.668, -0.365),
)
CALIBRATION_MISSING = (-2.0, 0.6)


@dataclass(frozen=True)
class Segment:
    """A stretch of vessel, in the mask or missing from it."""

    points: np.ndarray  # int array (N, 2); centreline in pixels of the frame
    in_mask: bool
    values: np.ndarray  # float array; one for each of ``FEATURE_NAMES``
    branch: int = -1  # number of the branch in the mask's tree, -1 for a missing one

    @property
    def length(self) -> float:
        """In pixels."""
        return length(self.points)

    @property
    def middle(self) -> tuple[float, float]:
        """Middle point of the centreline."""
        row, column = self.points[len(self.points) // 2]
        return float(row), float(column)

    def distance(self, point: tuple[float, float]) -> float:
        """Distance of a point from the centreline, in pixels."""
        return float(np.hypot(*(self.points - point).T).min())

    @property
    def artery_probability(self) -> float:
        """Probability that more than half of the segment lies on artery."""
        if self.in_mask:
            score = self.values[FEATURE_NAMES.index("log-odds")]
            intercept, slope = CALIBRATION_IN_MASK
        else:
            score = WEIGHTS_MISSING[0] + np.dot(WEIGHTS_MISSING[1:], self.values)
            intercept, slope = CALIBRATION_MISSING
        return float(1 / (1 + np.exp(-(intercept + slope * score))))

    @property
    def error_probability(self) -> float:
        """Probability that the segment is wrong.

        A branch of the mask is wrong if it is no artery, a missing one if it is.
        """
        probability = self.artery_probability
        return 1 - probability if self.in_mask else probability

    @property
    def expected_error(self) -> float:
        """Expected length of wrong centreline, in pixels."""
        return self.length * self.error_probability


def mask_segments(features: FrameFeatures, tree: VesselTree) -> list[Segment]:
    """Describe the branches of the mask that are longer than two pixels."""
    parts = tree.components
    share = np.bincount(
        [parts[tuple(b.points[0])] for b in tree.branches] or [0],
        weights=[b.length for b in tree.branches] or [0],
    )
    return [
        Segment(
            b.points,
            True,
            _measure(features, b.points, b.radius, share[parts[tuple(b.points[0])]]),
            b.number,
        )
        for b in tree.branches
        if len(b.points) > 2
    ]


def missing_segments(
    features: FrameFeatures, mask: np.ndarray, background: np.ndarray | None = None
) -> list[Segment]:
    """Find stretches that look like a vessel and are not in the mask.

    Parameters
    ----------
    mask : bool array (Y, X)
    background : bool array (Y, X), optional
        Marked as not artery by the user; nothing is found there.
    """
    from skimage.filters import apply_hysteresis_threshold  # slow to import

    step = features.step
    taken = mask if background is None else mask | background
    known = scipy.ndimage.binary_dilation(taken[::step, ::step], iterations=_CLEARANCE)
    vessel_map = np.where(known, 0, features.vessel_map)
    found = apply_hysteresis_threshold(vessel_map, _LOW, _HIGH)
    tree = build_tree(found)
    away = (
        scipy.ndimage.distance_transform_edt(~mask)
        if mask.any()
        else np.full(mask.shape, 99.0)
    )
    segments = []
    for branch in tree.branches:
        if branch.length < MIN_LENGTH:
            continue
        points = np.minimum(branch.points * step, np.array(mask.shape) - 1)
        near = away[tuple(points[[0, -1]].T)].min()
        values = _measure(features, points, branch.radius * step, near)
        segments.append(Segment(points, False, values))
    return segments


def _measure(
    features: FrameFeatures, points: np.ndarray, radius: float, connection: float
) -> np.ndarray:
    """Values of ``FEATURE_NAMES`` for a centreline."""
    step = features.step
    at = tuple(points.T)
    confidence = features.probability[at].astype(float) / 255
    ridge = features.vesselness[tuple((points // step).T)].astype(float)
    least = scipy.ndimage.gaussian_filter1d(confidence, 2.0, mode="nearest").min()
    shape = np.array(features.shape)
    border = np.minimum(points, shape - 1 - points).min() / step
    chord = np.hypot(*(points[-1] - points[0]))
    return np.array(
        [
            confidence.mean(),
            least,
            ridge.mean(),
            scipy.ndimage.gaussian_filter1d(ridge, 2.0, mode="nearest").min(),
            np.log(length(points) / step + 1),
            np.log(radius / step),
            np.log(connection / step + 1),
            _contrast(features, points, radius),
            chord / max(length(points), 1.0),
            np.log(border + 1),
            _log_odds(confidence.mean()),
            _log_odds(least),
        ]
    )


def _log_odds(probability: float) -> float:
    # A uint8 probability of 0 or 255 is not meant as 0 or 1 exactly.
    return float(np.log((probability + 0.01) / (1.01 - probability)))


def _contrast(features: FrameFeatures, points: np.ndarray, radius: float) -> float:
    """Median grey value around the line less that on it."""
    grey = features.grey
    shape = np.array(grey.shape)
    reach = int(np.ceil(2 * radius + 2 * features.step))
    rows, columns = points.T
    ring = [
        grey[
            np.clip(rows + y * reach, 0, shape[0] - 1),
            np.clip(columns + x * reach, 0, shape[1] - 1),
        ]
        for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    return float((np.median(ring, axis=0) - grey[rows, columns]).mean())


def likely_missing(
    features: FrameFeatures, mask: np.ndarray, background: np.ndarray | None = None
) -> list[Segment]:
    """Missing segments that are worth proposing, most likely first."""
    found = missing_segments(features, mask, background)
    likely = [s for s in found if s.artery_probability >= MIN_PROBABILITY]
    return sorted(likely, key=lambda s: s.artery_probability, reverse=True)


def expected_gain(
    frame: np.ndarray, probability: np.ndarray, mask: np.ndarray
) -> float:
    """Expected length of wrong centreline in a frame, for active learning.

    Takes about half a second for 512 x 512 pixels: call it from a worker.

    Parameters
    ----------
    frame : array (Y, X)
        Grey values of any real type, arteries dark.
    probability : uint8 array (Y, X)
        Of the network.
    mask : bool array (Y, X)
        Prediction of the network.
    """
    features = compute_features(frame, probability)
    segments = mask_segments(features, build_tree(mask))
    segments += likely_missing(features, mask)
    segments.sort(key=lambda s: s.expected_error, reverse=True)
    return float(sum(segment.expected_error for segment in segments))
