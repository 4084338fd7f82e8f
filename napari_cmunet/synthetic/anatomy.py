"""What lies behind the arteries: heart, lungs, diaphragm, spine, ribs.

All maps are attenuation (natural logarithm units): larger is darker.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from napari_cmunet.synthetic.c_arm import (
    CArm,
    draw,
    ellipsoid_thickness,
    join,
    tube,
)

if TYPE_CHECKING:
    from napari_cmunet.synthetic.heart import Heart


@dataclass(frozen=True)
class Anatomy:
    """Background in two layers.

    Attributes
    ----------
    fixed
        What stands still: spine, ribs, skin, and the table.
    moving
        What goes with the breath: heart, great vessels, diaphragm.
    """

    fixed: np.ndarray
    moving: np.ndarray


def make_anatomy(
    rng: np.random.Generator, view: CArm, heart: Heart, strength: float
) -> Anatomy:
    """Draw the chest around a heart as the C-arm sees it.

    ``strength`` scales the contrast of all of it.
    """
    shadow, lung = _heart_shadow(rng, view, heart)
    moving = shadow
    if rng.random() < 0.85:
        moving = moving + _diaphragm(rng, view)
    fixed = _body(rng, view) + _folds(rng, view)
    airy = 0.3 + 0.7 * lung
    fixed += _lung_texture(rng, view) * airy
    if rng.random() < 0.7:
        fixed += _lung_vessels(rng, view) * airy
    if rng.random() < 0.9:
        fixed += _spine(rng, view)
    for _ in range(rng.integers(0, 3)):
        fixed += _ribs(rng, view) * airy
    return Anatomy(
        (strength * fixed).astype(np.float32), (strength * moving).astype(np.float32)
    )


def fractal(
    rng: np.random.Generator, size: int, slope: float, largest: float
) -> np.ndarray:
    """Return noise of unit SD with a power-law spectrum of amplitude ``slope``.

    ``largest`` is the size of the coarsest structures as a share of the image.
    """
    frequency = _frequencies(size)
    floor = 1.0 / largest
    amplitude = (frequency * size + floor) ** -slope
    noise = rng.standard_normal((size, size), dtype=np.float32)
    field = fft.irfft2(fft.rfft2(noise) * amplitude, s=(size, size))
    field -= field.mean()
    return (field / field.std()).astype(np.float32)


@lru_cache(maxsize=4)
def _frequencies(size: int) -> np.ndarray:
    fy = np.fft.fftfreq(size).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    return np.hypot(fy, fx)


def _millimetres(view: CArm) -> tuple[np.ndarray, np.ndarray]:
    """Return image coordinates in mm: a row of u (right), a column of v (up)."""
    line = np.arange(view.size, dtype=np.float32)
    u = (line - view.centre[0]) * view.pitch
    v = (view.centre[1] - line) * view.pitch
    return u[None, :], v[:, None]


def _edge(distance: np.ndarray, width: float) -> np.ndarray:
    """Return 1 inside (negative distance), 0 outside, soft over ``width``."""
    return 0.5 - 0.5 * np.tanh(distance / width)


def _body(rng: np.random.Generator, view: CArm) -> np.ndarray:
    u, v = _millimetres(view)
    tilt = rng.normal(0, 0.0028, 2)
    field = tilt[0] * u + tilt[1] * v
    bulge = rng.normal(0, 6e-6, 2)
    field = field + bulge[0] * u * u + bulge[1] * v * v
    field += rng.uniform(0.03, 0.09) * fractal(rng, view.size, 2.0, 0.5)
    return field


def _heart_shadow(
    rng: np.random.Generator, view: CArm, heart: Heart
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shadow of heart and mediastinum, and where lung is (0..1)."""
    radii = np.array(heart.radii) * rng.uniform(1.06, 1.25, 3)
    depth = ellipsoid_thickness(view, heart.centre, heart.axes, radii)
    base = heart.centre - heart.axes[2] * heart.radii[2] * rng.uniform(0.6, 0.9)
    for middle, size in (
        (base + np.array([-4, 8, 8]), [46, 42, 44]),  # atria
        (base + np.array([-8, 4, 62]), [27, 30, 75]),  # great vessels
        ([-28, 42, 0], [30, 34, 260]),  # the rest of the mediastinum
    ):
        grown = np.array(size) * rng.uniform(0.8, 1.15, 3)
        shifted = np.array(middle) + rng.normal(0, 4, 3)
        part = ellipsoid_thickness(view, shifted, np.eye(3), grown)
        depth = np.maximum(depth, part) + 0.35 * np.minimum(depth, part)
    # Fat and beam hardening: the shadow is flat inside and steep at its border.
    level = rng.uniform(35, 90)
    depth = level * np.tanh(depth / level)
    blur = max(rng.uniform(0.3, 1.6) / view.pitch, 0.7)
    depth = gaussian_filter(depth, blur, truncate=2.5)
    return rng.uniform(0.08, 0.6) * depth / level, 1 - depth / level


def _diaphragm(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw one or two domes; below them the abdomen is denser."""
    field: np.ndarray = np.zeros((view.size, view.size), dtype=np.float32)
    top = rng.uniform(-52, -4)
    side = rng.choice([-1, 1])
    for _ in range(rng.integers(1, 3)):
        high = rng.uniform(70, 130)
        wide = rng.uniform(80, 170)
        dome = np.array([side * rng.uniform(10, 110), rng.normal(0, 25), top - high])
        chord = ellipsoid_thickness(
            view, dome, np.eye(3), np.array([wide, rng.uniform(70, 120), high])
        )
        level = rng.uniform(50, 150)
        field = np.maximum(field, rng.uniform(0.15, 0.75) * np.tanh(chord / level))
        side, top = -side, top + rng.normal(0, 14)
    if rng.random() < 0.3:  # gas in the stomach or colon
        gas = np.array([rng.normal(20, 45), 0, top - rng.uniform(10, 40)])
        size = rng.uniform(12, 34, 3)
        field = field - rng.uniform(0.003, 0.008) * ellipsoid_thickness(
            view, gas, np.eye(3), size
        )
    return gaussian_filter(
        field, max(rng.uniform(0.3, 1.4) / view.pitch, 0.6), truncate=2.5
    )


def _folds(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw large soft parts whose border crosses the field: breast, arm, fissure."""
    field = np.zeros((view.size, view.size), dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        turn = rng.uniform(0, 2 * np.pi)
        size = rng.uniform(130, 320, 3)
        away = size.mean() + rng.uniform(-40, 45)
        middle = away * (np.cos(turn) * view.basis[0] + np.sin(turn) * view.basis[1])
        chord = ellipsoid_thickness(view, middle, np.eye(3), size)
        field += rng.uniform(0.04, 0.35) * np.tanh(chord / rng.uniform(30, 150))
    return gaussian_filter(field, 0.5 / view.pitch, truncate=2.5)


def _lung_vessels(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw faint, soft, branching lines that fan out from a hilum."""
    right, up, _ = view.basis
    tubes = []
    hilum = rng.normal(0, 45, 2)
    for _ in range(rng.integers(10, 40)):
        turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.16, 40))
        start = hilum + rng.normal(0, 18, 2)
        reach = rng.uniform(1.0, 2.4)
        flat = start + reach * np.cumsum(
            np.stack([np.cos(turn), np.sin(turn)], axis=1), axis=0
        )
        points = flat[:, :1] * right + flat[:, 1:] * up
        width = rng.uniform(0.6, 2.6) * np.linspace(1, 0.3, 40)
        tubes.append(tube(view, points, width, rng.uniform(0.3, 1.0)))
    drawn, _ = draw(join(tubes), view.size)
    drawn = gaussian_filter(drawn, rng.uniform(0.4, 1.2) / view.pitch, truncate=2.5)
    return rng.uniform(0.01, 0.04) * view.pitch * drawn


def _lung_texture(rng: np.random.Generator, view: CArm) -> np.ndarray:
    fine = fractal(rng, view.size, rng.uniform(1.5, 2.2), 0.06)
    return rng.uniform(0.01, 0.045) * fine


def _spine(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw the vertebral column: bodies, end plates, pedicles, processes."""
    right, up, _ = view.basis
    axis = np.array([-28 + rng.normal(0, 8), 72 + rng.normal(0, 8), 0.0])
    u, v = _millimetres(view)
    lean = rng.normal(0, 0.05)
    x = u - right @ axis - lean * v
    spacing = rng.uniform(23, 29) * max(np.cos(np.deg2rad(view.cranial)), 0.75)
    row = (v - up @ axis) / spacing + rng.uniform(0, 1)
    y = row - np.floor(row) - 0.5  # -0.5..0.5, the disc at the ends
    half = rng.uniform(15, 20)
    waist = half * (0.95 + rng.uniform(0.03, 0.13) * np.abs(2 * y) ** 3)
    soft = rng.uniform(0.8, 2.5)
    inside = _edge(np.abs(x) - waist, soft)
    body = rng.uniform(0.1, 0.42) * inside
    bone = rng.uniform(0.02, 0.10)
    plate = np.exp(-(((np.abs(y) - 0.40) * spacing / 1.0) ** 2))
    disc = np.exp(-(((np.abs(y) - 0.5) * spacing / 1.8) ** 2))
    field = body + bone * inside * (plate - 0.35 * disc)
    field = field + 0.5 * bone * np.exp(-(((np.abs(x) - waist + 1.0) / 1.2) ** 2))
    turn = np.sin(np.deg2rad(view.lao)) * 12
    for hand in (-1, 1):
        px = (x - hand * half * 0.62 + turn * 0.5) / 3.6
        py = (y - 0.12) * spacing / 5.5
        ring = np.sqrt(px * px + py * py)
        field = field + bone * 0.9 * np.exp(-(((ring - 0.9) / 0.25) ** 2))
    process = ((x + turn * 2.2) / 2.8) ** 2 + ((y + 0.2) * spacing / 8.0) ** 2
    field = field + bone * 1.1 * np.exp(-(process**2))
    # Soft tissue beside the spine.
    wide = rng.uniform(24, 40)
    field = field + rng.uniform(0.0, 0.12) * _edge(np.abs(x + 4) - wide, 6.0)
    return field


def _ribs(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw one family of ribs: curved bands with denser margins.

    Ribs of the back fall from the spine to the sides, those of the front rise.
    """
    u, v = _millimetres(view)
    spine = view.basis[0] @ np.array([-28.0, 72.0, 0.0])
    along = np.abs(u - spine)
    slope = rng.choice([-1, 1]) * rng.uniform(0.15, 0.8)
    bend = rng.normal(0, 0.003)
    spacing = rng.uniform(24, 36)
    row = (v + slope * along + bend * along * along) / spacing + rng.uniform(0, 1)
    number = np.floor(row).astype(int)
    shift = rng.normal(0, 0.07, 64)[number % 64]
    tilt = np.sqrt(1 + (slope + 2 * bend * along) ** 2)
    gap = np.abs(row - number - 0.5 - shift) * spacing / tilt
    half = rng.uniform(3.5, 6.5) * rng.normal(1, 0.1, 64).clip(0.7, 1.3)[number % 64]
    inside = _edge(gap - half, rng.uniform(0.5, 1.2))
    margin = np.exp(-(((gap - half + 0.6) / 0.8) ** 2))
    amount = rng.uniform(0.02, 0.10)
    return amount * (inside + rng.uniform(0.2, 0.9) * margin) * (along > 8)
