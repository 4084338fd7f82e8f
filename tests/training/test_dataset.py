"""Labels on the network's grid: aligned, padded, and honest about what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.card import Preprocessing
from napari_cmunet.model.preprocess import geometry, restore
from napari_cmunet.training.dataset import (
    REVIEWED,
    SKELETON,
    TARGET,
    WHOLE,
    Label,
    prepare_labels,
)

PREP = Preprocessing(grid=64)


def vessel_label(shape=(64, 64), **kwargs) -> Label:
    """A dark bar, five pixels wide, on a bright ground."""
    mask = np.zeros(shape, bool)
    mask[shape[0] // 2 - 2 : shape[0] // 2 + 3, 8:-8] = True
    frame = np.where(mask, 60, 180).astype(np.uint8)
    return Label(frame, mask, **kwargs)


def test_shapes_and_names():
    labels = [
        vessel_label(patient="a", name="1"),
        vessel_label((128, 80), patient="b", name="2"),
        vessel_label((40, 64), patient="b", name="3"),
    ]
    made = prepare_labels(iter(labels), PREP)
    assert len(made) == 3
    assert made.frames.shape == (3, 1, 64, 64)
    assert made.frames.dtype == torch.float16
    assert made.maps.shape == (3, 3, 64, 64)
    assert made.maps.dtype == torch.uint8
    assert made.patients == ("a", "b", "b")
    assert made.names == ("1", "2", "3")
    assert set(made.maps[:, REVIEWED:].unique().tolist()) == {0, WHOLE}
    assert made.maps[:, TARGET].amax() == WHOLE
    shares = made.maps_at(torch.tensor([1]))
    assert torch.equal(shares, made.maps[1:2].float() / WHOLE)


def test_an_odd_grid_becomes_a_multiple_of_16():
    assert (
        prepare_labels([vessel_label()], Preprocessing(grid=70)).frames.shape[-1] == 80
    )


def test_target_lies_where_the_frame_is_dark():
    made = prepare_labels([vessel_label((200, 140))], PREP)
    target = made.maps[0, TARGET] > WHOLE // 2
    seen = made.maps[0, REVIEWED].bool()
    dark = made.frames[0, 0].float() < -1.5
    assert 2 * (dark & target & seen).sum() / ((dark & seen).sum() + target.sum()) > 0.8


def test_beyond_the_frame_nothing_is_reviewed_or_artery():
    made = prepare_labels([vessel_label((64, 40))], PREP)
    assert (made.maps[..., 40:] == 0).all()
    assert (made.frames[..., 40:] == 0).all()
    assert made.maps[0, REVIEWED, :, :40].all()


def test_unreviewed_is_unknown_and_its_border_counts_as_such():
    reviewed = np.zeros((128, 128), bool)
    reviewed[:, :70] = True
    made = prepare_labels([vessel_label((128, 128), reviewed=reviewed)], PREP)
    assert made.maps[0, REVIEWED, :, :34].all()
    assert (made.maps[0, REVIEWED, :, 35:] == 0).all()


def test_the_centreline_runs_inside_the_target():
    made = prepare_labels([vessel_label()], PREP)
    target, centre = made.maps[0, TARGET].bool(), made.maps[0, SKELETON].bool()
    assert centre.any()
    assert not (centre & ~target).any()
    assert 1 <= centre[:, 20:44].sum(0).float().mean() <= 3
    assert centre[32, 20:44].all()


def test_a_label_without_an_artery_is_a_label():
    blank = Label(np.full((64, 64), 9, np.uint16), np.zeros((64, 64), bool))
    made = prepare_labels([blank], PREP)
    assert (made.maps[0, TARGET] == 0).all()
    assert (made.maps[0, SKELETON] == 0).all()
    assert made.maps[0, REVIEWED].all()


def test_masks_of_0_and_255_are_masks():
    label = vessel_label((100, 100))
    bytes_ = Label(label.frame, label.mask.astype(np.uint8) * 255)
    a, b = prepare_labels([label], PREP), prepare_labels([bytes_], PREP)
    assert torch.equal(a.maps, b.maps)


def test_subset_keeps_order_and_names():
    labels = [vessel_label(patient=f"p{i}", name=str(i)) for i in range(4)]
    some = prepare_labels(labels, PREP).subset([3, 1])
    assert (some.patients, some.names) == (("p3", "p1"), ("3", "1"))
    assert len(some) == 2
    assert some.to("cpu").names == some.names


def test_no_label_is_said():
    with pytest.raises(TrainingError, match="no label"):
        prepare_labels([], PREP)


@pytest.mark.parametrize("what", ["mask", "reviewed"])
def test_a_mask_of_another_size_is_refused_by_name(what):
    good = vessel_label()
    wrong = np.zeros((32, 32), bool)
    parts = {"mask": good.mask, "reviewed": None, what: wrong}
    with pytest.raises(TrainingError, match=r"frame-7.*\(32, 32\).*\(64, 64\)"):
        prepare_labels([Label(good.frame, name="frame-7", **parts)], PREP)


def test_a_coarse_target_still_knows_the_fine_border():
    """Cut to 0 and 1 on the coarse grid, this label could not reach 0.95."""
    y, x = np.mgrid[:128, :128]
    mask = np.abs(y - 40 - 20 * np.sin(x / 15)) < 2.6
    made = prepare_labels([Label(np.where(mask, 60, 180), mask)], PREP)
    share = made.maps_at(torch.tensor([0]))[:, TARGET : TARGET + 1]
    geo = geometry(mask.shape, PREP.grid)

    def dice(found: torch.Tensor) -> float:
        back = restore(found, geo)[0, 0].numpy() > 0.5
        return 2 * (back & mask).sum() / (back.sum() + mask.sum())

    assert dice(share) > 0.97
    assert dice((share > 0.5).float()) < 0.95
