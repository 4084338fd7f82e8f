"""Coronary analysis of vessels whose diameters are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_cmunet.vessels.qca import Markers, analyse, reference_diameter

SIZE, FINE, ROW = 160, 4, 80.0


def vessel(diameter, blur=1.0, noise=0.0):
    """A horizontal vessel of a diameter (pixels) for each column; frame, mask, path."""
    side = (np.arange(SIZE * FINE) + 0.5) / FINE - 0.5
    radius = np.interp(side, np.arange(SIZE), np.broadcast_to(diameter, SIZE)) / 2
    square = radius[None] ** 2 - (side[:, None] - ROW) ** 2
    thickness = 2 * np.sqrt(np.maximum(square, 0))
    thickness = thickness.reshape(SIZE, FINE, SIZE, FINE).mean(axis=(1, 3))
    frame = 200 - 6 * gaussian_filter(thickness, blur)
    frame += noise * np.random.default_rng(3).standard_normal(frame.shape)
    mask = np.abs(np.arange(SIZE) - ROW)[:, None] <= np.broadcast_to(diameter, SIZE) / 2
    path = np.stack([np.full(120, ROW), np.arange(20, 140)], axis=1)
    return frame, mask, path


def stenosed(healthy=12.0, share=0.5, span=16):
    bump = np.cos(np.clip((np.arange(SIZE) - 80) / span, -1, 1) * np.pi / 2) ** 2
    return healthy * (1 - share * bump)


@pytest.mark.parametrize("diameter", [5.0, 8.0, 14.0, 22.0])
@pytest.mark.parametrize("blur", [0.6, 1.4])
def test_an_even_vessel_has_its_diameter(diameter, blur):
    found = analyse(*vessel(diameter, blur))
    assert found.mean_diameter == pytest.approx(diameter, abs=0.35)
    assert np.ptp(found.borders.diameter[10:-10]) < 0.4
    assert not found.lesions


@pytest.mark.parametrize("share", [0.3, 0.5, 0.65])
def test_a_stenosis_is_found_and_measured(share):
    frame, mask, path = vessel(stenosed(share=share), noise=1.0)
    found = analyse(frame, mask, path)
    (lesion,) = found.lesions
    assert lesion == found.narrowest
    assert lesion.at + 20 == pytest.approx(80, abs=2)
    assert lesion.mld == pytest.approx(12 * (1 - share), abs=0.6)
    assert lesion.reference == pytest.approx(12, abs=0.4)
    assert lesion.percent_diameter == pytest.approx(100 * share, abs=5)
    area = 100 * (1 - (lesion.mld / lesion.reference) ** 2)
    assert lesion.percent_area == pytest.approx(area)
    assert lesion.start + 20 == pytest.approx(66, abs=4)
    assert lesion.end + 20 == pytest.approx(94, abs=4)
    assert lesion.length == lesion.end - lesion.start
    assert lesion.is_resolved
    assert np.abs(found.straight - 12).max() < 0.6


def test_what_the_blur_hides_is_not_told():
    found = analyse(*vessel(stenosed(healthy=6, share=0.8), blur=1.4))
    assert found.narrowest.percent_diameter > 50
    assert not found.narrowest.is_resolved


def test_a_vessel_thinner_than_the_blur_has_no_lesions():
    found = analyse(*vessel(stenosed(healthy=2.5), blur=1.2, noise=2.0))
    assert not found.lesions
    assert not found.narrowest.is_resolved


def test_a_border_painted_in_changes_the_numbers_as_geometry_says():
    frame, mask, path = vessel(14.0)
    before = analyse(frame, mask, path)
    painted = mask.copy()
    painted[:75, 70:90] = False  # the upper border, at 73 before: 5.5 from the centre
    after = analyse(frame, painted, path, drawn=painted != mask)
    inner = slice(55, 65)
    upper = min(
        (after.borders.left, after.borders.right), key=lambda side: side[inner].mean()
    )
    assert upper[inner] == pytest.approx(5.5, abs=0.05)
    change = before.borders.diameter[inner] - after.borders.diameter[inner]
    assert change == pytest.approx(7 - 5.5, abs=0.35)
    ratio = after.narrowest.mld / after.narrowest.reference
    assert after.narrowest.percent_diameter == pytest.approx(100 * (1 - ratio))
    assert after.narrowest.mld == pytest.approx(14 - 1.5, abs=0.4)
    far = np.r_[0:40, 80:100]
    assert np.allclose(
        before.borders.diameter[far], after.borders.diameter[far], atol=0.05
    )


def test_limits_that_a_reader_has_moved_hold():
    frame, mask, path = vessel(stenosed())
    lesion = analyse(frame, mask, path, markers=Markers(start=40, end=50)).narrowest
    assert (lesion.start, lesion.end) == (40, 50)
    assert 40 <= lesion.at <= 50


def test_limits_beyond_the_stretch_are_moved_to_its_end():
    found = analyse(*vessel(stenosed()), markers=Markers(start=200, end=220))
    assert found.narrowest.start == found.narrowest.end == found.length
    found = analyse(*vessel(stenosed()), markers=Markers(at=200, reference=300))
    assert found.narrowest.at == found.length


def test_a_reader_says_where_it_is_narrowest_and_where_healthy():
    frame, mask, path = vessel(np.linspace(14, 10, SIZE))
    markers = Markers(at=60, reference=20)
    lesion = analyse(frame, mask, path, markers=markers).narrowest
    assert lesion.at == 60
    assert lesion.mld == pytest.approx(14 - 4 * 80 / SIZE, abs=0.2)
    assert lesion.reference == pytest.approx(14 - 4 * 40 / SIZE, abs=0.2)


def test_a_reference_is_the_mean_around_its_point():
    frame, mask, path = vessel(np.linspace(14, 10, SIZE))
    found = analyse(frame, mask, path, markers=Markers(at=60, reference=20))
    around = found.borders.diameter[17:24]
    assert found.narrowest.reference == pytest.approx(around.mean())


def test_bifurcations_are_kept_out():
    diameter = stenosed()
    diameter[30:50] = 6  # tighter than it is, beside a bifurcation
    frame, mask, path = vessel(diameter)
    found = analyse(frame, mask, path, joints=[(ROW, 40.0, 12.0)])
    assert not found.usable[10:31].any()
    assert found.narrowest.at + 20 == pytest.approx(80, abs=2)
    assert len(found.lesions) == 1


def test_two_lesions_are_ranked():
    diameter = np.minimum(stenosed(share=0.35), np.roll(stenosed(share=0.6), 40))
    first, second = analyse(*vessel(diameter)).lesions
    assert first.percent_diameter > second.percent_diameter
    assert (first.at + 20, second.at + 20) == pytest.approx((120, 80), abs=3)


def test_the_reference_goes_through_the_healthy_parts():
    taper = np.linspace(14, 10, 200)
    diameter = taper.copy()
    diameter[80:120] *= 0.4
    diameter[150:160] *= 1.5
    found = reference_diameter(diameter, np.ones(200, bool))
    assert np.abs(found - taper).max() < 0.3


def test_the_borders_are_curves_at_the_diameter():
    borders = analyse(*vessel(10.0)).borders
    left, right = borders.curves()
    apart = np.hypot(*(left - right).T)
    assert np.allclose(apart, borders.diameter)
    assert np.abs((left + right)[:, 0] / 2 - ROW).max() < 0.3


def test_a_stretch_too_short_is_refused():
    frame, mask, path = vessel(10.0)
    with pytest.raises(ValueError, match="too short"):
        analyse(frame, mask, path[:5])
