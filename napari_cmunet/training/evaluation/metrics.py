"""How well a mask agrees with the truth.

Dice and clDice are defined as in the usual scorers: two empty masks agree fully.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Scores:
    """Agreement of one mask with the truth.

    ``dice``, ``cldice`` (Shit et al. 2021, arXiv 2003.07311), ``precision`` and
    ``recall`` lie between 0 and 1; ``hd95`` is the 95th percentile of the distances
    between the two borders, in pixels (``inf`` if just one mask is empty).
    """

    dice: float
    cldice: float
    precision: float
    recall: float
    hd95: float


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two bool arrays of one shape; 1 if both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def cldice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Centreline Dice of two bool arrays (Y, X) (arXiv 2003.07311).

    Harmonic mean of the share of the predicted centreline inside the truth and of
    the true centreline inside the prediction.
    """
    if not predicted.any() and not truth.any():
        return 1.0
    precision = _share(_skeleton(predicted), truth)
    recall = _share(_skeleton(truth), predicted)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _skeleton(mask: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize  # slow to import

    skeleton: np.ndarray = skeletonize(mask)
    return skeleton


def hd95(predicted: np.ndarray, truth: np.ndarray) -> float:
    """95th percentile of the distances between the borders, in pixels."""
    if not predicted.any() and not truth.any():
        return 0.0
    if not predicted.any() or not truth.any():
        return float("inf")
    return float(np.percentile(_border_distances(predicted, truth), 95))


def nsd(predicted: np.ndarray, truth: np.ndarray, tolerance: float = 2.0) -> float:
    """Normalised surface distance (Nikolov et al. 2021, arXiv 1809.04430).

    Share of both borders that lies within ``tolerance`` pixels of the other border;
    1 if both masks are empty, 0 if just one is.
    """
    if not predicted.any() or not truth.any():
        return float(predicted.any() == truth.any())
    return float((_border_distances(predicted, truth) <= tolerance).mean())


def wrong_places(predicted: np.ndarray, truth: np.ndarray) -> int:
    """Number of false and missed branches: places that have to be corrected.

    Pieces of one centreline of at least 15 pixels that lie farther than 3 pixels from
    the other mask.

    Parameters
    ----------
    predicted, truth : bool arrays (Y, X)
    """
    count = 0
    for one, other in ((predicted, truth), (truth, predicted)):
        far = _skeleton(one)
        if other.any():
            far &= scipy.ndimage.distance_transform_edt(~other) > 3
        pieces, _ = scipy.ndimage.label(far, np.ones((3, 3)))
        count += int((np.bincount(pieces.ravel())[1:] >= 15).sum())
    return count


def score(predicted: np.ndarray, truth: np.ndarray) -> Scores:
    """All measures of one mask.

    Parameters
    ----------
    predicted, truth : bool arrays (Y, X)

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {truth.shape}")
    both_empty = not predicted.any() and not truth.any()
    return Scores(
        dice=dice(predicted, truth),
        cldice=cldice(predicted, truth),
        precision=1.0 if both_empty else _share(predicted, truth),
        recall=1.0 if both_empty else _share(truth, predicted),
        hd95=hd95(predicted, truth),
    )


def bootstrap_interval(
    values: Sequence[float], groups: Sequence[str] | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean, drawing whole groups (patients) with replacement.

    Parameters
    ----------
    values : sequence of float
        One for each image.
    groups : sequence of str, optional
        The patient of each image; frames of one patient are not independent. Where
        it is unknown (empty), and by default, each image stands on its own.
    """
    v = np.asarray(values, float)
    named = groups if groups is not None else [""] * len(v)
    known = {name: i for i, name in enumerate(sorted(set(named) - {""}))}
    numbers = [known[g] if g else len(known) + i for i, g in enumerate(named)]
    keys = np.unique(numbers, return_inverse=True)[1]
    sums = np.bincount(keys, v)
    counts = np.bincount(keys)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sums), size=(2000, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _border_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of each border pixel of two masks to the other mask's border."""
    a, b = (mask & ~scipy.ndimage.binary_erosion(mask) for mask in (a, b))
    return np.concatenate(
        [
            scipy.ndimage.distance_transform_edt(~b)[a],
            scipy.ndimage.distance_transform_edt(~a)[b],
        ]
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    """Share of ``part`` that lies in ``whole``; 0 if ``part`` is empty."""
    n = int(part.sum())
    return int((part & whole).sum()) / n if n else 0.0
