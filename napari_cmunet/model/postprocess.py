"""Clean-up of a prediction, on the network's grid.

What is left out keeps a quarter of its probability, so that a lower threshold still
shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from napari_cmunet.cine.subtraction import KEPT_PROBABILITY
from napari_cmunet.model.threshold import log_odds
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from napari_cmunet.model.card import Postprocessing
    from napari_cmunet.vessels.tree import VesselTree

JOIN_PROBABILITY = 0.25
"""Pixels of at least this probability join what lies on either side of them."""

MIN_RELATIVE_EXTENT = 0.5
"""Least extent of a component (diagonal of its box) as a share of the largest one's.

Relative to the largest component and not to the frame, so that the first part of a tree
that fills is kept.
"""

BRANCH_MARGIN, BRANCH_EXCESS = 2.0, 0.25
"""Limit of the sum of the margins along one branch, divided by the longer side: what is
beyond it counts for a quarter towards the contrast of a frame.

Arteries branch; one long line without a branch is mostly a catheter or a lead.
"""

CONTRAST_PROBABILITY = 0.7
"""What the margins that tell contrast are above.

The same for each model: a hospital that wants a higher threshold has no less contrast.
"""

_HALO = 16  # pixels


def suppress_small_components(logit: torch.Tensor) -> torch.Tensor:
    """Lower the artery logit of components that are too small for an artery.

    Arteries form a tree that spans the frame. A small component is mostly the edge of a
    vertebra or a rib, a wire or a clip.

    Parameters
    ----------
    logit : float tensor (B, 1, H, W)
        Artery against background; changed in place.

    Returns
    -------
    tensor (B, 1, H, W)
        The same tensor.
    """
    artery = (logit > log_odds(JOIN_PROBABILITY)).cpu()
    for one, mask in zip(logit[:, 0], artery[:, 0].numpy(), strict=True):
        suppress(one, find_small_components(mask))
    return logit


def suppress_uncertain(
    logit: torch.Tensor, threshold: float, how: Postprocessing
) -> tuple[torch.Tensor, list[bool]]:
    """Suppress uncertain twigs and components, and frames without contrast.

    Parameters
    ----------
    logit : float tensor (B, 1, H, W)
        Artery against background; changed in place.
    threshold : float
        Probability from which the model calls a pixel artery.

    Returns
    -------
    logit : tensor (B, 1, H, W)
        The same tensor.
    contrast : list of bool
        For each frame, whether it shows arteries filled with contrast agent.
    """
    contrast = []
    for one in logit[:, 0]:
        tree = predicted_tree(one.float().cpu().numpy(), threshold, how)
        contrast.append(tree.contrast >= how.contrast_margin)
        if contrast[-1]:
            suppress(one, tree.uncertain(how.twig_margin))
        else:
            suppress(one, np.ones(one.shape, bool))
    return logit, contrast


@dataclass(frozen=True)
class PredictedTree:
    """The tree of a prediction, and how certain its parts are.

    Parameters
    ----------
    mask : bool array (Y, X)
        Pixels from the threshold on.
    joined : bool array (Y, X)
        Pixels from :data:`JOIN_PROBABILITY` on.
    kept : bool array (Y, X)
        Components of the mask with a confident pixel.
    tree : VesselTree
        Of ``kept``.
    twigs : dict of int to float
        Mean margin along each short branch with a free end, by its number.
    contrast : float
        Sum of the margins above :data:`CONTRAST_PROBABILITY` along the centreline, with
        less weight along long branches (:data:`BRANCH_MARGIN`), divided by the longer
        side.
    """

    mask: np.ndarray
    joined: np.ndarray
    kept: np.ndarray
    tree: VesselTree
    twigs: dict[int, float]
    contrast: float

    def uncertain(self, twig_margin: float) -> np.ndarray:
        """Components and twigs that are too uncertain to be kept, (Y, X) bool.

        Parameters
        ----------
        twig_margin : float
            Least mean margin of a twig that is kept.
        """
        kept = self.kept
        twigs = {n for n, margin in self.twigs.items() if margin < twig_margin}
        if twigs:
            kept = kept & ~_lumen_of_twigs(self.tree, twigs)
        dropped = self.mask & ~kept
        if not dropped.any():
            return dropped
        # The halo below the threshold goes with the part that it surrounds.
        rows, columns = (
            slice(max(0, at.min() - _HALO), at.max() + _HALO + 1)
            for at in np.nonzero(dropped)
        )
        near = np.s_[rows, columns]
        nearest = ndimage.distance_transform_edt(
            ~self.mask[near], return_distances=False, return_indices=True
        )
        dropped[near] = dropped[near][tuple(nearest)] & self.joined[near]
        return dropped


def predicted_tree(
    logit: np.ndarray, threshold: float, how: Postprocessing
) -> PredictedTree:
    """Find the tree of a prediction and the margins of its branches.

    Parameters
    ----------
    logit : float array (Y, X)
    threshold : float
    how : Postprocessing
    """
    cut, side = log_odds(threshold), max(logit.shape)
    mask, core = logit >= cut, logit >= cut + how.core_margin
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    confident = np.zeros(count + 1, bool)
    confident[pieces[core]] = True
    kept = confident[pieces]
    skeleton = skeletonize(kept)
    above = np.maximum(logit - log_odds(CONTRAST_PROBABILITY), 0)
    margins = float(above[skeleton].sum())
    tree = build_tree(kept, skeleton)
    twigs = {}
    for branch in tree.branches:
        at = tuple(branch.points.T)
        excess = float(above[at].sum()) - BRANCH_MARGIN * side
        margins -= (1 - BRANCH_EXCESS) * max(0.0, excess)
        if min(branch.joints) < 0 and branch.length < how.twig_length * side:
            twigs[branch.number] = float(logit[at].mean()) - cut
    contrast = margins / side
    if threshold > CONTRAST_PROBABILITY:
        contrast = predicted_tree(logit, CONTRAST_PROBABILITY, how).contrast
    joined = logit > log_odds(JOIN_PROBABILITY)
    return PredictedTree(mask, joined, kept, tree, twigs, contrast)


def _lumen_of_twigs(tree: VesselTree, twigs: set[int]) -> np.ndarray:
    """Return the lumen of twigs, less that of the others: no bifurcation is cut."""
    lumen = np.zeros(tree.mask.shape, bool)
    others = [branch for branch in tree.branches if branch.number not in twigs]
    joints = np.array(tree.joints, float).reshape(-1, 3)
    centreline = cKDTree(np.concatenate([*(b.points for b in others), joints[:, :2]]))
    # The last is for pixels that have no nearest, where there are only twigs.
    radii = np.concatenate([*(b.radii for b in others), joints[:, 2], [0.0]])
    for number in twigs:
        twig = tree.branches[number]
        margin = int(twig.radii.max()) + 2
        corner = np.maximum(twig.points.min(0) - margin, 0)
        bottom, right = twig.points.max(0) + margin + 1
        box = tree.mask[corner[0] : bottom, corner[1] : right]
        pixels = np.argwhere(box) + corner
        away, _ = cKDTree(twig.points).query(pixels)
        distance, nearest = centreline.query(pixels)
        own = (away <= distance) & (distance > radii[nearest])
        lumen[tuple(pixels[own].T)] = True
    return lumen


def find_small_components(mask: np.ndarray) -> np.ndarray:
    """Return the components of a mask that are small beside the largest one.

    Parameters
    ----------
    mask : bool array (Y, X)

    Returns
    -------
    bool array (Y, X)
    """
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return np.zeros(mask.shape, bool)
    extents = np.array(
        [
            np.hypot(rows.stop - rows.start, columns.stop - columns.start)
            for rows, columns in ndimage.find_objects(pieces)
        ]
    )
    small = extents < MIN_RELATIVE_EXTENT * extents.max()
    return np.concatenate([[False], small])[pieces]


def suppress(logit: torch.Tensor, where: np.ndarray) -> None:
    """Lower the artery logit (H, W) of some pixels (bool) in place."""
    if where.any():
        at = torch.from_numpy(where).to(logit.device)
        lowered = torch.sigmoid(logit[at].float()) * KEPT_PROBABILITY
        logit[at] = torch.logit(lowered).to(logit)
