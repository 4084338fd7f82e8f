"""The tree of a mask: branches, bifurcations, and which pixels are whose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_cmunet.vessels.centreline import tube
from napari_cmunet.vessels.tree import build_tree


def draw(shape, *lines):
    """A mask of straight tubes, each (from, to, radius)."""
    mask = np.zeros(shape, bool)
    for start, end, radius in lines:
        points = np.linspace(start, end, 200)
        mask[tube(points, np.full(200, radius), shape)] = True
    return mask


@pytest.fixture
def fork():
    """A main vessel from left to right, and a thin side branch downwards."""
    return draw((80, 120), ((30, 8), (30, 112), 5), ((30, 60), (70, 60), 1.5))


def test_a_fork_has_three_branches_and_one_bifurcation(fork):
    tree = build_tree(fork)
    assert len(tree.branches) == 3
    assert len(tree.joints) == 1
    row, column, radius = tree.joints[0]
    assert (row, column) == pytest.approx((30, 60), abs=3)
    assert radius == pytest.approx(5.5, abs=1)


def test_radii_are_distances_from_the_background(fork):
    fork[25:36, 100:] = True  # runs out of the frame
    exact = ndimage.distance_transform_edt(np.pad(fork, 1))[1:-1, 1:-1]
    for branch in build_tree(fork).branches:
        expected = np.maximum(exact[tuple(branch.points.T)] - 0.5, 0.5)
        np.testing.assert_allclose(branch.radii, expected)
    assert not build_tree(np.zeros((8, 8), bool)).branches


def test_points_run_from_end_to_end_and_radii_are_the_tubes(fork):
    side = build_tree(fork).branch_at((60, 60))
    steps = np.abs(np.diff(side.points, axis=0)).max(axis=1)
    assert (steps == 1).all()
    assert {side.points[0][0] > 60, side.points[-1][0] > 60} == {True, False}
    assert side.radius == pytest.approx(1.5, abs=0.5)
    assert sorted(j >= 0 for j in side.joints) == [False, True]


def test_every_pixel_belongs_to_one_branch(fork):
    tree = build_tree(fork)
    assert ((tree.numbers >= 0) == fork).all()
    assert set(np.unique(tree.numbers)) == {-1, 0, 1, 2}


def test_the_round_of_a_bifurcation_belongs_to_the_main_vessel(fork):
    tree = build_tree(fork)
    side = tree.branch_at((60, 60)).number
    main_alone = draw(fork.shape, ((30, 8), (30, 112), 5))
    inside = tree.numbers[main_alone & fork]
    assert (inside == side).sum() <= 2


def test_the_nearest_branch_within_reach_is_found_from_outside(fork):
    tree = build_tree(fork)
    assert tree.branch_at((60, 64)) is tree.branch_at((60, 60))
    assert tree.branch_at((60, 90)) is None


def test_spurs_of_a_rough_border_are_no_branches(fork):
    rng = np.random.default_rng(0)
    rough = fork.copy()
    for column in rng.integers(15, 105, 12):
        rough[24:27, column] = True
    assert len(build_tree(rough).branches) <= 4


def test_a_ring_and_a_blob_and_nothing():
    shape = (60, 60)
    angle = np.linspace(0, 2 * np.pi, 300)
    points = np.stack([30 + 15 * np.sin(angle), 30 + 15 * np.cos(angle)], axis=1)
    ring = np.zeros(shape, bool)
    ring[tube(points, np.full(300, 2), shape)] = True
    assert len(build_tree(ring).branches) == 1
    blob = np.zeros(shape, bool)
    blob[20:24, 20:24] = True
    tree = build_tree(blob)
    assert (tree.numbers[blob] == 0).all()
    empty = build_tree(np.zeros(shape, bool))
    assert empty.branches == []
    assert empty.branch_at((5, 5)) is None
    assert (empty.numbers == -1).all()


def test_a_free_end_points_outwards(fork):
    ends = build_tree(fork).free_ends()
    assert len(ends) == 3
    lowest = max(ends, key=lambda end: end[1][0])
    assert lowest[2] == pytest.approx((1, 0), abs=0.2)
