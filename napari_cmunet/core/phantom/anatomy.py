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

from napari_cmunet.core.phantom.projection import CArm, ellipsoid_thickness

if TYPE_CHECKING:
    from napari_cmunet.core.phantom.heart import Heart


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
    if rng.random() < 0.75:
        moving = moving + _diaphragm(rng, view)
    fixed = _body(rng, view)
    fixed += _lung_texture(rng, view) * (0.35 + 0.65 * lung)
    if rng.random() < 0.9:
        fixed += _spine(rng, view)
    for _ in range(rng.integers(0, 3)):
        fixed += _ribs(rng, view) * (0.4 + 0.6 * lung)
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
    tilt = rng.normal(0, 0.0018, 2)
    field = tilt[0] * u + tilt[1] * v
    bulge = rng.normal(0, 6e-6, 2)
    field = field + bulge[0] * u * u + bulge[1] * v * v
    field += rng.uniform(0.03, 0.10) * fractal(rng, view.size, 2.0, 0.5)
    return field


def _heart_shadow(
    rng: np.random.Generator, view: CArm, heart: Heart
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shadow of heart and great vessels, and where lung is (0..1)."""
    radii = np.array(heart.radii) * rng.uniform(1.06, 1.2)
    ventricles = ellipsoid_thickness(view, heart.centre, heart.axes, radii)
    apex = heart.axes[2]
    middle = heart.centre - apex * heart.radii[2] * 0.75 + np.array([0, 8, 14])
    size = rng.uniform(0.75, 0.95) * np.array([46, 40, 48])
    atria = ellipsoid_thickness(view, middle, np.eye(3), size)
    aorta = ellipsoid_thickness(
        view, middle + np.array([-4, -12, 55]), np.eye(3), np.array([16, 17, 60])
    )
    per_mm = rng.uniform(0.002, 0.0075)
    depth = np.maximum(ventricles, atria) + 0.3 * np.minimum(ventricles, atria)
    depth = depth + 0.5 * aorta
    blur = max(rng.uniform(0.6, 2.5) / view.pitch, 0.7)
    depth = gaussian_filter(depth, blur, truncate=2.5)
    return per_mm * depth, np.exp(-depth / 25)


def _diaphragm(rng: np.random.Generator, view: CArm) -> np.ndarray:
    """Draw one or two domes; below them the abdomen is denser."""
    top = rng.uniform(-62, -22)
    high = rng.uniform(55, 95)
    side = rng.normal(0, 45)
    dome = np.array([side, rng.normal(0, 20), top - high])
    chord = ellipsoid_thickness(
        view,
        dome,
        np.eye(3),
        np.array([rng.uniform(80, 130), rng.uniform(70, 100), high]),
    )
    field = rng.uniform(0.0015, 0.006) * chord
    if rng.random() < 0.4:
        other = dome + np.array(
            [-np.sign(side) * rng.uniform(60, 120), 0, rng.normal(0, 12)]
        )
        field = field + rng.uniform(0.0006, 0.002) * ellipsoid_thickness(
            view, other, np.eye(3), np.array([80, 75, high])
        )
    if rng.random() < 0.35:  # gas in the stomach or colon
        gas = dome + np.array([rng.normal(20, 25), 0, high * rng.uniform(0.55, 0.8)])
        size = rng.uniform(12, 32, 3)
        field = field - rng.uniform(0.003, 0.007) * ellipsoid_thickness(
            view, gas, np.eye(3), size
        )
    return gaussian_filter(
        field, max(rng.uniform(0.4, 1.8) / view.pitch, 0.6), truncate=2.5
    )


def _lung_texture(rng: np.random.Generator, view: CArm) -> np.ndarray:
    fine = fractal(rng, view.size, 1.7, 0.06)
    return rng.uniform(0.008, 0.035) * fine


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
    waist = half * (0.93 + 0.16 * np.abs(2 * y) ** 3)
    soft = rng.uniform(0.8, 2.5)
    inside = _edge(np.abs(x) - waist, soft)
    body = rng.uniform(0.06, 0.24) * inside
    bone = rng.uniform(0.02, 0.10)
    plate = np.exp(-(((np.abs(y) - 0.40) * spacing / 1.0) ** 2))
    disc = np.exp(-(((np.abs(y) - 0.5) * spacing / 1.8) ** 2))
    field = body + bone * inside * (plate - 0.8 * disc)
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
    """Draw one family of ribs: parallel curved bands with denser margins."""
    u, v = _millimetres(view)
    slope = rng.choice([-1, 1]) * rng.uniform(0.15, 0.9)
    bend = rng.normal(0, 0.003)
    origin = rng.normal(0, 40)
    spacing = rng.uniform(24, 36)
    along = u - origin
    row = (v - slope * along - bend * along * along) / spacing + rng.uniform(0, 1)
    tilt = np.sqrt(1 + (slope + 2 * bend * along) ** 2)
    gap = np.abs(row - np.floor(row) - 0.5) * spacing / tilt
    half = rng.uniform(3.5, 6.0)
    inside = _edge(gap - half, 0.7)
    margin = np.exp(-(((gap - half + 0.6) / 0.8) ** 2))
    amount = rng.uniform(0.015, 0.07)
    return amount * (inside + rng.uniform(0.2, 0.9) * margin)
