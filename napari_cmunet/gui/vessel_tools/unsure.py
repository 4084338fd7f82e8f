"""Tells the unsure parts of a prediction from the sure ones, to the eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.gui.vessel_tools.preview import UNSURE
from napari_cmunet.vessels.centreline import tube
from napari_cmunet.vessels.modes import Mode
from napari_cmunet.vessels.uncertainty import likely_artery

if TYPE_CHECKING:
    from napari_cmunet.gui.vessel_tools.preview import Mark
    from napari_cmunet.vessels.edit_context import Scene

SURE = 0.6
"""A branch of the mask that is less likely to be artery is shown as unsure."""


def unsure_marks(scene: Scene, mode: Mode) -> list[Mark]:
    """Pixels, for the preview, of what a mode can do something about.

    To add: what may be missing. To remove: unsure branches of the mask.
    """
    marks = []
    for segment in scene.doubtful:
        if segment.in_mask and mode is Mode.REMOVE:
            if likely_artery(segment) < SURE:
                branch = scene.tree.branches[segment.branch]
                marks.append((*scene.tree.pixels(branch), UNSURE))
        elif not segment.in_mask and mode is Mode.ADD:
            radii = np.full(len(segment.points), 1.2 * scene.evidence.step)
            marks.append((*tube(segment.points, radii, scene.mask.shape), UNSURE))
    return marks
