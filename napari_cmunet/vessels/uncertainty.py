"""How likely a stretch is artery, and so how much is to be gained by looking at it.

A logistic model over the numbers of :mod:`.segments`, fitted on 150 phantoms
that the bundled model never saw (``python benchmarks/fit_doubt.py``) and checked on
patients (docs/vessel_tools.md). Another model's probabilities are read the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cmunet.vessels.segments import Segment

# Constant, then one weight for each of segments.FEATURES.
IN_MASK = (
    *(-14.81, 21.157, -5.919, -0.127, -1.769, -0.365, -1.236),
    *(0.111, 5.48, 1.726, 0.485, -0.828, 1.096),
)
MISSING = (
    *(2.394, -10.245, 9.571, 1.256, -0.349, -0.29, -0.333),
    *(-0.817, 2.265, 1.37, 0.366, 1.668, -0.365),
)


def likely_artery(segment: Segment) -> float:
    """Chance that more than half of a segment lies on artery, 0 to 1."""
    constant, *weights = IN_MASK if segment.in_mask else MISSING
    return float(1 / (1 + np.exp(-(constant + np.dot(weights, segment.numbers)))))


def doubt(segment: Segment) -> float:
    """Pixels of centreline that are expected to be wrong: chance times length.

    A branch of the mask is wrong where it is no artery; a missing one where it is.
    """
    chance = likely_artery(segment)
    return segment.length * (1 - chance if segment.in_mask else chance)
