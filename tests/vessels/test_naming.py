"""SYNTAX segments: names on a tree, kept through edits of its mask."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import line

from napari_cmunet.io.masks.label_file import names_from_json, names_to_json
from napari_cmunet.vessels.naming import (
    NamedStretch,
    NamedTree,
    SegmentName,
    segment_near,
)
from napari_cmunet.vessels.segments import SEGMENTS, UNNAMED, VALUES
from napari_cmunet.vessels.tree import build_tree


def vessel(mask, start, end, radius):
    rows, columns = line(*start, *end)
    for row, column in zip(rows, columns, strict=True):
        mask[row - radius : row + radius + 1, column - radius : column + radius + 1] = 1


@pytest.fixture
def mask():
    """A vessel downwards, wider above, with a side branch to the right."""
    mask = np.zeros((200, 160), bool)
    vessel(mask, (20, 60), (100, 60), 4)
    vessel(mask, (100, 60), (180, 60), 3)
    vessel(mask, (100, 60), (140, 120), 2)
    return mask


TRUNK, DISTAL, SIDE = (50, 60), (150, 60), (126, 100)


def named(mask, names=()):
    return NamedTree(build_tree(mask), names)


def segment(tree, point):
    stretch = tree.stretch_at(point)
    return stretch.segment if stretch is not None and stretch.is_certain else ""


def test_a_name_reaches_from_bifurcation_to_bifurcation(mask):
    tree = named(mask)
    tree = named(mask, tree.rename(TRUNK, "6"))
    assert segment(tree, (25, 60)) == segment(tree, (92, 62)) == "6"
    assert segment(tree, DISTAL) == segment(tree, SIDE) == ""
    tree = named(mask, named(mask, tree.rename(DISTAL, "7")).rename(SIDE, "9"))
    assert [segment(tree, p) for p in (TRUNK, DISTAL, SIDE)] == ["6", "7", "9"]
    tree = named(mask, tree.rename(SIDE, ""))
    assert [segment(tree, p) for p in (TRUNK, DISTAL, SIDE)] == ["6", "7", ""]
    assert tree.rename((10, 150), "9") == tree.names  # there is no vessel


def test_onward_names_what_lies_downstream(mask):
    tree = named(mask, named(mask).rename(TRUNK, "1"))
    tree = named(mask, tree.rename((60, 60), "2", onward=True))
    assert segment(tree, (52, 60)) == "1"
    assert segment(tree, (68, 60)) == segment(tree, (90, 60)) == "2"
    # A click on one stretch leaves the other alone.
    tree = named(mask, tree.rename((30, 60), "5"))
    assert segment(tree, (52, 60)) == "5" and segment(tree, (68, 60)) == "2"


def test_onward_in_a_branch_without_a_name_leaves_the_rest_without(mask):
    tree = named(mask, named(mask).rename((60, 60), "2", onward=True))
    assert segment(tree, (40, 60)) == "" and segment(tree, (80, 60)) == "2"


def test_names_follow_the_tree_through_edits(mask):
    names = named(mask).rename(TRUNK, "6")
    names = named(mask, names).rename(DISTAL, "7")
    names = named(mask, names).rename(SIDE, "9")

    # One border is painted out by three pixels, and the trunk gets a side branch.
    edited = mask.copy()
    vessel(edited, (20, 64), (180, 64), 3)
    vessel(edited, (60, 60), (40, 130), 2)
    tree = named(edited, names)
    assert [segment(tree, p) for p in (TRUNK, DISTAL, SIDE)] == ["6", "7", "9"]
    assert segment(tree, (30, 62)) == segment(tree, (85, 62)) == "6"
    assert segment(tree, (45, 115)) == ""

    # Without its side branch, the vessel is one branch with two names.
    cut = mask.copy()
    cut[:, 66:] = False
    tree = named(cut, names)
    assert len(tree.tree.branches) == 1
    assert segment(tree, TRUNK) == "6" and segment(tree, DISTAL) == "7"
    bounds = [s.end for s in tree.stretches[0]]
    assert len(bounds) == 2
    row = tree.tree.branches[0].points[bounds[0], 0]
    assert abs(row - 100) < 8

    # It is undone: the branch has its name again.
    assert segment(named(mask, tree.names), SIDE) == "9"


def test_a_name_of_a_removed_branch_does_not_go_to_its_parent(mask):
    names = named(mask).rename(SIDE, "9")
    cut = mask.copy()
    cut[:, 66:] = False
    tree = named(cut, names)
    assert {s.segment for parts in tree.stretches.values() for s in parts} == {""}


def test_the_map_has_the_value_of_each_segment(mask):
    names = named(mask).rename(TRUNK, "6")
    names = named(mask, names).rename((60, 60), "7", onward=True)
    names = (*names, SegmentName("9", ((126, 100),), doubt=0.9))
    values = named(mask, names).values()
    assert values.dtype == np.uint8
    assert values[40, 60] == values[40, 63] == VALUES["6"]
    assert values[80, 57] == VALUES["7"]
    assert values[SIDE] == UNNAMED  # a doubtful name does not count
    assert values[150, 60] == UNNAMED
    np.testing.assert_array_equal(values > 0, mask)


def test_stretches_of_a_proposal_are_kept_to_the_pixel(mask):
    tree = named(mask)
    branch = tree.tree.branch_at(TRUNK)
    length = len(branch.points)
    parts = [
        NamedStretch(branch.number, 0, 31, "1", 0.2),
        NamedStretch(branch.number, 31, length, "2", 0.7),
    ]
    tree = named(mask, tree.with_stretches(branch.number, parts))
    assert tree.stretches[branch.number] == parts
    assert parts[0].is_named and not parts[1].is_named


def test_the_name_near_a_lesion(mask):
    names = named(mask).rename(TRUNK, "6")
    names = (*names, SegmentName("9", ((126, 100),), doubt=0.9))
    assert segment_near(names, (61.5, 60.2)) == "6"
    assert segment_near(names, (126, 100)) == segment_near((), (126, 100)) == ""


def test_a_branch_beside_a_named_vessel_has_no_name(mask):
    names = named(mask, named(mask).rename(TRUNK, "6")).rename(DISTAL, "7")
    assert segment_near(names, (120, 61)) == "7"
    assert segment_near(names, (107, 70)) == ""


def test_an_empty_mask_has_no_names(mask):
    names = named(mask).rename(TRUNK, "6")
    tree = named(np.zeros_like(mask), names)
    assert tree.names == names and tree.stretches == {}
    assert not tree.values().any()
    assert tree.rename(TRUNK, "7") == names


def test_names_as_json(mask):
    names = (*named(mask).rename(TRUNK, "6"), SegmentName("9", ((1, 2),), 0.25))
    assert names_from_json(names_to_json(names)) == names
    damaged = [
        None,
        {"segment": "6"},
        {"segment": "99", "points": [[1, 2]]},
        {"segment": "6", "points": [[1]]},
        {"segment": "6", "points": []},
        {"segment": "6", "points": [[float("nan"), 2]]},
        {"segment": "6", "points": [[10**300, 2]]},
        {"segment": "6", "points": [[-1, 2]]},
        {"segment": ["6"], "points": [[1, 2]]},
        {"segment": "6", "points": [[1, 2]], "doubt": 2},
    ]
    assert names_from_json(damaged) == ()
    assert names_from_json("6") == names_from_json(None) == ()


def test_codes_are_those_of_the_standard():
    from pydicom.sr.codedict import codes

    group = codes.cid3015
    known = {getattr(group, name).value: getattr(group, name) for name in group.dir()}
    for number, known_as in SEGMENTS.items():
        if known_as.code == "41801008":
            continue
        assert known[known_as.code].meaning == known_as.meaning, number
        assert known[known_as.code].scheme_designator == "SCT"
