"""Synthetic arteries drawn into real frames.

A phantom knows its mask but not all that lies behind real arteries: ribs, wires, the
diaphragm, other arteries, the noise of a real detector. A composite has both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

DEPTH = (1.5, 3.8)
"""How much darker wide arteries are drawn, in standard deviations of a frame.

Measured on 89 ARCADE frames, prepared at 320 pixels: centrelines of arteries 10 to 18
pixels wide are 2.2 +- 0.8 darker than what is beside them, of 3 to 6 pixels 1.3 +- 0.5.
"""

WIDE = 7
"""Side of the square, in pixels, that an artery fills where it is as dark as can be."""


class Pairs(NamedTuple):
    """Which of a process's phantoms are drawn into which of its frames.

    Parameters
    ----------
    phantoms, frames : int arrays (N,)
        Indices within what the process has of a batch.
    """

    phantoms: np.ndarray
    frames: np.ndarray


def pairs(share: float, phantoms: slice, of: int, frames: int, step: int = 0) -> Pairs:
    """Spread the composites evenly over a batch, and over the steps.

    By the step and the place in the whole batch alone, so that processes that share it
    compose what one would.

    Parameters
    ----------
    share : float
        Of the phantoms.
    phantoms : slice
        The process's part of the batch's phantoms.
    of, frames : int
        Phantoms and frames in the whole batch.
    step : int
        Of the run, from 0.
    """
    slots = np.arange(phantoms.start, phantoms.stop)
    count = step * of + slots
    slots = slots[np.floor((count + 1) * share) > np.floor(count * share)]
    first = phantoms.start * frames // of
    return Pairs(slots - phantoms.start, slots * frames // of - first)


def draw_into(
    frames: torch.Tensor, trees: torch.Tensor, chance: torch.Tensor
) -> torch.Tensor:
    """Darken frames where an artery is to be; thin ones less than wide ones.

    Parameters
    ----------
    frames : float tensor (B, 1, H, W)
        Prepared frames, unit variance.
    trees : float tensor (B, 1, H, W)
        Share of each pixel that is artery.
    chance : float tensor (B,)
        0 to 1; how dark, from the faintest to the darkest.

    Returns
    -------
    float tensor (B, 1, H, W)
    """
    low, high = (math.log(d) for d in DEPTH)
    depth = torch.exp(low + (high - low) * chance).view(-1, 1, 1, 1)
    thickness = trees * (0.4 + 0.6 * F.avg_pool2d(trees, WIDE, 1, WIDE // 2))
    # Half as it is and half blurred: the edge of a round tube, seen by a detector.
    soft = (thickness + F.avg_pool2d(thickness, 3, 1, 1)) / 2
    return frames - depth * soft
