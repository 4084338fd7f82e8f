"""Both borders of a vessel, to a fraction of a pixel, from the edges of the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy

from napari_cmunet.vessels.centreline import normals, smoothest_path

_SPACING = 0.25  # of the samples across the vessel, in pixels
_SCALE = 0.8  # of the derivatives across
_ALONG = (0.15, 1.5, 2.5)  # smoothing along: share of the diameter, least and most
_REACH = (1.5, 0.25)  # of the search around the mask's border: pixels, share of radius
_FIRST_REACH = 16.0  # of the search for the mask's border, pixels
_GUIDE = 2.0  # smoothing of the mask's border along the vessel
_BEND = 0.08
_STEEPEST = 4  # samples aside from one point of the centreline to the next
_OFF_MASK = 0.03
_PIXEL = 1 / 12  # variance of the average over a pixel
_BLURS = np.linspace(0.3, 4.0, 75)  # of the imaging system, standard deviations
_USUAL = (1.1, 0.45)  # blur of most systems, and the spread of its logarithm
_GAP_ERROR = 0.05  # of the distance between the derivatives' peaks, pixels
_SECOND = 0.5  # weight of the second derivative
_WIDE = 4.0  # times the blur: wide enough for the edges to tell the width
_EDGE_ERROR = 0.3  # of a diameter from edges: pixels
_CONTRAST_ERROR = 0.12  # of a diameter from contrast: share
_GROUND = (2.0, 5.0)  # pixels beyond the border where the ground is measured


@dataclass(frozen=True)
class Borders:
    """The lumen along a centreline.

    Parameters
    ----------
    centre : float array (N, 2)
        Rows and columns, with a spacing of one pixel.
    left, right : float array (N,)
        Distance in pixels of each border from the centre, along the normal.
    resolution : float
        Diameter in pixels below which the blur hides how wide a vessel is.
    """

    centre: np.ndarray
    left: np.ndarray
    right: np.ndarray
    resolution: float

    @property
    def diameter(self) -> np.ndarray:
        """In pixels, (N,)."""
        return self.left + self.right

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, 2) of the left and of the right border."""
        across = normals(self.centre)
        return (
            self.centre - self.left[:, None] * across,
            self.centre + self.right[:, None] * across,
        )


def find_borders(
    frame: np.ndarray,
    mask: np.ndarray,
    centre: np.ndarray,
    drawn: np.ndarray | None = None,
) -> Borders:
    """Find the borders of a dark vessel along normals of its centreline.

    The edge is where the weighted sum of first and second derivative of the grey values
    is greatest (Reiber et al. 1984: the first alone lies inside the border, the second
    outside); a minimum-cost path along the vessel keeps it smooth. It is looked for
    near the border of the mask. What the blur of the image then adds to the diameter is
    taken off: the same detector's answer to a blurred cylinder is known for every
    diameter.

    Parameters
    ----------
    frame : array (Y, X)
    mask : bool array (Y, X)
    centre : float array (N, 2)
        With a spacing of about one pixel, inside the mask.
    drawn : bool array (Y, X), optional
        Pixels that a reader has painted or erased: there the mask's border holds.
    """
    across = normals(centre)
    inner, outer = _mask_borders(mask, centre, across)
    inner_guide, outer_guide = (
        scipy.ndimage.gaussian_filter1d(side, _GUIDE, mode="nearest")
        for side in (inner, outer)
    )
    radius = (inner_guide + outer_guide) / 2
    reach = _REACH[0] + _REACH[1] * radius
    most = np.ceil((max(inner.max(), outer.max()) + reach.max() + 4) / _SPACING)
    offsets = np.arange(-most, most + 1) * _SPACING
    where = centre[:, None] + offsets[None, :, None] * across[:, None]
    profiles = _sample(frame, where)
    share, least, highest = _ALONG
    along = np.clip(share * 2 * np.median(radius), least, highest)
    profiles = scipy.ndimage.gaussian_filter1d(profiles, along, axis=0, mode="nearest")
    middle = int(most)
    right = _edge(profiles[:, middle:], outer_guide, reach)
    left = _edge(profiles[:, middle::-1], inner_guide, reach)
    blur = _blur(profiles, middle, left, right)
    found = left + right
    excess = (
        found - _diameter(found, _contrast(profiles, middle, left, right), blur)
    ) / 2
    left, right = left - excess, right - excess
    if drawn is not None:
        left = np.where(_touches(drawn, centre, -across, inner), inner, left)
        right = np.where(_touches(drawn, centre, across, outer), outer, right)
    return Borders(centre, left, right, resolution=2.5 * blur)


def _sample(frame: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Grey values at points (N, M, 2), by cubic interpolation of the part needed."""
    low = np.maximum(np.floor(where.min(axis=(0, 1))).astype(int) - 8, 0)
    high = np.ceil(where.max(axis=(0, 1))).astype(int) + 9
    part = frame[low[0] : high[0], low[1] : high[1]].astype(np.float32)
    return scipy.ndimage.map_coordinates(
        part, np.moveaxis(where - low, -1, 0), order=3, mode="nearest"
    )


def _mask_borders(
    mask: np.ndarray, centre: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the mask's border from the centre on both sides, (N,) each."""
    reach, middle = _FIRST_REACH / 2, np.inf
    while reach < max(2 * middle, 1.6 * middle + 1) and reach < max(mask.shape):
        reach *= 2
        steps = np.arange(0, reach, _SPACING)
        sides = [_way_out(mask, centre, side, steps) for side in (-across, across)]
        middle = np.median((sides[0] + sides[1]) / 2)
    # A branch is no part of the lumen: nowhere much wider than it is mostly.
    widest = 1.6 * middle + 1
    return np.minimum(sides[0], widest), np.minimum(sides[1], widest)


def _way_out(
    mask: np.ndarray, centre: np.ndarray, side: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """Distance from the centre to where the mask ends, (N,); the last step at most."""
    where = centre[:, None] + steps[None, :, None] * side[:, None]
    inside = scipy.ndimage.map_coordinates(
        mask.astype(np.uint8),
        np.moveaxis(where, -1, 0),
        np.float32,
        order=1,
        mode="constant",
    )
    outside = inside < 0.5
    ends = np.maximum(outside.argmax(axis=1), 1)
    rows = np.arange(len(centre))
    before, after = inside[rows, ends - 1], inside[rows, ends]
    part = (before - 0.5) / np.maximum(before - after, 1e-6)
    found = np.maximum(steps[ends - 1] + part * _SPACING, 0)
    return np.where(outside.any(axis=1), found, steps[-1])


def _strength(profiles: np.ndarray) -> np.ndarray:
    """Weighted first and second derivative (N, M), outwards, at most 1 in each row."""
    scale = _SCALE / _SPACING
    first = scipy.ndimage.gaussian_filter1d(profiles, scale, axis=1, order=1)
    second = -scipy.ndimage.gaussian_filter1d(profiles, scale, axis=1, order=2)
    parts = (
        part / np.maximum(part.max(axis=1, keepdims=True), 1e-9)
        for part in (first, second)
    )
    return (1 - _SECOND) * next(parts) + _SECOND * next(parts)


def _edge(profiles: np.ndarray, border: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Distance of the edge from the centre, (N,), near the mask's border."""
    strength = _strength(profiles)
    at = np.arange(profiles.shape[1]) * _SPACING
    off = np.abs(at[None] - border[:, None])
    cost = _OFF_MASK * off - strength
    cost = np.where(off <= reach[:, None], cost, 10 + off)
    column = smoothest_path(cost, _BEND, _STEEPEST)
    rows = np.arange(len(column))
    inside = np.clip(column, 1, cost.shape[1] - 2)
    before, here, after = (cost[rows, inside + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.where(bend > 1e-9, (before - after) / (2 * np.maximum(bend, 1e-9)), 0)
    return (inside + np.clip(shift, -0.5, 0.5)) * _SPACING


def _touches(
    drawn: np.ndarray, centre: np.ndarray, side: np.ndarray, border: np.ndarray
) -> np.ndarray:
    """Whether the mask's border on one side is what a reader has drawn, (N,) bool."""
    near = [
        scipy.ndimage.map_coordinates(
            drawn.astype(np.uint8),
            (centre + (border + step)[:, None] * side).T,
            order=0,
            mode="constant",
        )
        for step in (-0.75, 0.75)
    ]
    return (near[0] > 0) | (near[1] > 0)


# -- blur -----------------------------------------------------------------------


@cache
def _response() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the detector makes of a cylinder, everything in units of the total blur.

    Returns
    -------
    true, found : arrays (K,)
        Diameters.
    gap : array (K,)
        Distance between the greatest first and second derivative of one border.
    """
    true = np.geomspace(0.2, 60, 120)
    found, gaps = np.empty_like(true), np.empty_like(true)
    for number, diameter in enumerate(true):
        step = min(0.05, diameter / 40)
        x = np.arange(-diameter / 2 - 6, diameter / 2 + 6, step)
        thick = np.sqrt(np.maximum(diameter**2 / 4 - x**2, 0))
        first = -scipy.ndimage.gaussian_filter1d(thick, 1 / step, order=1)
        second = scipy.ndimage.gaussian_filter1d(thick, 1 / step, order=2)
        first, second = (p[x > 0] / p[x > 0].max() for p in (first, second))
        outwards = x[x > 0]
        found[number] = (
            2 * outwards[((1 - _SECOND) * first + _SECOND * second).argmax()]
        )
        gaps[number] = outwards[second.argmax()] - outwards[first.argmax()]
    return true, np.maximum.accumulate(found), gaps


def _diameter(found: np.ndarray, contrast: np.ndarray, blur: float) -> np.ndarray:
    """True diameters (N,) of a vessel found that wide, with that contrast in all.

    From the edges, what the blur adds is taken off. Where the vessel is hardly wider
    than the blur, its edges tell little, but its contrast tells how thick it is beside
    the rest of the stretch, if it is round; both are weighted by their errors.
    """
    true, answer, _ = _response()
    rising = answer + np.arange(len(answer)) * 1e-9
    by_edges = blur * np.interp(found / blur, rising, true)
    wide = by_edges >= min(_WIDE * blur, float(np.quantile(by_edges, 0.6)))
    density = np.median(contrast[wide] / by_edges[wide] ** 2)
    if not density > 0:
        return by_edges
    by_contrast = np.minimum(np.sqrt(np.maximum(contrast, 0) / density), found)
    slope = np.gradient(answer, true)
    # How far edges follow the width.
    response = np.interp(by_contrast / blur, true, slope)
    of_edges = np.clip(response, 0.05, 1) ** 2 / _EDGE_ERROR**2
    of_contrast = 1 / (_CONTRAST_ERROR * by_contrast + 0.1) ** 2
    return (of_edges * by_edges + of_contrast * by_contrast) / (of_edges + of_contrast)


def _contrast(
    profiles: np.ndarray, middle: int, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Contrast of each profile in all, (N,), over the ground on both sides."""
    at = (np.arange(profiles.shape[1]) - middle) * _SPACING
    beyond = {}
    for side, edge in ((-1, left), (1, right)):
        away = side * at[None] - edge[:, None]
        ground = (away > _GROUND[0]) & (away < _GROUND[1])
        beyond[side] = (profiles * ground).sum(axis=1) / ground.sum(axis=1)
    share = (at[None] + left[:, None]) / (left + right)[:, None]
    ground = (
        beyond[-1][:, None] + np.clip(share, 0, 1) * (beyond[1] - beyond[-1])[:, None]
    )
    inside = (at[None] > -left[:, None] - _GROUND[0]) & (
        at[None] < right[:, None] + _GROUND[0]
    )
    return ((ground - profiles) * inside).sum(axis=1) * _SPACING


def _blur(
    profiles: np.ndarray, middle: int, left: np.ndarray, right: np.ndarray
) -> float:
    """Total blur (standard deviation, pixels) that fits the mean edge of the vessel."""
    least = np.sqrt(_SCALE**2 + _PIXEL)
    span = np.arange(-round(10 / _SPACING), round(10 / _SPACING) + 1)
    gaps = []
    for side, edges in ((1, right), (-1, left)):
        base = np.round(edges / _SPACING).astype(int)
        columns = middle + side * (base[:, None] + span)
        columns = np.clip(columns, 0, profiles.shape[1] - 1)
        edge = np.take_along_axis(profiles, columns, axis=1)
        mean = np.median(edge - edge.mean(axis=1, keepdims=True), axis=0)
        first = scipy.ndimage.gaussian_filter1d(mean, _SCALE / _SPACING, order=1)
        second = -scipy.ndimage.gaussian_filter1d(mean, _SCALE / _SPACING, order=2)
        near = slice(len(span) // 2 - 16, len(span) // 2 + 17)
        gaps.append(_peak(second[near]) - _peak(first[near]))
    gap = np.mean(gaps) * _SPACING
    diameter = np.median(left + right)
    _, answer, distance = _response()
    totals = np.sqrt(least**2 + _BLURS**2)
    expected = np.array(
        [total * np.interp(diameter / total, answer, distance) for total in totals]
    )
    unlikely = (np.log(_BLURS / _USUAL[0]) / _USUAL[1]) ** 2
    return float(totals[(((expected - gap) / _GAP_ERROR) ** 2 + unlikely).argmin()])


def _peak(values: np.ndarray) -> float:
    """Position of the greatest value, to a fraction of a sample."""
    at = int(np.clip(values.argmax(), 1, len(values) - 2))
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return at + (0.5 * (before - after) / bend if bend < 0 else 0.0)
