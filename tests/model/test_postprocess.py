import numpy as np
import pytest
import torch

from napari_cmunet.model.card import Postprocessing
from napari_cmunet.model.postprocess import (
    find_small_components,
    predicted_tree,
    suppress_small_components,
    suppress_uncertain,
)


def _tree_and_specks(side=100):
    mask = np.zeros((side, side), bool)
    mask[10:90, 48:52] = True  # a stem
    mask[50:52, 20:80] = True  # and a branch
    mask[20:26, 8:20] = True  # the edge of a rib, say
    mask[94, 95] = True
    return mask


def test_short_pieces_are_specks_and_the_tree_is_not():
    mask = _tree_and_specks()
    specks = find_small_components(mask)
    assert specks[20:26, 8:20].all()
    assert specks[94, 95]
    assert not specks[10:90, 48:52].any()
    assert specks.sum() == 6 * 12 + 1


def test_a_tree_that_has_only_begun_to_fill_is_kept():
    mask = np.zeros((100, 100), bool)
    mask[40:52, 50] = True
    assert not find_small_components(mask).any()


def test_nothing_found_has_no_specks():
    assert not find_small_components(np.zeros((8, 8), bool)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_speck_falls_below_the_lower_cut_and_stays_visible(dtype):
    mask = torch.from_numpy(_tree_and_specks())
    logit = torch.where(mask, 6.0, -6.0).to(dtype)[None, None].repeat(2, 1, 1, 1)
    before = logit.clone()
    p = torch.sigmoid(suppress_small_components(logit).float())[1, 0].numpy()
    specks = find_small_components(mask.numpy())
    assert (p[specks] < 0.25).all()
    assert (p[specks] > 0.2).all()
    assert torch.equal(
        logit[..., ~torch.from_numpy(specks)], before[..., ~torch.from_numpy(specks)]
    )


def test_a_faint_stretch_holds_a_branch_to_its_tree():
    mask = _tree_and_specks()
    logit = torch.where(torch.from_numpy(mask), 4.0, -6.0)[None, None]
    logit[0, 0, 22, 20:48] = -0.5  # p = 0.38: from the rib to the stem
    kept = suppress_small_components(logit.clone())
    assert (kept[0, 0, 20:26, 8:20] == 4.0).all()


HOW = Postprocessing()


def uncertain(logit: np.ndarray, threshold: float) -> np.ndarray:
    return predicted_tree(logit, threshold, HOW).uncertain(HOW.twig_margin)


def test_an_uncertain_twig_goes_and_the_vessel_stays():
    logit = np.full((128, 128), -8.0, np.float32)
    logit[62:66, 4:124] = 6.0  # a vessel across the frame
    logit[40:62, 70:73] = 1.0  # a faint twig on it
    logit[66:90, 30:33] = 6.0  # a clear one
    found = uncertain(logit, 0.7)
    assert found[42:58, 70:73].all()
    assert found[62:66].sum() <= 12  # but for pixels at the bifurcation
    assert not found[66:90].any()


def test_a_component_without_a_confident_pixel_goes():
    logit = np.full((128, 128), -8.0, np.float32)
    logit[62:66, 4:124] = 6.0
    logit[20:23, 4:124] = 2.0
    found = uncertain(logit, 0.7)
    assert found[20:23, 4:124].all()
    assert not found[62:66].any()


def test_where_there_are_only_twigs_all_goes():
    logit = np.full((128, 128), -8.0, np.float32)
    logit[62:66, 50:60] = 1.0
    logit[63, 55] = 6.0
    found = uncertain(logit, 0.7)
    assert found[62:66, 50:60].all()
    contrast = 128 * predicted_tree(logit, 0.7, HOW).contrast
    assert 5.1 < contrast <= 10 * 0.2 + 5.2  # of the faint pixels and of the clear one
    assert not uncertain(np.full((64, 64), -8.0, np.float32), 0.7).any()


def test_margins_follow_the_threshold():
    logit = np.full((128, 128), -8.0, np.float32)
    logit[62:66, 4:124] = HOW.core_margin + 0.3
    assert not uncertain(logit, 0.5).any()
    assert uncertain(logit, 0.7)[62:66, 4:124].all()


def test_a_frame_without_contrast_is_left_empty_and_said_to_be():
    logit = torch.full((2, 1, 128, 128), -8.0)
    logit[0, 0, 62:66, 4:124] = 6.0
    logit[0, 0, 66:124, 60:64] = 6.0
    logit[1, 0, 62:66, 4:50] = 6.0  # a catheter, say
    out, contrast = suppress_uncertain(logit, 0.7, HOW)
    assert contrast == [True, False]
    probability = out.sigmoid()
    assert (probability[0] > 0.7).any()
    assert probability[1].max() <= 0.25 + 1e-6
    assert probability[1].max() > 0.2  # a low threshold still shows it


def test_one_long_line_without_a_branch_is_no_contrast_unless_it_is_certain():
    logit = torch.full((3, 1, 128, 128), -8.0)
    logit[:2, 0, 62:66, 4:124] = 6.0  # a lead, say
    logit[1, 0, 66:124, 60:64] = 6.0
    logit[2, 0, 62:66, 4:124] = 9.0
    assert suppress_uncertain(logit, 0.7, HOW)[1] == [False, True, True]


def test_a_long_uncertain_tree_shows_contrast_as_a_shorter_certain_one_does():
    logit = torch.full((2, 1, 128, 128), -8.0)
    logit[0, 0, 30:34, 4:124] = 3.0
    logit[0, 0, 34:124, 60:64] = 3.0
    logit[0, 0, 32, 20:24] = 6.0  # confident here alone
    logit[1, 0, 30:34, 4:104] = 6.0
    logit[1, 0, 34:64, 60:64] = 6.0
    assert suppress_uncertain(logit, 0.7, HOW)[1] == [True, True]


def test_a_hospital_that_wants_a_higher_threshold_has_no_less_contrast():
    logit = torch.full((1, 1, 128, 128), -8.0)
    logit[0, 0, 30:34, 4:124] = 3.0
    logit[0, 0, 34:124, 60:64] = 3.0
    logit[0, 0, 32, 20:24] = 8.0
    low, high = (
        predicted_tree(logit[0, 0].numpy(), threshold, HOW).contrast
        for threshold in (0.7, 0.9)
    )
    assert low == high > HOW.contrast_margin
    assert suppress_uncertain(logit, 0.9, HOW)[1] == [True]
