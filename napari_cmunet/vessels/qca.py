"""Quantitative coronary analysis of a stretch of vessel.

Lengths are in pixels; :class:`Calibration` turns them into millimetres.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.vessels.borders import Borders, find_borders
from napari_cmunet.vessels.centreline import resample, smooth
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_STENOSIS = 0.25
"""Narrowing of the diameter from which it is a lesion."""

_END_OF_LESION = 0.05  # narrowing at which a lesion begins and ends
_HEALTHY = (0.05, 0.15)  # bounds of the scatter of healthy diameters around it
_ROUNDS = 12
_FOR_MEDIANS = 120  # points for the first line
_ENOUGH = 8
_SHORTEST = 20.0  # pixels of a segment of the tree
_AROUND = 3  # points to both sides, of the diameter where the vessel is healthy


@dataclass(frozen=True)
class Calibration:
    """Size of a pixel, which is square.

    Parameters
    ----------
    mm : float or None
        None if it is not known.
    error : float or None
        Standard error as a share of the size; None if it is not known.
    source : str
        Where it is from.
    """

    mm: float | None = None
    error: float | None = None
    source: str = ""

    @classmethod
    def of(
        cls, size: tuple[float, float] | None, error: float | None, source: str
    ) -> Calibration:
        """Of a pixel of a height and width in millimetres, which may be unknown."""
        if size is None:
            return cls(source=source)
        height, width = size
        if abs(height / width - 1) > 0.01:
            return cls(source="unknown: its pixels are not square")
        return cls(float(np.sqrt(height * width)), error, source)


@dataclass(frozen=True)
class Markers:
    """What a reader has set, as points of the centreline; None where it is found.

    Parameters
    ----------
    start, end : int, optional
        Of the lesion; both or neither.
    at : int, optional
        Where it is narrowest.
    reference : int, optional
        Where the vessel is healthy: its diameter there is the reference.
    """

    start: int | None = None
    end: int | None = None
    at: int | None = None
    reference: int | None = None

    @property
    def limits(self) -> tuple[int, int] | None:
        """First and last point of the lesion, in order."""
        if self.start is None or self.end is None:
            return None
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Lesion:
    """A narrowing, in pixels along the centreline.

    Parameters
    ----------
    start, at, end : int
        Where it begins, is narrowest, and ends: points of the centreline.
    mld : float
        Minimum lumen diameter.
    reference : float
        Reference diameter where it is narrowest.
    proximal, distal : float
        Reference diameter where it begins and ends.
    mean_diameter : float
        Of the lumen within the lesion.
    is_resolved : bool
        False if the vessel is too thin there for its width to be measured.
    """

    start: int
    at: int
    end: int
    mld: float
    reference: float
    proximal: float
    distal: float
    mean_diameter: float
    is_resolved: bool

    @property
    def length(self) -> int:
        """Along the centreline."""
        return self.end - self.start

    @property
    def percent_diameter(self) -> float:
        """Diameter stenosis, per cent."""
        return 100 * (1 - self.mld / self.reference)

    @property
    def percent_area(self) -> float:
        """Area stenosis, per cent, of a circular lumen."""
        return 100 * (1 - (self.mld / self.reference) ** 2)


@dataclass(frozen=True)
class Analysis:
    """The diameter function of a stretch, its reference and its lesions.

    Parameters
    ----------
    borders : Borders
    reference : float array (N,)
        Iterative regression through the healthy parts.
    straight : float array (N,)
        Straight line between the healthy parts on both sides of the worst lesion.
    usable : bool array (N,)
        False near an ostium or a bifurcation, which is kept out.
    lesions : list of Lesion
        The tightest first.
    narrowest : Lesion
        The tightest place, whether it is a lesion or not.
    """

    borders: Borders
    reference: np.ndarray
    straight: np.ndarray
    usable: np.ndarray
    lesions: list[Lesion]
    narrowest: Lesion

    @property
    def mean_diameter(self) -> float:
        """Of the whole stretch without what is kept out."""
        return float(self.borders.diameter[_kept(self.usable)].mean())

    @property
    def length(self) -> int:
        """Along the centreline."""
        return len(self.usable) - 1


def analyse(
    frame: np.ndarray,
    mask: np.ndarray,
    path: np.ndarray,
    *,
    joints: Sequence[tuple[float, float, float]] = (),
    drawn: np.ndarray | None = None,
    markers: Markers | None = None,
    least: float = LEAST_STENOSIS,
) -> Analysis:
    """Measure a stretch of vessel.

    Parameters
    ----------
    frame : array (Y, X)
        Grey values; the vessel is dark.
    mask : bool array (Y, X)
        Guides the borders.
    path : float array (N, 2)
        Pixels of the centreline in order, from proximal to distal.
    joints : sequence of (row, column, radius)
        Bifurcations and ends; the lumen around them is kept out.
    drawn : bool array (Y, X), optional
        What a reader has painted or erased, see :func:`find_borders`.
    markers : Markers, optional
        Those that a reader has moved.
    least : float
        Narrowing from which a place is a lesion, 0 to 1.

    Raises
    ------
    ValueError
        If the stretch is too short.
    """
    centre = resample(smooth(resample(path), 2.0))
    if len(centre) < _ENOUGH:
        raise ValueError(f"a stretch of {len(centre)} pixels is too short")
    borders = find_borders(frame, mask, centre, drawn)
    usable = np.ones(len(centre), bool)
    for row, column, radius in joints:
        usable &= np.hypot(*(centre - (row, column)).T) > 1.5 * radius + 2
    return evaluate(borders, usable, markers or Markers(), least)


def evaluate(
    borders: Borders,
    usable: np.ndarray,
    markers: Markers,
    least: float = LEAST_STENOSIS,
) -> Analysis:
    """Find reference and lesions of a stretch whose borders are known.

    Parameters
    ----------
    borders : Borders
    usable : bool array (N,)
        False near an ostium or a bifurcation.
    markers : Markers
        Those beyond the end of the stretch are moved to it.
    least : float
    """
    last = len(usable) - 1
    markers = Markers(*(at and min(at, last) for at in astuple(markers)))
    kept = _kept(usable)
    reference = reference_diameter(borders.diameter, kept, markers.limits)
    if markers.reference is not None:
        near = np.abs(np.arange(len(usable)) - markers.reference) <= _AROUND
        reference = np.full(len(usable), borders.diameter[near].mean())
    lesions = _lesions(borders, reference, usable, markers, least)
    share = np.where(kept, borders.diameter / reference, np.inf)
    narrowest = (
        lesions[0] if lesions else _lesion(borders, reference, int(share.argmin()))
    )
    return Analysis(
        borders,
        reference,
        _straight(borders.diameter, reference, kept, narrowest),
        usable,
        lesions,
        narrowest,
    )


def analyse_tree(
    frame: np.ndarray,
    mask: np.ndarray,
    *,
    drawn: np.ndarray | None = None,
    least: float = LEAST_STENOSIS,
) -> dict[int, Analysis]:
    """Measure every segment of a tree, from bifurcation to bifurcation.

    A segment begins at its wider end. Those hardly longer than wide are left out.

    Returns
    -------
    dict of int to Analysis
        By the number of the branch, see :func:`build_tree`.
    """
    tree = build_tree(mask)
    found = {}
    for branch in tree.branches:
        if branch.length < max(_SHORTEST, 4 * branch.radius):
            continue
        points, ends = tree.downstream(branch)
        found[branch.number] = analyse(
            frame, mask, points, joints=ends, drawn=drawn, least=least
        )
    return found


def reference_diameter(
    diameter: np.ndarray,
    usable: np.ndarray,
    limits: tuple[int, int] | None = None,
) -> np.ndarray:
    """Interpolate the diameter of the healthy vessel, (N,), by iterative regression.

    A straight line of median slope (Theil and Sen) is the beginning; points well below
    or above it (lesions, aneurysms) are left out and a line is fitted to the others,
    until nothing changes.

    Parameters
    ----------
    diameter : float array (N,)
    usable : bool array (N,)
    limits : (int, int), optional
        Where a reader says that the lesion is: never healthy.
    """
    at = np.arange(len(diameter))
    candidates = usable.copy()
    if limits is not None:
        candidates[limits[0] : limits[1] + 1] = False
    if candidates.sum() < _ENOUGH:
        candidates = usable.copy()
    level = float(np.quantile(diameter[candidates], 0.75))
    some = np.flatnonzero(candidates & (diameter > 0.75 * level))
    some = some[:: 1 + len(some) // _FOR_MEDIANS]
    first, second = np.triu_indices(len(some), 1)
    slope = np.median(
        (diameter[some[second]] - diameter[some[first]]) / (some[second] - some[first])
    )
    line = np.median(diameter[some] - slope * some) + slope * at
    healthy = candidates
    for _ in range(_ROUNDS):
        line = np.maximum(line, 0.25 * level)
        away = diameter / line - 1
        spread = np.clip(4 * np.median(np.abs(away[healthy])), *_HEALTHY)
        chosen = candidates & (away > -spread) & (away < 1.5 * spread)
        if chosen.sum() < _ENOUGH or np.array_equal(chosen, healthy):
            break
        healthy = chosen
        line = np.polynomial.Polynomial.fit(at[healthy], diameter[healthy], 1)(at)
    return line


def _kept(usable: np.ndarray) -> np.ndarray:
    """All of a stretch of which hardly anything is usable."""
    return usable if usable.sum() >= _ENOUGH else np.ones(len(usable), bool)


def _lesions(
    borders: Borders,
    reference: np.ndarray,
    usable: np.ndarray,
    markers: Markers,
    least: float,
) -> list[Lesion]:
    limits, at = markers.limits, markers.at
    if at is None and limits is not None:
        part = slice(limits[0], limits[1] + 1)
        at = limits[0] + int((borders.diameter[part] / reference[part]).argmin())
    if at is not None:
        return [_lesion(borders, reference, at, limits)]
    # Of a vessel that is thinner than the blur all along, nothing can be measured.
    usable = usable & (reference >= borders.resolution)
    narrowing = np.where(usable, 1 - borders.diameter / reference, 0)
    found = []
    while narrowing.max() >= least:
        lesion = _lesion(borders, reference, int(narrowing.argmax()))
        found.append(lesion)
        narrowing[lesion.start : lesion.end + 1] = 0
    return found


def _lesion(
    borders: Borders,
    reference: np.ndarray,
    at: int,
    limits: tuple[int, int] | None = None,
) -> Lesion:
    diameter = borders.diameter
    if limits is None:
        healthy = diameter >= (1 - _END_OF_LESION) * reference
        before, after = np.flatnonzero(healthy[:at]), np.flatnonzero(healthy[at:])
        start = int(before[-1]) if len(before) else 0
        end = at + int(after[0]) if len(after) else len(diameter) - 1
    else:
        start, end = limits
    mld = float(diameter[at])
    return Lesion(
        start,
        at,
        end,
        mld,
        float(reference[at]),
        float(reference[start]),
        float(reference[end]),
        float(diameter[start : end + 1].mean()),
        mld >= borders.resolution,
    )


def _straight(
    diameter: np.ndarray, reference: np.ndarray, usable: np.ndarray, lesion: Lesion
) -> np.ndarray:
    """Straight line through the mean diameters before and after a lesion."""
    at = np.arange(len(diameter))
    near = max(_ENOUGH, round(2 * lesion.reference))
    points = []
    for part in (at[: lesion.start][-near:], at[lesion.end + 1 :][:near]):
        part = part[usable[part]]
        if len(part):
            points.append((part.mean(), diameter[part].mean()))
    if len(points) < 2:
        return reference
    (x0, y0), (x1, y1) = points
    return y0 + (at - x0) * (y1 - y0) / (x1 - x0)
