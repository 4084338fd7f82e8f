"""Propose SYNTAX segments for the branches of a mask's tree, with their doubt.

A small CM-UNet sees the mask alone, scaled to a coarse grid, so that neither hospital
nor contrast matters, and predicts the segment at each point of the centreline.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cmunet.model.network import STRIDE
from napari_cmunet.vessels.naming import NamedStretch, NamedTree
from napari_cmunet.vessels.segments import LEFT, RIGHT, SEGMENTS
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.model.registry import LoadedModel
    from napari_cmunet.vessels.naming import SegmentName
    from napari_cmunet.vessels.tree import Branch, VesselTree

NAMES_MODEL = "syntax-names"
"""The bundled model that proposes names."""

CLASSES = ("", *SEGMENTS)
"""Of the network's logits; the first is a vessel that has no number."""

_STEP = 4  # pixels of the centreline between two predictions
_SWITCH = 6.0  # nats that one more name on a branch costs
_SIDES = {
    side: np.array([not c or SEGMENTS[c].side == side for c in CLASSES])
    for side in (RIGHT, LEFT)
}


def network_input(mask: np.ndarray, grid: int) -> torch.Tensor:
    """A mask as the network sees it: the share of artery in each cell of a grid.

    Parameters
    ----------
    mask : bool array (Y, X)
    grid : int
        Cells of the frame's longer side; the shorter one is padded below or right.

    Returns
    -------
    tensor (1, 1, grid, grid)
    """
    side = max(mask.shape)
    pixels = torch.zeros(1, 1, side, side)
    pixels[0, 0, : mask.shape[0], : mask.shape[1]] = torch.from_numpy(
        np.ascontiguousarray(mask, np.float32)
    )
    return torch.nn.functional.interpolate(pixels, (grid, grid), mode="area")


def at_points(logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Logits (B, C, N) between the cells of a grid (B, C, H, W).

    Parameters
    ----------
    points : tensor (B, N, 2)
        Row and column as shares of the frame's longer side.
    """
    where = (2 * points - 1).flip(-1)[:, None]
    return torch.nn.functional.grid_sample(
        logits, where, align_corners=False, padding_mode="border"
    )[:, :, 0]


def propose_names(
    mask: np.ndarray, model: LoadedModel, names: Sequence[SegmentName] = ()
) -> tuple[SegmentName, ...]:
    """Name the branches of a mask's tree.

    Parameters
    ----------
    mask : array (Y, X)
        Above 0 is artery.
    model : LoadedModel
        Of kind ``names``.
    names : sequence of SegmentName, optional
        A reader's own names stay, with the whole branch that has one; former proposals
        do not.

    Returns
    -------
    tuple of SegmentName
        With their doubt. The whole tree is of the left or of the right coronary artery.
    """
    tree = build_tree(mask)
    named = NamedTree(tree, [name for name in names if not name.doubt])
    own = {
        number
        for number, parts in named.stretches.items()
        if any(part.segment for part in parts)
    }
    stretches = [s for s in predict_stretches(tree, model) if s.branch not in own]
    proposed = {stretch.branch for stretch in stretches if stretch.segment}
    return (
        *named.names,
        *(
            named.name_of(stretch)
            for stretch in stretches
            if stretch.branch in proposed
        ),
    )


def predict_stretches(tree: VesselTree, model: LoadedModel) -> list[NamedStretch]:
    """The most likely segments of all branches, with their doubt."""
    if not tree.branches:
        return []
    chances = _probabilities(tree, model)
    everywhere = np.concatenate(chances)[:, 1:]
    likely = {
        side: float(np.log(everywhere[:, of_side[1:]].sum(axis=1) + 1e-6).sum())
        for side, of_side in _SIDES.items()
    }
    of_side = _SIDES[max(likely, key=lambda side: likely[side])]
    stretches = []
    for branch, chance in zip(tree.branches, chances, strict=True):
        own = np.where(of_side, chance, 0.0) + 1e-6 * of_side
        own /= own.sum(axis=1, keepdims=True)
        stretches += _stretches(branch, own)
    return stretches


def _probabilities(tree: VesselTree, model: LoadedModel) -> list[np.ndarray]:
    """Of the classes (N, C) at every few points of each branch's centreline."""
    points = [branch.points[::_STEP] for branch in tree.branches]
    shares = (np.concatenate(points) + 0.5) / max(tree.mask.shape)
    grid = model.card.preprocessing.grid
    assert grid % STRIDE == 0
    with torch.inference_mode():
        logits = model.network(network_input(tree.mask, grid))
        sampled = at_points(logits, torch.from_numpy(shares.astype(np.float32))[None])
        chances = sampled[0].softmax(dim=0).T.double().numpy()
    return np.split(chances, np.cumsum([len(p) for p in points])[:-1])


def _stretches(branch: Branch, chances: np.ndarray) -> list[NamedStretch]:
    """The likeliest names along a branch, each further one at a cost (Viterbi)."""
    scores = np.log(chances + 1e-9)
    best, came = scores[0], []
    for score in scores[1:]:
        change = best.argmax()
        changed = best[change] - _SWITCH > best
        came.append(np.where(changed, change, np.arange(len(best))))
        best = np.maximum(best, best[change] - _SWITCH) + score
    path = [int(best.argmax())]
    for step in reversed(came):
        path.append(int(step[path[-1]]))
    path = path[::-1]
    cuts = np.flatnonzero(np.diff(path)) + 1
    bounds = [0, *cuts.tolist(), len(path)]
    last = len(branch.points)
    return [
        NamedStretch(
            branch.number,
            _STEP * start,
            min(_STEP * end, last),
            CLASSES[path[start]],
            round(1 - float(chances[start:end, path[start]].mean()), 3),
        )
        for start, end in pairwise(bounds)
    ]
