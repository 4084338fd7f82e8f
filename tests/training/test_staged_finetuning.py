"""Fine-tuning in stages: folds, the mean of their networks, and the plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cmunet.errors import Cancelled, TrainingError
from napari_cmunet.training import adaptation, events, stage, staged_finetuning
from napari_cmunet.training.config import FinetuneConfig, FinetuneResult
from napari_cmunet.training.dataset import Label, prepare_labels
from napari_cmunet.training.evaluation.validation import folds_of
from napari_cmunet.training.finetuning import StartModel, model_card
from napari_cmunet.training.options import FinetuneOptions
from napari_cmunet.training.plan import (
    GRID_LABELS,
    LEAST_STEPS,
    QUICK_STEPS,
    fitting_steps,
    make_plan,
)
from napari_cmunet.training.stage import average_weights
from napari_cmunet.training.staged_finetuning import plan_stages, train_in_stages

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def draw(seed: int, patient: str, artery: bool = True) -> Label:
    """A winding dark vessel on a bright, noisy ground."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    bend = random.uniform(4, 9) * np.sin(columns / random.uniform(8, 14))
    mask = abs(rows - 32 - bend) < 3
    frame = np.where(mask, 70, 170) + random.normal(0, 8, mask.shape)
    mask &= artery
    return Label(frame.clip(0, 255).astype(np.uint8), mask, None, patient, f"{seed}")


@pytest.fixture
def start(tiny_model):
    return StartModel.load(FinetuneOptions(), tiny_model)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(
        staged_finetuning, "seconds_per_view", lambda start, device: 0.001
    )


def run(start, labels, validation=(), **options):
    found = list(
        train_in_stages(
            start,
            FinetuneOptions(**options),
            labels,
            list(validation),
            read=lambda at: [labels[i] for i in at],
            device=CPU,
        )
    )
    return found, [x for x in found if isinstance(x, FinetuneResult)]


def test_no_fold_learns_from_whom_it_leaves_out(start):
    labels = [draw(i, f"p{i // 2}") for i in range(10)]
    frames = prepare_labels(labels, start.preprocessing)
    folds = folds_of(frames)
    assert sorted(i for _, out in folds for i in out) == list(range(10))
    for train, out in folds:
        assert not {frames.patients[i] for i in train} & {
            frames.patients[i] for i in out
        }
        assert sorted(train + out) == list(range(10))


def test_one_patient_and_folds_without_an_artery_leave_nobody_out(start):
    one = prepare_labels([draw(i, "p") for i in range(3)], start.preprocessing)
    assert folds_of(one) == [([0, 1, 2], [])]
    empty = [draw(0, "a"), draw(1, "b", artery=False), draw(2, "c", artery=False)]
    frames = prepare_labels(empty, start.preprocessing)
    assert folds_of(frames) == [([0, 1, 2], [])]


def test_the_mean_of_weights():
    a = {"w": torch.tensor([1.0, 3.0]), "n": torch.tensor(4)}
    b = {"w": torch.tensor([3.0, 5.0]), "n": torch.tensor(4)}
    mean = average_weights([a, b])
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["n"] == 4


def test_a_quick_model_comes_first_and_everybody_is_left_out_once(start, short):
    labels = [draw(i, f"p{i}") for i in range(4)]
    found, results = run(start, labels, steps=6, batch=2)
    assert len(results) == 2
    for result in results:
        assert set(result.left_out) == {"p0", "p1", "p2", "p3"}
        assert result.dice == pytest.approx(
            np.mean([dice for dice, _ in result.left_out.values()])
        )
        assert 0 < result.operating_point.threshold < 1
    own = start.network().state_dict()
    quick, deep = (r.weights for r in results)
    assert torch.equal(quick["down_conv1.double_conv.double_conv.0.weight"],
                       own["down_conv1.double_conv.double_conv.0.weight"])  # fmt: skip
    assert not torch.equal(quick["conv_last.weight"], own["conv_last.weight"])
    assert not torch.equal(deep["conv_last.weight"], quick["conv_last.weight"])
    told = [x for x in found if isinstance(x, events.Stage)]
    assert [(s.name, s.steps_before, s.steps_total) for s in told] == [
        ("quick", 0, QUICK_STEPS + 6),
        ("deep", QUICK_STEPS, QUICK_STEPS + 6),
    ]
    steps = [x.step for x in found if isinstance(x, events.Step)]
    assert max(steps) == QUICK_STEPS


def train_to(monkeypatch, start, labels, made, starts, reason="done", **more):
    """Run a stage whose folds end at these weights, and return its result."""
    ends = iter(made)

    def train(*args, **kwargs):
        weights = next(ends)
        last = weights is made[-1]
        return FinetuneResult(weights, 2, 2, None, None, reason if last else "done")
        yield

    monkeypatch.setattr(stage, "finetune", train)
    frames = prepare_labels(labels, start.preprocessing)
    training = stage.train_stage(
        frames,
        FinetuneConfig(steps=6, wise_ft_prior=2.0),
        start=start,
        folds=folds_of(frames),
        read=lambda at: [labels[i] for i in at],
        starts=starts,
        device=CPU,
        **more,
    )
    with pytest.raises(StopIteration) as end:
        while True:
            next(training)
    return end.value.value.result


@pytest.fixture
def shifted(start, short):
    """Return a trained network's weights that call more pixels artery."""
    labels = [draw(i, f"p{i}") for i in range(6)]
    good = run(start, labels, steps=1)[1][0].weights

    def weights(by: float) -> dict[str, torch.Tensor]:
        bias = good["conv_last.bias"] + by * torch.tensor([0.0, 1.0])
        return good | {"conv_last.bias": bias}

    return labels, weights


def bias_of(weights: dict[str, torch.Tensor]) -> float:
    return float(weights["conv_last.bias"][1])


def test_the_time_left_falls_from_fold_to_fold(start, monkeypatch):
    """A fold's first step is slow, and between folds there are predictions."""
    now = 0.0
    monkeypatch.setattr(stage.time, "monotonic", lambda: now)

    def train(*args, **kwargs):
        nonlocal now
        began = now
        for step in range(1, 11):
            now += 2.0 if step == 1 else 1.0
            spent = now - began
            yield events.Step(step, 10, 0.5, spent, (10 - step) * spent / step)
        now += 2.0
        return FinetuneResult(args[0].state_dict(), 10, 10, None, None, "done")

    monkeypatch.setattr(stage, "finetune", train)
    frames = prepare_labels([draw(i, f"p{i}") for i in range(3)], start.preprocessing)
    training = stage.train_stage(
        frames,
        FinetuneConfig(steps=30),
        start=start,
        folds=folds_of(frames),
        read=lambda at: [],
        device=CPU,
    )
    steps = [x for x in training if isinstance(x, events.Step)]
    assert [x.step for x in steps] == list(range(1, 31))
    left = [x.seconds_left for x in steps]
    assert max(np.diff(left)) < 5
    assert left[-1] == 0
    # Halfway, what is left is about what has been spent.
    assert left[14] == pytest.approx(steps[14].seconds)


@pytest.mark.parametrize("after", [FinetuneResult, events.Stage])
@pytest.mark.parametrize("others", [[], [draw(9, "q")]])
def test_a_stop_between_the_stages_is_told(start, short, after, others):
    """No untrained model comes of it, whether or not patients are held out."""
    labels = [draw(i, f"p{i}") for i in range(3)]
    found = []

    def should_stop() -> bool:
        made = any(isinstance(x, FinetuneResult) for x in found)
        return made and isinstance(found[-1], after | events.Started)

    training = train_in_stages(
        start,
        FinetuneOptions(steps=3),
        labels,
        others,
        read=lambda at: [labels[i] for i in at],
        device=CPU,
        should_stop=should_stop,
    )
    for item in training:
        found.append(item)
    ended = [x for x in found if isinstance(x, events.Finished)]
    assert [x.reason for x in ended] == ["done", "stopped"]
    assert sum(isinstance(x, FinetuneResult) for x in found) == 1


@pytest.mark.parametrize("lost", [True, False])
def test_what_a_later_stage_loses_is_half_taken_back(start, shifted, monkeypatch, lost):
    labels, weights = shifted
    made = [weights(20 + fold if lost else 0) for fold in range(3)]
    before = [weights(-20 - fold if lost else -40) for fold in range(3)]
    result = train_to(monkeypatch, start, labels, made, before)
    assert bias_of(result.weights) == pytest.approx(bias_of(weights(0)), abs=1e-4)
    # Of six labels, the start counts as two in each stage.
    share = (1 / 16 + 1 / 4) / 2 if lost else 1 / 16
    assert result.start_share == pytest.approx(share)
    assert result.dice > 0.5
    assert set(result.left_out) == {label.patient for label in labels}


def test_nothing_is_taken_back_where_masks_leave_arteries_out(
    start, shifted, monkeypatch
):
    labels, weights = shifted
    made, before = [weights(20)] * 3, [weights(-20)] * 3
    result = train_to(monkeypatch, start, labels, made, before, prior=np.inf)
    assert bias_of(result.weights) == pytest.approx(bias_of(weights(20)), abs=1e-4)


def test_a_stage_that_is_stopped_in_its_last_fold_has_no_scores(
    start, shifted, monkeypatch
):
    labels, weights = shifted
    made, before = [weights(0), weights(0), weights(1)], [weights(0)] * 3
    result = train_to(monkeypatch, start, labels, made, before, reason="stopped")
    assert (result.reason, result.dice, result.left_out) == ("stopped", None, {})


def test_with_held_out_patients_all_others_are_learned(start, short):
    labels = [draw(i, f"p{i}") for i in range(3)]
    others = [draw(9, "q")]
    found, (quick, deep) = run(start, labels, others, steps=4, batch=2)
    assert quick.left_out == {}
    assert deep.dice is not None
    assert not any(isinstance(x, events.Fold) for x in found)


def test_a_start_that_knows_no_arteries_trains_on_all_labels_at_the_end(short):
    start = StartModel.load(FinetuneOptions(start="random", width=2, grid=64))
    labels = [draw(i, f"p{i}") for i in range(4)]
    found, (result,) = run(start, labels, steps=4, batch=2)
    assert set(result.left_out) == {"p0", "p1", "p2", "p3"}
    folds = [x for x in found if isinstance(x, events.Fold)]
    assert [(f.number, f.folds) for f in folds] == [(n, 4) for n in (1, 2, 3, 4)]
    assert max(x.steps for x in found if isinstance(x, events.Step)) == 16


def test_too_short_a_time_is_said_before_it_begins(start, monkeypatch):
    monkeypatch.setattr(
        staged_finetuning, "seconds_per_view", lambda start, device: 5.0
    )
    with pytest.raises(TrainingError, match="too short to learn anything"):
        run(start, [draw(0, "p")], minutes=1.0)


def test_the_plan_fits_its_time():
    whole = make_plan(18, 0.4)
    assert (whole.deep, whole.batch, whole.advice) == (76, 4, "")
    assert "76 steps" in str(whole)
    fits = make_plan(18, 0.4, minutes=10)
    assert replace(fits, seconds=whole.seconds) == whole
    assert make_plan(18, 0.4, quick=False).batch == 8
    tight = make_plan(18, 0.4, quick=False, minutes=4)
    assert (tight.deep, tight.batch) == (76, 4)
    some = make_plan(18, 1.0, minutes=5)
    assert LEAST_STEPS <= some.deep < 76
    assert some.seconds <= 300
    assert "all would take" in str(some)
    quick = make_plan(18, 2, minutes=5)
    assert (quick.quick, quick.deep) == (QUICK_STEPS, 0)
    half = make_plan(18, 5.5, minutes=5)
    assert (half.quick, half.deep) == (QUICK_STEPS // 2, 0)
    assert "left out" in str(quick)
    none = make_plan(18, 8, minutes=5)
    assert not none.possible
    assert "too short" in str(none)


@pytest.mark.parametrize("labels", [1, 5, 18, 50, 300])
@pytest.mark.parametrize("minutes", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.5, 2, 10])
def test_no_plan_promises_more_than_its_time(labels, minutes, seconds):
    plan = make_plan(labels, seconds, minutes=minutes)
    assert plan.seconds <= 60 * minutes + 1e-6
    assert plan.deep == 0 or plan.deep >= LEAST_STEPS


def test_folds_are_left_out_before_steps():
    folds = make_plan(9, 0.1, quick=False, trainings=5)
    assert (folds.trainings, folds.deep, folds.no_folds) == (5, 58, False)
    assert "5 times 58 steps" in str(folds)
    one = make_plan(9, 0.1, quick=False, trainings=5, minutes=1.5)
    assert (one.trainings, one.deep, one.no_folds) == (1, 58, True)
    assert "not compared" in str(one)
    none = make_plan(9, 1, quick=False, trainings=5, minutes=1)
    assert not none.possible
    assert not none.no_folds


def test_labels_that_are_seen_better_on_a_coarser_grid_are_learned_there(
    start, short, monkeypatch
):
    chosen = []

    def choose_grid(start, folds, *args):
        chosen.append([i for fold in folds for i in fold])
        return start.on_grid(48)

    monkeypatch.setattr(staged_finetuning, "choose_grid", choose_grid)
    labels = [draw(i, f"p{i}") for i in range(12)]
    found, (quick, deep) = run(start, labels, steps=6, batch=2)
    assert [len(sample) for sample in chosen] == [GRID_LABELS]
    assert (quick.grid, deep.grid) == (48, 48)
    card = model_card("new", start, FinetuneOptions(), 12, deep)
    assert card.preprocessing == replace(start.preprocessing, grid=48)
    first, second = (x.seconds for x in found if isinstance(x, events.Planned))
    assert second < first
    _, results = run(start, labels, steps=6, batch=2, grid=64)
    assert [r.grid for r in results] == [start.preprocessing.grid] * 2
    assert len(chosen) == 1


def test_without_a_training_the_weights_stay(start):
    labels = [draw(i, f"p{i}") for i in range(4)]
    _, (result,) = run(start, labels, train=False)
    own = start.network().state_dict()
    assert all(torch.equal(result.weights[name], own[name]) for name in own)
    assert set(result.left_out) == {"p0", "p1", "p2", "p3"}
    card = model_card("new", start, FinetuneOptions(), 4, result)
    assert card.description == "Adapted to 4 labels without a training."
    with pytest.raises(Cancelled):
        list(
            train_in_stages(
                start,
                FinetuneOptions(train=False),
                labels,
                [],
                read=lambda at: [labels[i] for i in at],
                device=CPU,
                should_stop=lambda: True,
            )
        )
    assert card.threshold == result.operating_point.threshold
    _, (result,) = run(start, labels[:1], train=False)
    assert result.left_out == {} and result.dice is None
    with pytest.raises(TrainingError, match="--start cmunet-artery"):
        run(StartModel.load(FinetuneOptions(start="random")), labels, train=False)
    with pytest.raises(TrainingError, match="whole masks"):
        run(start, labels, train=False, partial_labels=True)


def test_a_label_that_is_withdrawn_meanwhile_keeps_the_grid(start, short, monkeypatch):
    labels = [draw(i, f"p{i}") for i in range(6)]
    monkeypatch.setattr(
        staged_finetuning, "choose_grid", lambda start, *args: start.on_grid(48)
    )
    found = train_in_stages(
        start,
        FinetuneOptions(steps=6, batch=2),
        labels,
        [],
        read=lambda at: [labels[i] for i in at if i != 5],
        device=CPU,
    )
    results = [x for x in found if isinstance(x, FinetuneResult)]
    assert [r.grid for r in results] == [start.preprocessing.grid] * 2


def test_a_machine_that_is_less_busy_later_gets_the_steps_that_fit_then(
    start, monkeypatch
):
    speeds = iter([3.0, 0.001])
    monkeypatch.setattr(
        staged_finetuning, "seconds_per_view", lambda start, device: next(speeds)
    )
    labels = [draw(i, f"p{i}") for i in range(4)]
    found, results = run(start, labels, steps=30, minutes=5)
    (planned,) = (x for x in found if isinstance(x, events.Planned))
    assert "left out" in planned.text
    assert [r.steps for r in results] == [QUICK_STEPS, 30]
    stages = [x for x in found if isinstance(x, events.Stage)]
    assert [s.steps_total for s in stages] == [QUICK_STEPS, QUICK_STEPS + 30]


def test_on_a_machine_that_is_busier_later_the_quick_model_stays(start, monkeypatch):
    speeds = iter([0.001, 60.0])
    monkeypatch.setattr(
        staged_finetuning, "seconds_per_view", lambda start, device: next(speeds)
    )
    plan = plan_stages(start, FinetuneOptions(minutes=5), 4, 4, 1.2)
    monkeypatch.setattr(staged_finetuning, "plan_stages", lambda *args: plan)
    assert LEAST_STEPS <= plan.deep < 48
    found, results = run(start, [draw(i, f"p{i}") for i in range(4)], minutes=5)
    assert [r.steps for r in results] == [QUICK_STEPS]
    assert any("busier" in x.text for x in found if isinstance(x, events.Note))


def test_the_deep_stage_is_planned_anew_for_the_time_that_is_left():
    plan = make_plan(18, 1.0, minutes=5)
    assert LEAST_STEPS <= plan.deep < 76
    assert fitting_steps(plan, 76, 1.1, 250) == plan.deep
    assert fitting_steps(plan, 76, 0.1, 250) == 76
    # Too little time to teach anything: the quick model stays.
    assert fitting_steps(plan, 76, 10.0, 100) == 0
    assert fitting_steps(plan, 76, 1.0, -30) == 0
    assert fitting_steps(replace(plan, deep=0), 76, 1.0, 60) == 0
    assert fitting_steps(replace(plan, deep=0), 10, 0.1, 250) == 10
    # Where it was left out, its batches are those that are counted with.
    assert make_plan(18, 2, minutes=5).batch == make_plan(18, 0.4).batch == 4


def test_of_many_labels_whole_patients_adapt(start, monkeypatch):
    monkeypatch.setattr(adaptation, "ADAPTING_LABELS", 9)
    labels = [draw(i, f"p{i // 2}") for i in range(12)]
    _, (result,) = run(start, labels, train=False)
    assert len(result.left_out) == 3  # one of two labels in each fold: two do not fit
