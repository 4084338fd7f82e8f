"""What a model has to gain from a frame: how much of it is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.vessels.edit_context import Scene
from napari_cmunet.vessels.features import gather
from napari_cmunet.vessels.tree import grow_tree
from napari_cmunet.vessels.uncertainty import doubt

if TYPE_CHECKING:
    import numpy as np


def expected_gain(
    frame: np.ndarray, probability: np.ndarray, mask: np.ndarray
) -> float:
    """Pixels of centreline that are expected to be wrong, in the mask or missing.

    Half a second at 512 x 512 on one core: for a worker.

    Parameters
    ----------
    frame : array (Y, X)
        Grey values of any real type, arteries dark.
    probability : uint8 array (Y, X)
        Of the network.
    mask : bool array (Y, X)
        What it calls artery.
    """
    scene = Scene(gather(frame, probability), grow_tree(mask))
    return float(sum(map(doubt, scene.doubtful)))
