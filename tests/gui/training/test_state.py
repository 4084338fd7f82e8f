"""What the section says, and which buttons are offered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_cmunet.gui.training.state import (
    TrainingProgress,
    TrainingState,
    progress_after,
)
from napari_cmunet.project.models.history import ModelVersion
from napari_cmunet.project.models.promotion import (
    CANCELLED,
    DIED,
    DONE,
    PROMOTED,
    REFUSED,
    UNDECIDED,
    TrainingResult,
)
from napari_cmunet.project.settings import Settings
from napari_cmunet.training import events

IDLE = TrainingState(Settings(), 12, 8, 3, ModelVersion("cmunet-artery", "", True))
TOLD = (
    events.Note("some labels"),
    events.Fold(1, 4),
    events.Step(5, 20, 0.8, 1.0, 40.0),
    events.Fold(2, 4),
    events.Step(3, 20, 0.9, 1.0, 30.0),
    events.Started(20, 12, 8, 3, 2, "cpu", "weights"),
    events.Step(1, 20, 0.5, 1.0, 100.0),
    events.Step(9, 20, 0.4, 1.0, 50.0),
    events.Validated(10, 0.8, 0.7, 0.9, 0.75, True),
    events.Validated(20, 0.78, 0.7, 0.9, 0.75, False),
    events.Comparing("tuned-001", "cmunet-artery"),
)


def progress_at(count: int) -> TrainingProgress:
    progress = TrainingProgress()
    for event in TOLD[:count]:
        progress = progress_after(progress, event)
    return progress


def ended(decision: str, kind: str = DONE, model: str = "tuned-001") -> TrainingState:
    result = TrainingResult(kind, "Better. The figures.", model, decision=decision)
    return replace(IDLE, result=result)


@pytest.mark.parametrize(
    ("count", "text", "keep"),
    [
        (1, "Starting", False),
        (3, "left out in turn, to measure on those left out (1 of 4). 40 s", False),
        (5, "(2 of 4). 30 s left", False),
        (8, "Learning from 12 labels of 8 patients, measured on 3 labels of 2 other "
            "patients. 50 s left", True),
        (11, "Comparing with cmunet-artery", False),
    ],
)  # fmt: skip
def test_a_training_at_work(count, text, keep):
    shown = replace(IDLE, progress=progress_at(count))
    assert text in shown.status
    assert shown.running
    assert not shown.can_start
    assert shown.can_cancel
    assert shown.can_stop == keep


def test_each_part_draws_its_own_loss_and_the_best_look_is_known():
    assert progress_at(5).losses == ((3, 0.9),)
    assert progress_at(11).losses == ((1, 0.5), (9, 0.4))
    assert progress_at(11).best.step == 10


def test_what_a_training_says_in_words_is_shown_until_its_next_part():
    short = events.Note("Out of memory: batches are learned from in 2 parts.")
    progress = progress_after(progress_at(7), short)
    shown = replace(IDLE, progress=progress).status
    assert shown.endswith(f"2 min left. {short.text}")
    progress = progress_after(progress, events.Step(2, 20, 0.5, 1.0, 90.0))
    assert short.text in replace(IDLE, progress=progress).status
    progress = progress_after(progress, events.Comparing("tuned-001", "cmunet-artery"))
    assert short.text not in replace(IDLE, progress=progress).status
    progress = progress_after(progress_after(progress_at(3), short), events.Fold(2, 4))
    assert short.text not in replace(IDLE, progress=progress).status


def test_stopping_and_cancelling():
    working = replace(IDLE, progress=progress_at(8))
    shown = replace(working, stopping=True)
    assert "best model so far is kept" in shown.status
    assert (shown.can_stop, shown.can_cancel) == (False, True)
    shown = replace(working, cancelling=True)
    assert shown.status == "Cancelling…"
    assert (shown.can_stop, shown.can_cancel) == (False, False)


@pytest.mark.parametrize(
    ("state", "text", "failed"),
    [
        (
            replace(ended(PROMOTED), current=ModelVersion("tuned-001")),
            "Better: tuned-001 is used from now on. "
            "Next: open an unlabelled image and see "
            "what it has learned.",
            False,
        ),
        (
            ended(PROMOTED),  # and then gone back from
            "Better: tuned-001 was used, and set aside again.",
            False,
        ),
        (
            ended(REFUSED),
            "Better: tuned-001 is not used; it stays in the list. Next: label images "
            "of other patients, then fine-tune again.",
            False,
        ),
        (
            ended(UNDECIDED),
            "Better: tuned-001 is ready. Compare it on this image (I), then decide.",
            False,
        ),
        (ended("", DIED, ""), "Better. The figures.", True),
        (ended("", CANCELLED, ""), "Better. The figures.", False),
    ],
)
def test_a_training_that_ended(state, text, failed):
    shown = state
    assert shown.status == text
    assert shown.failed == failed
    assert shown.figures == ("The figures." if state.result.model else "")
    assert bool(shown.undecided) == (state.result.decision == UNDECIDED)
    assert shown.can_start


def test_labels_and_what_they_are_for():
    assert IDLE.labels_text == "12 labels of 8 patients, 3 of them new."
    working = replace(IDLE, progress=progress_at(8), new_labels=2)
    assert (
        "2 accepted since the training began: for the next one" in working.labels_text
    )
    none = replace(IDLE, labels=0, patients=0, new_labels=0)
    assert "No label yet" in none.labels_text
    assert not none.can_start
    for patients in range(1, events.ENOUGH_PATIENTS):
        few = replace(IDLE, patients=patients).status
        assert f"fewer than {events.ENOUGH_PATIENTS} patients" in few
    assert replace(IDLE, patients=events.ENOUGH_PATIENTS).status == ""


def test_versions():
    versions = (ModelVersion("cmunet-artery", "", True), ModelVersion("tuned-001"))
    shown = replace(IDLE, versions=versions, has_newer=True)
    assert tuple(v.name for v in shown.versions) == ("cmunet-artery", "tuned-001")
    assert shown.versions.index(shown.current) == 0
    assert (shown.can_go_back, shown.can_go_forward) == (False, True)
    assert shown.can_choose
    assert not replace(IDLE, versions=versions, busy=True).can_choose


STAGES = (
    events.Planned(12, True, "About 3 min: 84 steps.", 180.0),
    events.Stage(events.QUICK_STAGE, 0, 80, 150.0),
    events.Started(60, 12, 8, 0, 0, "cpu", "weights"),
    events.Fold(1, 3),
    events.Step(10, 60, 0.9, 5.0, 25.0),
    events.Fold(2, 3),
    events.Step(30, 60, 0.7, 15.0, 40.0),
    events.Comparing("tuned-001", "cmunet-artery"),
    events.Verdict("tuned-001", "cmunet-artery", "", events.BETTER, "Better.", 8, 0.8,
                   0.7, 0.8, 0.7),
    events.Stage(events.DEEP_STAGE, 60, 80, 10.0),
    events.Started(20, 12, 8, 0, 0, "cpu", "weights"),
    events.Step(5, 20, 0.5, 5.0, 90.0),
    events.Comparing("tuned-002", "tuned-001"),
)  # fmt: skip


def test_stages_make_one_curve_and_a_time_left_that_falls():
    progress, left = TrainingProgress(), []
    for event in STAGES:
        progress = progress_after(progress, event)
        left.append(progress.seconds_left)
    assert progress.losses == ((10, 0.9), (30, 0.7), (65, 0.5))
    assert progress.steps == 80
    assert [(v.step, v.dice) for v in progress.validations] == [(30, 0.8)]
    assert left == sorted(left, reverse=True)
    assert left[0] == 180
    # A later plan, after the choice of the grid, holds whatever the first one said.
    later = progress_after(progress_after(TrainingProgress(), STAGES[0]),
                           events.Planned(12, True, "", 300.0))  # fmt: skip
    assert (later.seconds_left, later.pace, later.labels) == (300.0, 1.0, 12)
    assert left[-1] == 100


def test_the_first_model_is_told_while_all_layers_are_trained():
    progress = progress_after(TrainingProgress(), STAGES[0])
    assert replace(IDLE, progress=progress).status == "About 3 min: 84 steps."
    for event in STAGES[1:3]:
        progress = progress_after(progress, event)
    shown = replace(IDLE, progress=progress).status
    assert (
        shown == "Training a first model on 12 labels (last layers only). 3 min left."
    )
    for event in STAGES[3:9]:
        progress = progress_after(progress, event)
    first = TrainingResult(DONE, "Better. On 8.", "tuned-001", decision=PROMOTED)
    used = ModelVersion("tuned-001")
    state = replace(IDLE, progress=progress, first=first, current=used)
    assert state.status.startswith("Starting the training of all layers… 3 min left. ")
    assert not replace(state, stopping=True).can_stop
    for event in STAGES[9:12]:
        progress = progress_after(progress, event)
    state = replace(state, progress=progress)
    shown = state
    assert shown.status == (
        "Training all layers on 12 labels. 2 min left. Better: tuned-001 is "
        "used from now on."
    )
    assert shown.can_stop


def test_after_the_last_comparison_nothing_can_be_stopped():
    progress = TrainingProgress()
    for event in (*STAGES, replace(STAGES[8], model="tuned-002")):
        progress = progress_after(progress, event)
    state = replace(IDLE, progress=progress)
    assert state.status == "Finishing…"
    assert state.can_cancel and not state.can_stop


def test_a_refused_model_that_is_chosen_is_said_to_be_in_use():
    state = replace(ended(REFUSED), current=ModelVersion("tuned-001"))
    assert state.status.startswith("Better: tuned-001 is used all the same.")


def test_a_cancelled_second_stage_is_told_beside_the_first_model():
    state = ended(PROMOTED, CANCELLED)
    state = replace(state, current=ModelVersion("tuned-001"))
    assert state.status.startswith("Cancelled after the first model. Better: tuned-001")
    discarded = TrainingResult(CANCELLED, "Cancelled.", "tuned-001")
    assert replace(IDLE, result=discarded).status == "Cancelled."


def test_the_plan_is_told_before_the_start():
    plan = events.Planned(12, True, "About 3 min: 84 steps.", 180.0)
    assert replace(IDLE, plan=plan).status == plan.text
    after = replace(ended(UNDECIDED), plan=plan).status
    assert after.splitlines()[-1] == f"Next training: {plan.text}"
    learned = replace(ended(PROMOTED), plan=plan, new_labels=0)
    assert "Next training" not in learned.status


def test_the_time_left_stays_within_the_limit_and_falls_between_events():
    progress = TrainingProgress(limit=120.0)
    for event in (*STAGES[:5], events.Step(20, 60, 0.8, 30.0, 500.0)):
        progress = progress_after(progress, event)
        assert (progress.seconds_left or 0.0) <= 120
    left = progress.seconds_left
    assert 0 < progress.later(20.0).seconds_left < left
    # The longer the estimate, the slower: it ends with the training, not before.
    slow = progress_after(TrainingProgress(), events.Planned(12, True, "", 100.0))
    slow = progress_after(slow, events.Stage(events.DEEP_STAGE, 0, 80, 0.0))
    slow = progress_after(slow, events.Step(5, 80, 0.9, 5.0, 200.0))
    assert slow.seconds_left == 100
    assert slow.later(100.0).seconds_left == pytest.approx(50)
    fast = progress_after(slow.later(100.0), events.Step(60, 80, 0.9, 105.0, 20.0))
    assert fast.later(5.0).seconds_left == pytest.approx(15)


def test_labels_that_are_the_models_own_masks_are_told_in_the_headline():
    verdict = events.Verdict(
        "tuned-001", "cmunet-artery", "", events.NOT_BETTER, "Not better.", 4,
        0.985, 0.999, 0.98, 0.998,
    )  # fmt: skip
    result = TrainingResult(DONE, verdict.text, "tuned-001", verdict, REFUSED)
    status = replace(IDLE, result=result).status
    assert "hardly differ from what the model in use finds" in status
    assert "other patients" not in status
    result = replace(result, verdict=replace(verdict, dice_before=0.9))
    assert "label images of other patients" in replace(IDLE, result=result).status
