"""Trainings of a real project, in real processes: how they end, and what follows."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from napari_cmunet.errors import WriteError
from napari_cmunet.gui.training.state import LEARNING, LEAVING_OUT, STARTING
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.project.models.promotion import (
    CANCELLED,
    DONE,
    PROMOTED,
    REFUSED,
    STOPPED,
    UNDECIDED,
)
from napari_cmunet.project.training.worker import TrainingProcess
from napari_cmunet.training import events
from napari_cmunet.training.events import BETTER, CANNOT_TELL, NOT_BETTER
from tests.gui.training.conftest import BARE, accept, settled, wait_until

pytestmark = pytest.mark.slow

QUICK_LEARNING = {"steps": 60, "learning_rate": 0.01}
LONG = {"steps": 100000}


def predictions(project, phantoms) -> bytes:
    """What the model in use finds, to the bit."""
    predictor = Predictor(load_model(project.models.folder()), torch.device("cpu"))
    return b"".join(predictor.predict(x).tobytes() for x, _ in phantoms[:3])


def journalled(project, what: str) -> list[dict]:
    return [entry.details for entry in project.journal() if entry.what == what]


def test_a_better_model_takes_over_and_goes_back_to_the_bit(
    make_project, add_model, make_training, phantoms
):
    project = make_project(15)
    add_model(project, "weak", knows_arteries=False)
    before = predictions(project, phantoms)
    training = make_training(project, **QUICK_LEARNING)
    used, ends, phases = [], [], set()
    training.model_changed.connect(lambda version: used.append(version.name))
    training.ended.connect(ends.append)
    training.changed.connect(
        lambda: phases.add(p.phase) if (p := training.state().progress) else None
    )

    assert training.start()
    assert not training.start()  # one at a time
    result = settled(training)

    assert result.kind == DONE
    assert result.verdict.patients == 15
    assert ends == [result]
    assert LEARNING in phases
    assert LEAVING_OUT not in phases
    first, *second = [d for d in journalled(project, "promoted") if "reason" in d]
    assert (used[0], first["against"]) == ("tuned-001", "weak")
    assert (first["outcome"], first["patients"]) == (BETTER, 15)
    assert first["dice"] > first["dice_before"]
    assert first["cldice"] > first["cldice_before"]
    # The second stage's model may be no better than the first one.
    assert result.decision == (PROMOTED if second else REFUSED), result.text
    *_, last = second or journalled(project, "refused")
    assert last["reason"] == result.verdict.text
    assert (last["gain"] > 0 and result.verdict.worst_change >= -0.01) == bool(second)
    after = predictions(project, phantoms)
    assert after != before

    for _ in used[:]:
        training.back()
        settled(training)
    assert predictions(project, phantoms) == before
    for _ in range(len(used) // 2):
        training.forward()
        settled(training)
    assert predictions(project, phantoms) == after
    weak = next(v for v in training.state().versions if v.name == "weak")
    training.choose(weak)
    settled(training)
    assert used[-1] == "weak"
    assert predictions(project, phantoms) == before


def test_a_model_that_learned_too_little_is_refused_and_kept(
    make_project, add_model, make_training
):
    project = make_project(15)
    add_model(project, "good", knows_arteries=True)
    training = make_training(project, start="random", width=4, grid=96, steps=1)
    training.start()
    result = settled(training)
    assert result.verdict.outcome == NOT_BETTER, result.text
    assert result.decision == REFUSED
    assert project.models.current.name == "good"
    assert "tuned-001" in project.models.names()
    (refused,) = journalled(project, "refused")
    assert refused["reason"] == result.verdict.text
    assert "Dice" in refused["reason"]
    # Kept, and to be had all the same.
    choice = next(v for v in training.state().versions if v.name == "tuned-001")
    training.choose(choice)
    settled(training)
    assert project.models.current.name == "tuned-001"


def test_too_few_patients_leave_it_to_the_reader(
    make_project, add_model, make_training, monkeypatch
):
    project = make_project(2)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project, steps=5)
    training.start()
    result = settled(training)
    assert result.verdict.outcome == CANNOT_TELL
    assert "too few patients" in result.text
    assert result.decision == UNDECIDED
    assert training.state().undecided == result.model
    assert project.models.current.name == "weak"

    def fail(*args, **kwargs):
        raise WriteError("models", "The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(project.models, "promote", fail)
        training.decide(True)
        settled(training)
    assert "The disk is full." in training.state().status
    assert training.state().undecided == result.model  # it is asked again

    training.decide(True)
    training.decide(False)  # while that is at work
    assert training.state().undecided == result.model
    settled(training)
    assert training.state().undecided == ""
    assert "is used from now on" in training.state().status
    assert project.models.current.name == result.model
    assert "user chose it" in journalled(project, "promoted")[-1]["reason"]


def test_one_patient_alone_tells_nothing(make_project, add_model, make_training):
    project = make_project(1)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project, steps=3)
    training.start()
    result = settled(training)
    assert "all labels are of one patient" in result.text
    training.decide(False)
    settled(training)
    assert project.models.current.name == "weak"
    assert "kept the former" in journalled(project, "refused")[-1]["reason"]


def test_few_patients_are_compared_by_models_that_never_saw_them(
    make_project, add_model, make_training, phantoms
):
    project = make_project(3)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project, steps=6)
    training.start()
    first = settled(training, 240)
    assert first.verdict.patients == 3
    assert "trained without" in first.text
    record = project.models.training(first.model)
    assert len(record["learned_patients"]) == len(record["left_out"]) == 3

    # The next one meets a model in use that has learned from all three. What that one
    # was worth on each without having seen it stands for it.
    training.start()
    second = settled(training, 240)
    assert second.verdict.patients == 3
    record = project.models.training(second.verdict.against)
    assert second.verdict.dice_before == pytest.approx(
        np.mean([x["dice"] for x in record["left_out"].values()])
    )
    assert "On 3 patients left out in turn" in second.text


def test_stop_keeps_the_best_so_far(make_project, add_model, make_training):
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project, **LONG)
    training.start()
    assert wait_until(lambda: _step(training) > 3)
    training.stop()
    result = settled(training)
    assert result.kind == STOPPED
    assert project.models.names() == ["tuned-001", "weak"]
    assert load_model(project.models.path("tuned-001")).card.labels == 4


def test_cancel_ends_it_within_two_seconds_and_keeps_nothing(
    make_project, make_training, clock
):
    project = make_project(2)
    training = make_training(project, **LONG)
    before = [entry.what for entry in project.journal()]
    training.start()
    assert wait_until(lambda: _step(training) > 3)
    with clock(2):
        training.cancel()
        result = settled(training)
    assert result.kind == CANCELLED
    assert project.models.names() == []
    assert [entry.what for entry in project.journal()] == before


def test_cancel_before_it_has_begun(make_project, make_training, clock):
    project = make_project(2)
    training = make_training(project)
    training.start()
    with clock(2):
        training.cancel()
        assert settled(training).kind == CANCELLED
    assert training.start()  # and the next one is free to begin
    training.cancel()


def test_labels_accepted_meanwhile_are_for_the_next_one(
    make_project, make_training, phantoms
):
    project = make_project(5, accepted=3)
    training = make_training(project, steps=2, validate=False)
    training.start()
    assert wait_until(lambda: _step(training) > 0)
    for image in project.images.ids()[3:5]:
        accept(project, image, phantoms)
        training.on_accepted()
    assert training.state().new_labels == 2
    result = settled(training)
    assert len(project.models.training(result.model)["labels"]) == 3
    assert training.state().new_labels == 2


def test_trainings_start_by_themselves(make_project, make_training, phantoms):
    project = make_project(4, accepted=1)
    project.change_settings(finetune_every=3)
    training = make_training(project, **BARE)
    training.start()
    settled(training)
    for image in project.images.ids()[1:3]:
        accept(project, image, phantoms)
        training.on_accepted()
        assert not training.running
    accept(project, project.images.ids()[3], phantoms)
    training.on_accepted()
    assert training.running
    result = settled(training)
    assert len(project.models.training(result.model)["labels"]) == 4
    assert training.state().new_labels == 0


def test_a_project_that_cannot_be_trained_says_why(make_project, make_training):
    project = make_project(1, accepted=0)
    training = make_training(project)
    training.start()
    result = settled(training)
    assert result.failed
    assert "no accepted label" in result.text
    assert result.decision == ""


def _step(training) -> int:
    progress = training.state().progress
    return progress.step if progress is not None else 0


def test_a_first_model_takes_over_while_the_training_goes_on(
    make_project, add_model, make_training, tiny_model
):
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project, steps=6)
    training.prepare()
    assert wait_until(lambda: training.state().plan is not None)
    plan = training.state().plan
    assert plan.possible
    assert "6 steps on all layers" in plan.text
    used, first, left = [], [], []
    training.model_changed.connect(lambda version: used.append(version.name))

    def watch():
        state = training.state()
        if state.first is not None:
            first.append(state.first)
        progress = state.progress
        if progress is not None and progress.phase != STARTING:  # else it is not shown
            left.append(progress.seconds_left)

    training.changed.connect(watch)
    training.start()
    result = settled(training, 240)
    assert first[0].model == "tuned-001"
    assert first[0].decision == PROMOTED, first[0].text
    assert used[0] == "tuned-001"
    assert result.model == "tuned-002"
    assert result.verdict.against == "tuned-001"
    assert result.verdict.patients == 4
    assert left == sorted(left, reverse=True)
    assert project.models.names() == ["tuned-001", "tuned-002", "weak"]


def test_a_time_too_short_is_said_and_nothing_begins(make_project, make_training):
    project = make_project(3)
    training = make_training(project, minutes=1e-5)
    training.start()
    result = settled(training)
    assert result.failed
    assert "too short to learn anything" in result.text
    assert project.models.names() == []


def test_cancelled_after_the_first_model_that_stays(
    make_project, add_model, make_training, clock
):
    project = make_project(4)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project, **LONG)
    used = []
    training.model_changed.connect(lambda version: used.append(version.name))
    training.start()
    assert wait_until(lambda: training.state().first is not None, 120)
    with clock(2):
        training.cancel()
        result = settled(training)
    assert result.decision == PROMOTED
    assert result.kind == CANCELLED
    assert training.state().status.startswith("Cancelled after the first model.")
    assert project.models.current.name == "tuned-001"
    assert used == ["tuned-001"]  # once: what is open is segmented again for it


def test_a_plan_of_former_labels_is_not_shown(
    make_project, make_training, phantoms, monkeypatch
):
    project = make_project(4, accepted=3)
    training = make_training(project)
    answered = []

    def plan(self, order):
        labels = len(project.reference.keys())
        time.sleep(0.2 if labels == 3 else 0.6)
        answered.append(labels)
        return events.Planned(labels, True, f"{labels} labels", 60.0)

    monkeypatch.setattr(TrainingProcess, "plan", plan)
    training.prepare()
    wait_until(lambda: False, 0.05)  # it has begun
    accept(project, project.images.ids()[3], phantoms)
    training.prepare()
    assert wait_until(lambda: answered == [3])
    wait_until(lambda: False, 0.1)
    assert training.state().plan is None
    assert wait_until(lambda: training.state().plan is not None)
    assert training.state().plan.text == "4 labels"
