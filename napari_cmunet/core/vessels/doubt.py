"""How likely a stretch is artery, and so how much is to be gained by looking at it.

A logistic model over the numbers of :mod:`.segments`, fitted on 316 frames that the
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
    -7.444,
    -2.198,
    4.079,
    0.247,
    -0.281,
    0.197,
    0.183,
    0.318,
    7.885,
    0.358,
    0.62,
)
MISSING = (
    *(-2.851, 9.459, 4.216, -0.548, 1.266, 0.126),
    *(-0.538, -1.376, 14.408, 0.078, 0.441),
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
