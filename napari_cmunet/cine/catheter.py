"""Width of a catheter in an image, and the pixel size that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.optimize import least_squares

FRENCH_MM = 1 / 3
"""Outer diameter of one French, in millimetres."""

SHORTEST = 10.0
"""Least length of the line along the shaft, in pixels."""

_STEP = 0.25  # of a profile's samples, in pixels
_PIECES = 5  # measured separately for the standard error
_WALL = (0.6, 0.92)  # inner diameter, as a share of the outer
_MIN_REACH, _REACH = 20.0, 0.042  # of a profile to both sides: pixels, of a frame
_USUAL_WALL, _USUAL_BLUR = (0.74, 0.1), (1.0, 0.5)  # mean and SD; blur in pixels
_PRIOR_WEIGHT = 0.04  # of usual values, against the profile
_MAX_FILLED = 0.15  # of the wall's darkness; negative for an empty lumen
_MAX_SPREAD = 0.1  # of the diameter


class CatheterNotFoundError(ValueError):
    """No catheter could be measured."""


@dataclass(frozen=True)
class CatheterWidth:
    """The outer diameter of a catheter."""

    pixels: float
    spread: float  # standard error in pixels, over pieces of the shaft
    #: array (2, n, 2); both outer edges along the shaft, as (row, column).
    edges: np.ndarray

    def pixel_size_mm(self, french: float) -> float:
        """Side of a pixel in millimetres, for a catheter of so many French."""
        return french * FRENCH_MM / self.pixels


def measure_catheter(
    frame: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> CatheterWidth:
    """Measure the catheter along a line drawn on its shaft.

    Parameters
    ----------
    frame : array (Y, X)
        Grey values, the catheter dark.
    start, end : (row, column)
        Two points on a fairly straight part of the shaft.

    Returns
    -------
    CatheterWidth

    Raises
    ------
    CatheterNotFoundError

    Notes
    -----
    Profiles across the shaft are centred and averaged. A model of a tube is fitted to
    the mean: the chords of an outer and an inner cylinder, blurred, on a sloping
    background. The steepest points of the profile would be biased inwards, since a
    round tube is thinnest at its edges.
    """
    frame = np.asarray(frame, np.float64)
    first, last = np.asarray(start, float), np.asarray(end, float)
    length = float(np.hypot(*(last - first)))
    if length < SHORTEST:
        raise CatheterNotFoundError(
            f"The line is shorter than {SHORTEST:g} pixels. Draw it along the shaft."
        )
    along = (last - first) / length
    across = np.array([along[1], -along[0]])
    reach = max(_MIN_REACH, _REACH * max(frame.shape))
    offsets = np.arange(-2 * reach, 2 * reach + _STEP, _STEP)
    places = np.arange(0.0, length + 0.5)
    middle = _middle(frame, first, along, across, offsets, places, reach)
    slope = np.gradient(middle, places)
    near = np.arange(-reach, reach + _STEP, _STEP)
    profiles = _profiles(
        frame, first + places[:, None] * along, across, middle[:, None] + near
    )
    # Profiles are oblique where the shaft is not parallel to the line.
    lean = 1 / np.sqrt(1 + slope**2)
    if not np.isfinite(profiles).any(axis=0).all():
        raise CatheterNotFoundError(
            "The line is too near to the border of the image. Draw it elsewhere."
        )
    whole = _fit(near, np.nanmean(profiles, axis=0), None)
    pieces = [
        _fit(near, np.nanmean(part, axis=0), whole).radius
        for part in np.array_split(profiles, _PIECES)
        if np.isfinite(part).any(axis=0).all()
    ]
    diameter = 2 * whole.radius * float(lean.mean())
    spread = 2 * float(np.std(pieces, ddof=1)) / math.sqrt(len(pieces))
    if whole.filled > _MAX_FILLED:
        raise CatheterNotFoundError(
            "The catheter seems to be full of contrast, which hides its outer edge. "
            "Measure it in a frame before the injection."
        )
    if not 2.5 < diameter < 1.2 * reach or spread > _MAX_SPREAD * diameter:
        raise CatheterNotFoundError(
            "No catheter is clearly seen along this line. Draw it on a straight part "
            "of the shaft where nothing crosses it."
        )
    axis = first + places[:, None] * along + (middle + whole.middle)[:, None] * across
    tangent = along + slope[:, None] * across
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1) * diameter / 2
    return CatheterWidth(diameter, spread, np.stack([axis - normal, axis + normal]))


def _profiles(
    frame: np.ndarray, points: np.ndarray, across: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Grey values across the line, (points, offsets); NaN outside of the frame."""
    offsets = np.broadcast_to(offsets, (len(points), offsets.shape[-1]))
    where = points[:, None, :] + offsets[..., None] * across
    return map_coordinates(
        frame, np.moveaxis(where, -1, 0), order=1, mode="constant", cval=np.nan
    )


def _middle(
    frame: np.ndarray,
    start: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    offsets: np.ndarray,
    places: np.ndarray,
    reach: float,
) -> np.ndarray:
    """Offset of the shaft's centre from the line, as a parabola along it."""
    wide = _profiles(frame, start + places[:, None] * along, across, offsets)
    wide = np.where(np.isfinite(wide), wide, np.nanmedian(wide))
    wide = gaussian_filter1d(wide, min(3.0, len(places) / 6), axis=0)
    # Troughs of several widths.
    best = np.zeros_like(wide)
    for width in np.geomspace(0.2, 0.8, 5) * reach:
        sigma = 0.35 * width / _STEP
        trough = gaussian_filter1d(wide, sigma, axis=1, order=2) * sigma**1.5
        best = np.maximum(best, trough)
    best *= np.exp(
        -0.5 * (offsets / (0.3 * reach)) ** 2
    )  # prior: the line is on the shaft
    found = offsets[best.argmax(axis=1)]
    weight = best.max(axis=1)
    at = places - places.mean()
    keep = np.ones(len(found), bool)
    for _ in range(3):
        degree = 2 if keep.sum() > 12 else 1
        fit = np.polyval(np.polyfit(at[keep], found[keep], degree, w=weight[keep]), at)
        off = np.abs(found - fit)
        keep = off <= max(1.0, 2.5 * float(np.median(off)))
        if keep.sum() < 5:
            break
    return fit


@dataclass(frozen=True)
class _Tube:
    """A fit: centre and radius in pixels, filling, and all parameters."""

    middle: float
    radius: float
    filled: float
    parameters: np.ndarray


def _fit(offsets: np.ndarray, profile: np.ndarray, known: _Tube | None) -> _Tube:
    """Fit a blurred tube to a mean profile."""
    scale = float(np.ptp(profile)) or 1.0
    values = (profile - profile.min()) / scale
    reach = float(offsets[-1])

    def model(p: np.ndarray) -> np.ndarray:
        # The lumen is a fraction of the wall, negative for an empty one.
        middle, radius, inner, blur, wall, lumen, level, slope, bend = p
        tube = wall * _chord(offsets - middle, radius)
        tube += wall * lumen * _chord(offsets - middle, radius * inner)
        tube = gaussian_filter1d(tube, max(blur, 0.2) / _STEP, mode="nearest")
        at = offsets / reach
        return level + slope * at + bend * at**2 - tube

    def residuals(p: np.ndarray) -> np.ndarray:
        # Wall, blur and radius are correlated: usual values serve as a weak prior.
        usual = [
            (p[2] - _USUAL_WALL[0]) / _USUAL_WALL[1],
            (p[3] - _USUAL_BLUR[0]) / _USUAL_BLUR[1],
        ]
        return np.append(weight * (model(p) - values), _PRIOR_WEIGHT * np.array(usual))

    # Samples far from the shaft count less.
    weight = np.exp(-0.5 * (offsets / (0.5 * reach)) ** 2)
    low = np.array([-0.3 * reach, 1.0, _WALL[0], 0.3, 0.0, -1.0, -9, -9, -0.5])
    high = np.array([0.3 * reach, 0.8 * reach, _WALL[1], 2.5, 3, 5, 9, 9, 0.5])
    starts = (
        [known.parameters]
        if known is not None
        else [
            np.array([0.0, radius, 0.75, 1.0, 0.5 / radius, -0.5, 1.0, 0, 0])
            for radius in np.geomspace(2.0, 0.5 * reach, 4)
        ]
    )
    fits = [
        least_squares(
            residuals,
            np.clip(begin, low + 1e-6, high - 1e-6),
            bounds=(low, high),
            x_scale=[1, 1, 0.1, 0.5, 0.1, 0.5, 0.5, 0.5, 0.5],
            max_nfev=60,
        )
        for begin in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    middle, radius, inner, _, _, lumen, *_ = best.x
    return _Tube(middle, radius, lumen * inner, best.x)


def _chord(offsets: np.ndarray, radius: float) -> np.ndarray:
    """Chord length of a cylinder, averaged over each sample."""
    edge = np.clip((offsets[:, None] + _HALF) / radius, -1, 1)
    # Antiderivative of the chord: smooth in the radius, as the fit requires.
    area = radius**2 * (edge * np.sqrt(1 - edge**2) + np.arcsin(edge))
    return (area[:, 1] - area[:, 0]) / _STEP


_HALF = np.array([-_STEP / 2, _STEP / 2])
