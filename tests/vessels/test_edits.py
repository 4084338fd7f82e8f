"""The tools, each on phantoms: what they add, what they take, and what they leave."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt

from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.vessels.centreline import measure_lumen, resample, tube
from napari_cmunet.vessels.edits import draw_vessel, follow_run, remove_branches
from napari_cmunet.vessels.minimal_path import Tracer, snap
from napari_cmunet.vessels.tree import build_tree, find_gaps
from napari_cmunet.vessels.vesselness import compute_features


@pytest.fixture(scope="module")
def phantom():
    """A frame with its truth, and what is known of it without a network."""
    frame, truth = make_frame(PhantomConfig(size=384, seed=3, side="left"))
    return frame, truth, build_tree(truth)


def long_branch(tree, least=2.0, most=9.0):
    """A branch that is wide enough for its width to be measured, and ends freely."""
    fit = [b for b in tree.branches if least <= b.radius <= most and max(b.joints) >= 0]
    return max(fit, key=lambda b: b.length)


def applied(edit, mask):
    changed = mask.copy()
    edit.apply(changed)
    return changed


@pytest.mark.slow
def test_two_clicks_bring_a_missing_vessel_back(phantom):
    frame, truth, tree = phantom
    branch = long_branch(tree, least=1.2, most=5.0)
    mask = applied(remove_branches(tree, [branch]), truth.astype(np.uint8))
    features = compute_features(frame)
    rest = build_tree(mask)
    ends = [snap(tuple(p), features, rest)[0] for p in branch.points[[0, -1]]]
    path = Tracer(features, ends[0], mask).path_to(ends[1])
    away = distance_transform_edt(~binary_dilation(path_mask(path, truth.shape)))
    assert away[tuple(branch.points.T)].mean() < 1.5
    edit = draw_vessel(features, mask, path)
    assert (edit.values == 1).all()
    after = applied(edit, mask) != 0
    lost = truth & (mask == 0)
    assert (after & lost).sum() > 0.6 * lost.sum()
    assert (after & ~truth).sum() < 0.35 * lost.sum()


def path_mask(path, shape):
    drawn = np.zeros(shape, bool)
    drawn[tube(path, np.full(len(path), 0.8), shape)] = True
    return drawn


def test_nothing_is_added_where_artery_is_already(phantom):
    frame, truth, tree = phantom
    branch = max(tree.branches, key=lambda b: b.length)
    edit = draw_vessel(compute_features(frame), truth, branch.points.astype(float))
    assert len(edit) == 0


def test_the_lumen_is_as_wide_as_the_tube_that_was_drawn():
    grey = np.ones((96, 160), np.float32)
    for radius, row in ((2.0, 20.5), (4.0, 48.5), (6.5, 76)):
        points = np.stack([np.full(150, row), np.linspace(5, 155, 150)], axis=1)
        grey[tube(points, np.full(150, radius), grey.shape)] = 0.3
    rng = np.random.default_rng(0)
    features = compute_features(grey + rng.normal(0, 0.05, grey.shape))
    for radius, row in ((2.0, 20.5), (4.0, 48.5), (6.5, 76)):
        path = np.stack([np.full(120, row), np.linspace(20, 140, 120)], axis=1)
        found = measure_lumen(features, path + np.array([1.5, 0]))
        assert found.radii.mean() == pytest.approx(radius, rel=0.2)
        assert found.centre[:, 0].mean() == pytest.approx(row, abs=0.4)


def test_a_left_main_of_twenty_pixels_is_drawn_as_wide_as_it_is():
    rows, _ = np.mgrid[:120, :200]
    away = np.abs(rows - 60.5)
    # The chord of a round vessel: dark in the middle, and noisy inside.
    grey = 1 - 0.6 * np.sqrt(np.clip(1 - (away / 10) ** 2, 0, None))
    grey += np.random.default_rng(0).normal(0, 0.08, grey.shape)
    path = np.stack([np.full(140, 62.0), np.linspace(20, 180, 140)], axis=1)
    found = measure_lumen(compute_features(grey), path)
    assert 2 * found.radii.mean() == pytest.approx(20, rel=0.2)


def test_a_branch_goes_up_to_its_bifurcation_and_the_rest_stays(phantom):
    _, truth, tree = phantom
    branch = long_branch(tree, least=0)
    edit = remove_branches(tree, [branch])
    after = applied(edit, truth)
    assert not after[tuple(branch.points[len(branch.points) // 2])]
    others = [b for b in tree.branches if b is not branch]
    ends = np.array([tree.joints[j] for j in branch.joints if j >= 0])
    for other in others:
        away = np.hypot(*(other.points[:, None] - ends[None, :, :2]).T).min(axis=0)
        far = other.points[away > ends[:, 2].max()]
        assert after[tuple(far.T)].all()


def test_a_gap_is_found_and_closed(phantom):
    frame, truth, tree = phantom
    branch = long_branch(tree, least=1.0, most=3.0)
    middle = branch.points[len(branch.points) // 2]
    rows, columns = np.indices(truth.shape)
    hole = np.hypot(rows - middle[0], columns - middle[1]) < 8
    broken = truth & ~hole
    features = compute_features(frame)
    torn = build_tree(broken)
    gap = min(find_gaps(torn), key=lambda g: g.distance(tuple(middle)))
    assert gap.distance(tuple(middle)) < 4
    path = Tracer(features, gap.start, broken).path_to(gap.end)
    after = applied(draw_vessel(features, broken, path), broken)
    closed = build_tree(after).components
    assert (
        closed[tuple(np.round(gap.start).astype(int))]
        == (closed[tuple(np.round(gap.end).astype(int))])
    )


def test_a_wire_apart_from_the_arteries_is_taken_whole(phantom):
    _, truth, _ = phantom
    wire = path_mask(
        np.stack([np.arange(20, 350), np.full(330, 8)], axis=1), (384, 384)
    )
    wire &= ~binary_dilation(truth, iterations=2)
    both = truth | wire
    tree = build_tree(both)
    clicked = tree.branch_at((200, 8))
    assert clicked is not None
    after = applied(remove_branches(tree, follow_run(tree, clicked)), both)
    assert (after & ~truth).sum() < 0.5 * wire.sum()
    assert after[truth].all()


def test_a_catheter_that_touches_the_tree_goes_without_the_tree():
    shape = (120, 200)
    mask = np.zeros(shape, bool)
    for start, end, radius in (
        ((5, 40), (60, 60), 3),  # the catheter
        ((60, 60), (115, 80), 3),  # it runs on
        ((60, 60), (40, 190), 6),  # the artery
        ((50, 120), (110, 150), 4),
    ):
        points = np.linspace(start, end, 200)
        mask[tube(points, np.full(200, radius), shape)] = True
    tree = build_tree(mask)
    run = follow_run(tree, tree.branch_at((20, 45)))
    after = applied(remove_branches(tree, run), mask)
    assert not after[15, 44]
    assert not after[110, 78]
    assert after[45, 160]
    assert after[100, 145]


def drawn(shape, *lines):
    """A mask of tubes through points, each (points, radius)."""
    mask = np.zeros(shape, bool)
    for points, radius in lines:
        line = resample(np.array(points, float))
        mask[tube(line, np.full(len(line), radius), shape)] = True
    return mask


MAIN = [(60, 5), (60, 195)]


@pytest.mark.parametrize("radius", [2, 5])
def test_removing_a_branch_leaves_the_lumen_that_it_joins(radius):
    # A side branch at an acute angle, thinner than the artery or wider.
    shape = (140, 200)
    mask = drawn(shape, (MAIN, 3), ([(60, 90), (130, 150)], radius))
    alone = drawn(shape, (MAIN, 3))
    tree = build_tree(mask)
    edit = remove_branches(tree, [tree.branch_at((110, 133))])
    after = applied(edit, mask)
    assert after[alone].mean() > 0.99
    assert build_tree(after).components.max() == 1
    assert not after[85:, 100:].any()
    assert (after & ~alone).sum() < 12 * radius


def test_a_wire_is_followed_across_arteries_to_both_ends():
    shape = (160, 260)
    wire = [(10, 20), (150, 240)]
    arteries = (
        ([(30, 5), (45, 130), (40, 255)], 4),
        ([(150, 60), (100, 160), (20, 250)], 4),
        ([(45, 130), (100, 160)], 3),
    )
    mask = drawn(shape, (wire, 2), *arteries)
    tree = build_tree(mask)
    after = applied(
        remove_branches(tree, follow_run(tree, tree.branch_at((70, 114)))), mask
    )
    alone = drawn(shape, *arteries)
    only_wire = mask & ~binary_dilation(alone, iterations=3)
    assert (after & only_wire).sum() < 0.05 * only_wire.sum()
    assert after[alone].mean() > 0.97
    assert build_tree(after).components.max() == 1


def test_a_run_is_followed_across_a_gap():
    shape = (80, 220)
    mask = drawn(
        shape,
        ([(20, 5), (30, 90)], 2),
        ([(32, 110), (40, 210)], 2),
        ([(70, 5), (65, 215)], 5),
        ([(36, 160), (66, 160)], 2),
        ([(25, 48), (69, 50)], 2),
    )
    tree = build_tree(mask)
    run = follow_run(tree, tree.branch_at((25, 40)))
    assert tree.branch_at((36, 150)) in run
    assert tree.branch_at((68, 100)) not in run
