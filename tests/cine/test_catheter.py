from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks.catheter_table import make_known_catheter
from napari_cmunet.cine.catheter import CatheterNotFoundError, measure_catheter
from napari_cmunet.synthetic import PhantomConfig


def tube(diameter: float, angle: float = 0.4, noise: float = 0.5, lumen: float = -0.8):
    """A frame with a straight, blurred tube, and two points on its middle."""
    rows, columns = np.indices((160, 160), float)
    across = np.array([np.cos(angle), -np.sin(angle)])
    off = (rows - 80) * across[0] + (columns - 80) * across[1]

    def chord(d: float) -> np.ndarray:
        return 2 * np.sqrt(np.maximum(d**2 / 4 - off**2, 0))

    dark = chord(diameter) + lumen * chord(0.7 * diameter)
    frame = 120 + 0.1 * columns - gaussian_filter(5 * dark, 0.8)
    frame += noise * np.random.default_rng(1).standard_normal(frame.shape)
    along = np.array([np.sin(angle), np.cos(angle)])
    return frame, 80 - 25 * along, 80 + 25 * along


@pytest.mark.parametrize(
    ("diameter", "angle"), [(6.0, 0.4), (9.5, 1.2), (9.5, 0.1), (14.0, 0.4)]
)
def test_the_outer_diameter_is_found_below_a_pixel(diameter, angle):
    frame, start, end = tube(diameter, angle)
    width = measure_catheter(
        frame, start + np.array((1.5, -1)), end - np.array((1, -1.5))
    )
    assert width.pixels == pytest.approx(diameter, rel=0.04)
    assert width.spread < 0.3
    first, second = width.edges
    apart = np.linalg.norm(first - second, axis=1)
    assert apart == pytest.approx(width.pixels, abs=1e-6)
    assert width.pixel_size_mm(6) == pytest.approx(2 / width.pixels)


@pytest.mark.slow
def test_phantom_catheters_before_the_injection():
    errors = []
    for seed in (707, 709, 713, 715, 717, 719):
        known = make_known_catheter(PhantomConfig(size=512, seed=seed))
        rng = np.random.default_rng(seed)
        start, end, diameter = known.straight_part(rng, 40)
        try:
            width = measure_catheter(known.frame, start + rng.normal(0, 1.5, 2), end)
        except CatheterNotFoundError:
            continue  # rather none than a wrong one
        errors.append(width.pixels / diameter - 1)
    assert len(errors) >= 4
    assert np.median(np.abs(errors)) < 0.06
    assert np.abs(errors).max() < 0.15


@pytest.mark.slow
def test_where_there_is_none_it_is_said():
    noise = np.random.default_rng(0).normal(100, 5, (160, 160))
    with pytest.raises(CatheterNotFoundError, match="atheter"):
        measure_catheter(noise, (60, 50), (70, 110))
    frame, start, _ = tube(9)
    with pytest.raises(CatheterNotFoundError, match="shorter than 10"):
        measure_catheter(frame, start, start + 3)
    with pytest.raises(CatheterNotFoundError):
        measure_catheter(frame, (0, 0), (0, 60))


@pytest.mark.slow
def test_a_catheter_full_of_contrast_is_not_measured():
    frame, start, end = tube(10, lumen=4.0)
    with pytest.raises(CatheterNotFoundError, match="full of contrast"):
        measure_catheter(frame, start, end)
