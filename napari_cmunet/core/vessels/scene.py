"""A frame and its mask as they are now, with all that the tools ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.core.vessels.doubt import doubt, likely_artery
from napari_cmunet.core.vessels.gaps import Gap, find_gaps
from napari_cmunet.core.vessels.segments import missing_segments, segments_of_mask
from napari_cmunet.core.vessels.tree import grow_tree

if TYPE_CHECKING:
    from napari_cmunet.core.vessels.evidence import Evidence
    from napari_cmunet.core.vessels.segments import Segment
    from napari_cmunet.core.vessels.tree import VesselTree

LIKELY_ENOUGH = 0.12
"""A missing branch that is less likely is not proposed."""


@dataclass(frozen=True)
class Scene:
    """Made by :func:`look` whenever the mask has changed.

    Parameters
    ----------
    evidence : Evidence
    tree : VesselTree
        Of the mask.
    gaps : list of Gap
    proposals : list of Segment
        Missing branches, the likeliest first.
    doubtful : list of Segment
        Branches of the mask and proposals, the most to be gained first.
    """

    evidence: Evidence
    tree: VesselTree
    gaps: list[Gap]
    proposals: list[Segment]
    doubtful: list[Segment]

    @property
    def mask(self) -> np.ndarray:
        """The mask that this was made from, bool (Y, X)."""
        return self.tree.mask


def look(
    evidence: Evidence, mask: np.ndarray, background: np.ndarray | None = None
) -> Scene:
    """Prepare the tools for a mask; about a tenth of a second at 512 x 512.

    Parameters
    ----------
    evidence : Evidence
    mask : array (Y, X)
        Copied; above 0 is artery.
    background : bool array (Y, X), optional
        What a reader has called no artery.
    """
    tree = grow_tree(np.array(mask) > 0)
    tree.numbers  # noqa: B018, computed here and kept
    proposals = [
        segment
        for segment in missing_segments(evidence, tree.mask, background)
        if likely_artery(segment) >= LIKELY_ENOUGH
    ]
    proposals.sort(key=likely_artery, reverse=True)
    doubtful = segments_of_mask(evidence, tree) + proposals
    doubtful.sort(key=doubt, reverse=True)
    return Scene(evidence, tree, find_gaps(tree), proposals, doubtful)
