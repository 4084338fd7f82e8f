"""A frame and its mask as they are now, with all that the tools ask for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.vessels.segments import missing_segments, segments_of_mask
from napari_cmunet.vessels.tree import Gap, find_gaps, grow_tree
from napari_cmunet.vessels.uncertainty import doubt, likely_artery

if TYPE_CHECKING:
    from napari_cmunet.vessels.features import Evidence
    from napari_cmunet.vessels.segments import Segment
    from napari_cmunet.vessels.tree import VesselTree

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
    background : bool array (Y, X), optional
        What a reader has called no artery.
    """

    evidence: Evidence
    tree: VesselTree
    background: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray:
        """The mask that this was made from, bool (Y, X)."""
        return self.tree.mask

    @cached_property
    def gaps(self) -> list[Gap]:
        """Where vessels seem to be interrupted."""
        return find_gaps(self.tree)

    @cached_property
    def proposals(self) -> list[Segment]:
        """Missing branches, the likeliest first."""
        found = missing_segments(self.evidence, self.mask, self.background)
        likely = [s for s in found if likely_artery(s) >= LIKELY_ENOUGH]
        return sorted(likely, key=likely_artery, reverse=True)

    @cached_property
    def doubtful(self) -> list[Segment]:
        """Branches of the mask and proposals, the most to be gained first."""
        every = segments_of_mask(self.evidence, self.tree) + self.proposals
        return sorted(every, key=doubt, reverse=True)


def look(
    evidence: Evidence, mask: np.ndarray, background: np.ndarray | None = None
) -> Scene:
    """Prepare every tool for a mask; about two tenths of a second at 512 x 512.

    Parameters
    ----------
    evidence : Evidence
    mask : array (Y, X)
        Copied; above 0 is artery.
    background : bool array (Y, X), optional
        What a reader has called no artery.
    """
    scene = Scene(evidence, grow_tree(np.array(mask) > 0), background)
    # Computed here, so that no hover has to wait for it.
    for name in ("numbers", "components"):
        getattr(scene.tree, name)
    for name in ("gaps", "doubtful"):
        getattr(scene, name)
    return scene
