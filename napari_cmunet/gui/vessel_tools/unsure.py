"""Tells the unsure parts of a prediction from the sure ones, to the eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.core.vessels.doubt import likely_artery
from napari_cmunet.core.vessels.tube import tube
from napari_cmunet.gui.vessel_tools.preview import UNSURE

if TYPE_CHECKING:
    from napari_cmunet.core.vessels.scene import Scene

SURE = 0.6
"""A branch of the mask that is less likely to be artery is shown as unsure."""


def unsure_marks(scene: Scene) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Pixels of unsure branches, in the mask and proposed, for the preview."""
    marks = []
    for segment in scene.doubtful:
        if segment.in_mask:
            if likely_artery(segment) < SURE:
                branch = scene.tree.branches[segment.branch]
                marks.append((*scene.tree.pixels(branch), UNSURE))
        else:
            radii = np.full(len(segment.points), 1.2 * scene.evidence.step)
            marks.append((*tube(segment.points, radii, scene.mask.shape), UNSURE))
    return marks
