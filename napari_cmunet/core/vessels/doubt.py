"""How likely a stretch is artery, and so how much is to be gained by looking at it.

A logistic model over the numbers of :mod:`.segments`, fitted on 106 frames that the
bundled model never saw (``python scripts/fit_doubt.py``) and checked on other patients
(docs/vessel_tools.md). Another model's probabilities are read the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cmunet.core.vessels.segments import Segment

# Constant, then one weight for each of segments.FEATURES.
IN_MASK = (
    *(8.617, -13.529, -8.17, -0.074, -0.119, 0.213, -0.342),
    *(0.279, 5.79, 0.41, 0.584, 1.427, 0.768),
)
MISSING = (
    *(3.015, -19.316, 6.291, -1.078, 1.288, 0.191, -0.532),
    *(-1.072, 12.634, 0.643, 0.475, 1.394, 0.264),
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
