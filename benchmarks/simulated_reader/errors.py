"""What is wrong with a mask, as a reader with the truth before them sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from napari_cmunet.vessels.centreline import length
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from napari_cmunet.vessels.tree import VesselTree

TOLERANCE = 1.5
"""Pixels of a frame of up to 512 by which a border may be off."""

FORGIVEN = 10.0
"""Branches shorter than this, in pixels of a frame 512 wide, are let pass."""

_EIGHT = np.ones((3, 3), int)


@dataclass(frozen=True)
class Error:
    """One thing that is wrong.

    Parameters
    ----------
    missing : bool
        Artery that is not in the mask; else mask that is no artery.
    line : int array (N, 2)
        Its centreline, in order.
    radius : float
        Half its width, in pixels.
    border : bool
        Along a vessel that is found, but too thin or too wide.
    """

    missing: bool
    line: np.ndarray
    radius: float
    border: bool

    @property
    def length(self) -> float:
        """In pixels."""
        return max(length(self.line), 1.0)


class Truth:
    """A true mask with what is asked of it again and again."""

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask > 0
        # No pixel can be halved: smaller frames are held to the same pixels.
        self.scale = max(1.0, max(mask.shape) / 512)
        self.tolerance = TOLERANCE * self.scale
        self.tree: VesselTree = build_tree(self.mask)
        self._away = _distance_to(self.mask)

    def wrong(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Missing and superfluous pixels beyond the tolerance, bool (Y, X) each."""
        missing = self.mask & ~_reached(mask, self.tolerance)
        return missing, mask & (self._away > self.tolerance)

    def burden(self, mask: np.ndarray) -> int:
        """How many pixels are wrong."""
        missing, superfluous = self.wrong(mask)
        return int(missing.sum() + superfluous.sum())

    def errors(self, mask: np.ndarray) -> list[Error]:
        """What a reader would correct.

        What is too much comes first, then what is missing, then borders: nobody
        changes the tool for every error. The longest first among each.
        """
        missing, superfluous = self.wrong(mask)
        least = FORGIVEN * self.scale
        found = [
            *self._missing_runs(missing),
            *self._parts(superfluous, mask),
            *self._thin(missing),
        ]
        return sorted(
            (e for e in found if e.length >= least),
            key=lambda e: (e.border, e.missing, -e.length),
        )

    def _missing_runs(self, missing: np.ndarray) -> list[Error]:
        """Stretches of the true centrelines that the mask does not reach."""
        runs = []
        for branch in self.tree.branches:
            out = missing[tuple(branch.points.T)]
            edges = np.flatnonzero(
                np.diff(np.concatenate([[0], out.view(np.int8), [0]]))
            )
            for first, last in zip(edges[::2], edges[1::2], strict=True):
                radius = float(np.median(branch.radii[first:last]))
                runs.append(Error(True, branch.points[first:last], radius, False))
        return runs

    def _thin(self, missing: np.ndarray) -> list[Error]:
        """Borders where the mask is too thin, off the centrelines."""
        lines = np.zeros(missing.shape, bool)
        for branch in self.tree.branches:
            lines[tuple(branch.points.T)] = True
        parts, _ = label(missing, _EIGHT)
        reached = np.unique(parts[lines])
        return _lines(missing & ~np.isin(parts, reached), True, True)

    def _parts(self, superfluous: np.ndarray, mask: np.ndarray) -> list[Error]:
        """Mask that is no artery, and mask that is too wide."""
        # Where the mask is too wide, what is wrong lies along a true border.
        near = self._away <= 2 * self.tolerance
        parts, count = label(superfluous, _EIGHT)
        if not count:
            return []
        index = np.arange(1, count + 1)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        beside = np.bincount(parts[near], minlength=count + 1)[1:]
        borders = np.isin(parts, index[beside > 0.6 * sizes])
        return [
            *_lines(superfluous & ~borders, False, False),
            *_lines(superfluous & borders, False, True),
        ]


def _lines(pixels: np.ndarray, missing: bool, border: bool) -> list[Error]:
    """An error for each branch of some wrong pixels."""
    if not pixels.any():
        return []
    tree = build_tree(pixels)
    return [Error(missing, b.points, b.radius, border) for b in tree.branches]


def _reached(mask: np.ndarray, tolerance: float) -> np.ndarray:
    """Pixels no farther than this from the mask."""
    if np.sqrt(2) <= tolerance < 2:
        return binary_dilation(mask, _EIGHT)
    return _distance_to(mask) <= tolerance


def _distance_to(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return distance_transform_edt(~mask)
