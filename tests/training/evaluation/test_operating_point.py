"""The grid and the operating point that left-out patients choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cmunet.model.card import Postprocessing
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.preprocess import Geometry
from napari_cmunet.training.dataset import Label
from napari_cmunet.training.evaluation.operating_point import (
    GRIDS,
    LeftOutPredictions,
    adapt,
    choose_grid,
)
from napari_cmunet.training.finetuning import StartModel
from napari_cmunet.training.options import FinetuneOptions

CPU = torch.device("cpu")


@pytest.fixture
def start(tiny_model):
    return StartModel.load(FinetuneOptions(), tiny_model)


@pytest.fixture
def faint(monkeypatch):
    """Every network calls a vessel 0.45 and its surroundings 0.1."""

    def predict_logit(self, frame):
        logit = torch.from_numpy(np.where(frame < 100, 0.45, 0.1)).logit()[None, None]
        return logit, Geometry(frame.shape, frame.shape, frame.shape)

    monkeypatch.setattr(Predictor, "predict_logit", predict_logit)


def predict_always(monkeypatch, logit: np.ndarray) -> None:
    """Let every network predict this logit, times the frame's first pixel if not 0."""

    def predict_logit(self, frame):
        geo = Geometry(frame.shape, frame.shape, frame.shape)
        scale = int(frame[0, 0]) or 1
        return torch.from_numpy(logit)[None, None] * scale, geo

    monkeypatch.setattr(Predictor, "predict_logit", predict_logit)


def with_cleanup(start: StartModel, how: Postprocessing) -> StartModel:
    card = replace(start.model.card, postprocessing=how)
    return replace(start, model=replace(start.model, card=card))


def faint_labels(count: int) -> list[Label]:
    mask = np.zeros((32, 32), bool)
    mask[14:18] = True
    frame = np.where(mask, 50, 200).astype(np.uint8)
    return [Label(frame, mask, None, f"p{i}", f"{i}") for i in range(count)]


def left_out(start, labels, **more):
    found = LeftOutPredictions(start, lambda at: [labels[i] for i in at], CPU, **more)
    half = len(labels) // 2
    folds = [range(half), range(half, len(labels))]
    found.predict(start.network(), folds, 0.0)
    return found


def test_labels_draw_the_threshold_to_where_they_want_it(start, faint):
    own = start.threshold(0.0)
    few, many = left_out(start, faint_labels(2)), left_out(start, faint_labels(60))
    assert own == 0.5
    assert 0.45 < few.operating_point(0.0).threshold < own
    assert many.operating_point(0.0).threshold == 0.45
    held = left_out(start, faint_labels(60), prior=np.inf)
    assert held.operating_point(0.0).threshold == own


@pytest.mark.parametrize("traced", [True, False])
def test_labels_choose_how_many_side_branches_are_kept(start, monkeypatch, traced):
    logit = np.full((64, 64), -8.0, np.float32)
    logit[28:36, 2:62] = 0.5
    logit[30:34, 2:62] = 8.0
    main = logit > 0
    logit[36:46, 30:33] = 1.8  # a twig, kept by the start
    start = with_cleanup(start, Postprocessing(contrast_margin=0.0))
    predict_always(monkeypatch, logit)
    mask = logit > 0 if traced else main
    frame = np.zeros((64, 64), np.uint8)
    found = left_out(start, [Label(frame, mask, None, f"p{i}", "") for i in range(60)])
    chosen = found.operating_point(0.0).postprocessing
    assert (chosen.twig_margin > 1.8) != traced
    assert start.postprocessing == replace(chosen, twig_margin=1.35)
    dice, cldice = found.scores(0.0)["p0"]
    assert dice > 0.99 and cldice == 1.0  # but for the pixels at its joint


def test_a_margin_that_the_labels_keep_does_not_drift(start, faint):
    start = with_cleanup(start, Postprocessing(contrast_margin=0.0))
    point = left_out(start, faint_labels(60)).operating_point(0.0)
    assert point.threshold < start.threshold(0.0)
    assert point.postprocessing == start.postprocessing


def test_labels_of_one_unbranched_vessel_show_contrast(start, monkeypatch):
    logit = np.full((64, 64), -8.0, np.float32)
    logit[30:34, 2:62] = 4.0
    start = with_cleanup(start, Postprocessing())
    predict_always(monkeypatch, logit)
    frame = np.zeros((64, 64), np.uint8)
    labels = [Label(frame, logit > 0, None, f"p{i}", "") for i in range(6)]
    found = left_out(start, labels)
    assert found.scores(0.0)["p0"] == (1.0, 1.0)
    limit = found.operating_point(0.0).postprocessing.contrast_margin
    assert 0 < limit < 3.0
    # A frame that the network misses does not lower it further.
    missed = replace(labels[0], mask=np.roll(logit > 0, 20, 0), patient="missed")
    found = left_out(start, [*labels, missed])
    assert found.operating_point(0.0).postprocessing.contrast_margin == limit


@pytest.mark.parametrize(("confidence", "limit"), [(40.0, 2.9), (5.0, 1.12)])
def test_less_confident_networks_have_a_lower_limit_of_contrast(
    start, monkeypatch, confidence, limit
):
    logit = np.full((64, 64), -8.0, np.float32)
    logit[30:34, 2:62] = confidence
    logit[34:62, 30:34] = confidence
    start = with_cleanup(start, Postprocessing(contrast_margin=2.9))
    predict_always(monkeypatch, logit)
    frame = np.zeros((64, 64), np.uint8)
    found = left_out(
        start, [Label(frame, logit > 0, None, f"p{i}", "") for i in (0, 1)]
    )
    how = found.operating_point(0.0).postprocessing
    assert how.contrast_margin == limit
    assert replace(how, contrast_margin=2.9) == start.postprocessing


def test_a_left_out_frame_of_less_contrast_than_others_is_not_called_empty(
    start, monkeypatch
):
    logit = np.full((64, 64), -2.0, np.float32)
    logit[30:34, 2:62] = 2.0
    logit[34:62, 30:34] = 2.0
    start = with_cleanup(start, Postprocessing(core_margin=0.5))
    predict_always(monkeypatch, logit)
    labels = []
    for i, confidence in enumerate([1, 3, 3, 3]):
        frame = np.full((64, 64), confidence, np.uint8)
        labels.append(Label(frame, logit > 0, None, f"p{i}", ""))
    found = left_out(start, labels)
    assert found.operating_point(0.0, 0).postprocessing.contrast_margin > 0
    assert found.scores(0.0)["p0"] == (1.0, 1.0)


def test_no_fold_is_scored_at_a_threshold_that_it_chose(start, faint):
    labels = faint_labels(60)
    for i in range(30, 60):  # in the other fold there is nothing to find
        labels[i] = replace(labels[i], mask=np.zeros((32, 32), bool))
    found = left_out(start, labels)
    scores = found.scores(0.0)
    assert found.operating_point(0.0, but=1).threshold <= 0.46
    assert found.operating_point(0.0, but=0).threshold == 0.5  # nothing helps
    assert scores["p0"] == (0.0, 0.0)  # missed, at what the others chose


def test_what_was_not_reviewed_does_not_count(start, faint):
    labels = faint_labels(4)
    seen = np.zeros((32, 32), bool)
    seen[:, :10] = True
    wrong = np.zeros((32, 32), bool)
    wrong[14:18, :10] = True
    labels = [replace(x, mask=wrong, reviewed=seen) for x in labels]
    assert left_out(start, labels * 40).scores(0.0)["p0"] == (1.0, 1.0)


@pytest.fixture
def sharp(monkeypatch):
    """Every network finds a vessel on one grid, and half of it on others."""

    def on(grid: int) -> None:
        def predict_logit(self, frame):
            found = np.where(frame < 100, 0.9, 0.1)
            if self.card.preprocessing.grid != grid:
                found[:, frame.shape[1] // 2 :] = 0.1
            geo = Geometry(frame.shape, frame.shape, frame.shape)
            return torch.from_numpy(found).logit()[None, None], geo

        monkeypatch.setattr(Predictor, "predict_logit", predict_logit)

    return on


def adapted(start, labels, folds, **more):
    return adapt(start, folds, lambda at: [labels[i] for i in at], CPU, **more)


def grid_of_training(start, labels, folds) -> int:
    found = choose_grid(start, folds, lambda at: [labels[i] for i in at], CPU)
    return found.preprocessing.grid


PAIRS = [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("grid", [320, *GRIDS])
def test_labels_choose_the_grid_without_a_training(start, sharp, grid):
    sharp(grid)
    labels = faint_labels(6)
    found = adapted(start.on_grid(320), labels, PAIRS)
    assert found.start.preprocessing.grid == grid
    assert found.scores == {f"p{i}": (1.0, 1.0) for i in range(6)}
    assert grid_of_training(start.on_grid(320), labels, PAIRS) == grid
    kept = adapted(start.on_grid(320), labels, PAIRS, keep_grid=True)
    assert kept.start.preprocessing.grid == 320


def test_a_fold_does_not_choose_the_grid_that_it_is_scored_on(start, sharp):
    sharp(GRIDS[0])
    labels = faint_labels(6)
    for i in range(4):  # nothing is to be found, on either grid
        labels[i] = replace(labels[i], mask=np.zeros((32, 32), bool))
    found = adapted(start.on_grid(320), labels, PAIRS)
    assert found.scores["p4"][0] == pytest.approx(2 / 3)  # on the start's own grid
    # Only those of the last fold are seen better on the other.
    assert grid_of_training(start.on_grid(320), labels, PAIRS) == 320


def test_frames_of_one_patient_have_one_say(start, sharp):
    sharp(GRIDS[0])
    labels = [replace(x, patient="same") for x in faint_labels(6)]
    for other in faint_labels(3):  # what is found on the start's grid is all
        half = other.mask.copy()
        half[:, 16:] = False
        labels.append(replace(other, mask=half))
    found = adapted(start.on_grid(320), labels, [list(range(9))])
    assert found.start.preprocessing.grid == 320
    assert found.scores == {}


def test_labels_that_cannot_be_read_choose_nothing(start, sharp):
    sharp(GRIDS[0])
    found = adapted(start.on_grid(320), [], [[], []])
    assert found.start.preprocessing.grid == 320


def test_a_finer_grid_than_the_start_has_is_not_tried(start, sharp):
    sharp(GRIDS[0])
    own = GRIDS[0] // 2
    found = adapted(start.on_grid(own), faint_labels(4), [[0, 1], [2, 3]])
    assert found.start.preprocessing.grid == own


def test_a_label_that_is_withdrawn_between_the_grids_has_no_say(start, sharp):
    sharp(GRIDS[0])
    labels, reads = faint_labels(6), []

    def read(at):
        reads.append(at)
        # Three folds on the start's grid, then three on the other.
        return [labels[i] for i in at if len(reads) <= 3 or i != 5]

    found = adapt(start.on_grid(320), PAIRS, read, CPU)
    assert found.start.preprocessing.grid == GRIDS[0]
    assert set(found.scores) == {f"p{i}" for i in range(5)}
