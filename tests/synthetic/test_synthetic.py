"""The phantom: seeded, dark arteries on a bright ground, honest masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_cmunet.synthetic import PhantomConfig, make_cine, make_frame
from napari_cmunet.synthetic import cine as phantom_cine
from napari_cmunet.synthetic.c_arm import CArm, Tube, draw, ellipsoid_thickness
from napari_cmunet.synthetic.devices import make_catheter
from napari_cmunet.synthetic.heart import Bolus, contraction, make_heart
from napari_cmunet.synthetic.tree import TreeMaker, TreeStyle

SIZE = 192


@pytest.fixture(scope="module")
def cine():
    return make_cine(PhantomConfig(frames=12, size=SIZE, seed=5, fps=7.5))


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes():
    config = PhantomConfig(frames=3, size=128, seed=11)
    one, two = make_cine(config), make_cine(config)
    assert one.frames.tobytes() == two.frames.tobytes()
    assert one.masks.tobytes() == two.masks.tobytes()
    assert (one.fps, one.pixel_size_mm) == (two.fps, two.pixel_size_mm)
    first, second = make_frame(config), make_frame(config)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


@pytest.mark.slow
def test_any_number_of_threads_gives_the_same_bytes(monkeypatch):
    config = PhantomConfig(frames=5, size=128, seed=12, side="left")
    made = []
    for threads, at_once in ((1, 12), (4, 12), (3, 2)):
        monkeypatch.setattr(phantom_cine, "THREADS", threads)
        monkeypatch.setattr(phantom_cine, "AT_ONCE", at_once)
        made.append(make_cine(config))
    assert len({m.frames.tobytes() for m in made}) == 1
    assert len({m.masks.tobytes() for m in made}) == 1


@pytest.mark.slow
def test_other_seeds_give_other_pictures():
    masks = [make_frame(PhantomConfig(size=128, seed=s))[1] for s in range(4)]
    for index, mask in enumerate(masks):
        for other in masks[index + 1 :]:
            assert (mask != other).any()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.slow
def test_bit_depth(bits):
    config = PhantomConfig(frames=2, size=128, seed=2, bits=bits)
    image, mask = make_frame(config)
    frames = make_cine(config).frames
    expected = np.uint8 if bits == 8 else np.uint16
    assert image.dtype == frames.dtype == expected
    assert mask.dtype == bool
    assert 2 ** (bits - 3) < image.max() < 2**bits
    assert image.shape == mask.shape == (128, 128)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(4))
def test_arteries_are_there_connected_and_dark(side, seed):
    config = PhantomConfig(size=256, seed=seed, side=side)
    image, mask = make_frame(config)
    assert 0.008 < mask.mean() < 0.2
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    assert count < 40
    assert sizes.max() > 0.6 * mask.sum()
    near = ndimage.binary_dilation(mask, iterations=6)
    near &= ~ndimage.binary_dilation(mask, iterations=2)
    assert image[mask].mean() < image[near].mean() - 2


def test_contrast_washes_in(cine):
    area = cine.masks.mean(axis=(1, 2))
    assert area[0] < 0.1 * area.max()
    assert area[:3].mean() < 0.3 * area[5:9].mean()
    assert area.max() > 0.01
    assert cine.frames.shape == cine.masks.shape == (12, SIZE, SIZE)
    assert cine.fps == 7.5
    assert cine.seed == 5
    assert 0.3 < cine.pixel_size_mm[0] < 1.2


def test_distal_arteries_fill_later_and_all_clear():
    bolus = Bolus(start=0.2, duration=1.0, speed=200.0, washout=0.4)
    way = np.array([0.0, 80.0, 160.0])
    assert not bolus.density(0.1, way).any()
    early = bolus.density(0.75, way)
    assert early[0] > early[1] > early[2]
    assert bolus.density(1.2, way)[0] == pytest.approx(1)
    assert bolus.density(9.0, way).max() < 0.01


def test_the_heart_beats(cine):
    full = cine.masks[5:8]
    assert (full[0] != full[1]).any()
    assert contraction(0.0) == pytest.approx(0)
    assert contraction(0.36) == pytest.approx(1)
    assert contraction(0.9) == pytest.approx(0)


@pytest.mark.slow
def test_the_catheter_is_not_in_the_mask(monkeypatch):
    """The same seed with and without the catheter drawn has the same mask."""
    from napari_cmunet.synthetic import cine as module

    config = PhantomConfig(frames=4, size=SIZE, seed=3)
    with_it = make_cine(config)

    class Absent(module.Catheter):
        def thickness(self, view, shift, filled):
            return np.zeros((view.size, view.size), dtype=np.float32)

    def absent(rng, trunk, calibre):
        made = make_catheter(rng, trunk, calibre)
        return Absent(made.points, made.radius, made.wall)

    monkeypatch.setattr(module, "make_catheter", absent)
    without = make_cine(config)
    assert (with_it.frames != without.frames).any()
    np.testing.assert_array_equal(with_it.masks, without.masks)
    # And before contrast arrives there is a catheter but no mask.
    assert not with_it.masks[0].any()


@pytest.mark.slow
def test_masks_stay_inside_the_collimated_field():
    for seed in range(12):
        image, mask = make_frame(PhantomConfig(size=128, seed=seed))
        assert not mask[(image == 0).all(axis=1)].any()
        assert not mask[:, (image == 0).all(axis=0)].any()


@pytest.mark.parametrize(
    ("side", "names"), [("left", {"LM", "LAD", "LCx", "D"}), ("right", {"RCA"})]
)
def test_arteries_branch_and_taper(side, names):
    rng = np.random.default_rng(0)
    heart = make_heart(rng)
    vessels = TreeMaker(heart, TreeStyle(side, disease=0.0), rng).make()
    assert {v.name for v in vessels} >= names
    root = vessels[0]
    for vessel in vessels:
        # Wall roughness apart, nothing is wider than the artery it comes from.
        assert 0.05 < vessel.radius.min() < vessel.radius.max() < 1.4 * root.radius[0]
        for child in vessel.children:
            assert np.median(child.radius) < np.median(vessel.radius) * 1.1
            assert child.distance[0] >= vessel.distance[0]
    long = [v for v in vessels if v.length > 60]
    thirds = [(v.radius[: len(v.radius) // 3], v.radius[-10:]) for v in long]
    assert all(end.mean() < start.mean() for start, end in thirds)


def test_a_straight_tube_is_drawn_as_the_chord_through_a_cylinder():
    count = 400
    place = np.stack([np.linspace(-10, 74, count), np.full(count, 32.0)], axis=1)
    samples = Tube(
        place, np.full(count, 8.0), np.ones(count), np.full(count, 84 / (count - 1))
    )
    drawn, mask = draw(samples, 64, np.ones(count, dtype=bool))
    away = np.abs(np.arange(64) - 32.0)
    chord = 2 * np.sqrt(np.maximum(64 - away**2, 0))
    np.testing.assert_allclose(drawn[away < 7, 30], chord[away < 7], rtol=0.03)
    assert mask[:, 30].sum() == 17


def test_ellipsoid_thickness_is_the_diameter_in_the_middle():
    view = CArm(20, -15, 1.0, (32.0, 32.0), 64)
    ball = ellipsoid_thickness(view, np.zeros(3), np.eye(3), np.full(3, 20.0))
    assert ball[32, 32] == pytest.approx(40, rel=1e-3)
    assert ball[32, 53] == 0
    assert ball[22, 32] == pytest.approx(2 * np.sqrt(300), rel=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"size": 8}, {"bits": 4}, {"bits": 17}, {"side": "up"}]
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\."):
        PhantomConfig(**wrong)
