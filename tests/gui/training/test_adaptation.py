"""A model that adapts to the first labels by itself, in a real process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_cmunet.errors import TrainingError
from napari_cmunet.gui.training.section import FinetuneSection
from napari_cmunet.model.card import read_card
from napari_cmunet.model.registry import load_model, save_model, user_models_folder
from napari_cmunet.project.models.promotion import (
    CANCELLED,
    DONE,
    NOTICEABLE_GAIN,
    PROMOTED,
    UNDECIDED,
    TrainingResult,
    promote_or_discard,
)
from napari_cmunet.project.training.finetuning import load_start
from napari_cmunet.project.training.worker import TrainingProcess
from napari_cmunet.training import events
from napari_cmunet.training.evaluation.comparison import judge
from napari_cmunet.training.events import BETTER, CANNOT_TELL, NOT_BETTER
from napari_cmunet.training.options import CURRENT, FinetuneOptions
from tests.gui.training.conftest import accept, wait_until

pytestmark = pytest.mark.slow

UNDECIDED_RESULT = TrainingResult(DONE, "", "tuned-001", decision=UNDECIDED)


@pytest.fixture
def timid(tiny_model):
    """An installed model that finds arteries, at a threshold that misses many."""
    model = load_model(tiny_model)
    folder = user_models_folder() / "timid"
    folder.mkdir(parents=True)
    card = replace(model.card, name="timid", threshold=0.98)
    save_model(folder, model.network.state_dict(), card)
    yield "timid"
    shutil.rmtree(folder)


@pytest.fixture
def adapting(make_project, make_training, timid, phantoms):
    """A project whose model misses much, no label yet; and how to accept the next."""
    project = make_project(9, accepted=0)
    project.models.promote(timid, installed=True)
    project.change_settings(adapt=True)
    training = make_training(project)
    images = iter(project.images.ids())

    def accept_next(count: int = 1) -> None:
        for _ in range(count):
            accept(project, next(images), phantoms)
        training.on_accepted()

    return project, training, accept_next


def test_the_first_labels_adapt_the_model_without_a_training(adapting):
    project, training, accept_next = adapting
    used = []
    training.model_changed.connect(lambda version: used.append(version.name))
    accept_next(2)
    assert not training.state().adapting
    accept_next(4)
    state = training.state()
    assert state.adapting and not state.running and state.can_start
    assert "Adapting the model to 6 labels" in state.status
    assert wait_until(lambda: used)
    assert used == ["adapted-001"]
    folder, before = project.models.path("adapted-001"), user_models_folder() / "timid"
    own, other = load_model(folder), load_model(before)
    for name, tensor in other.network.state_dict().items():
        assert own.network.state_dict()[name].equal(tensor)
    assert own.card.threshold < read_card(before).threshold
    state = training.state()
    assert state.result.decision == PROMOTED
    assert "Nothing was trained" in state.result.text
    assert state.new_labels == 6  # no training has learned from them
    # Not at each label, but once there are half as many patients more.
    accept_next(2)
    assert not training.state().adapting
    accept_next()
    assert training.state().adapting


def test_an_adapted_model_that_is_not_better_leaves_nothing(
    make_project, make_training, phantoms, tiny_model
):
    project = make_project(3)
    project.change_settings(adapt=True)
    masks = [np.zeros_like(mask) for _, mask in phantoms]  # nothing to gain
    for image in project.images.ids():
        accept(project, image, phantoms, masks)
    training = make_training(project)
    training.on_accepted()
    assert training.state().adapting
    assert wait_until(lambda: not training.state().adapting)
    assert project.models.names() == []
    assert project.models.current.name == tiny_model.name
    assert training.state().result is None
    assert training.state().status.startswith("Your labels chose no better threshold")


def test_a_training_comes_before_it(adapting):
    project, training, accept_next = adapting
    accept_next(3)
    assert training.state().adapting
    assert training.start()
    assert training.running and not training.state().adapting
    assert wait_until(lambda: not training.running)
    assert "adapted-001" not in project.models.names()
    # It is tried again, and the verdict stays to be read.
    state = replace(training.state(), adapting=True)
    assert state.status.startswith(replace(state, adapting=False).status.split("\n")[0])
    assert "Adapting the model to 3 labels" in state.status


@pytest.mark.parametrize("after", [events.Saved, events.Comparing, events.Verdict])
def test_cancelled_at_any_time_it_leaves_nothing(adapting, monkeypatch, after):
    project, training, accept_next = adapting
    next_event, cancelled = TrainingProcess.next_event, []

    def spy(self):
        event = next_event(self)
        if isinstance(event, after):
            cancelled.append(event)
            self.cancel()
        return event

    monkeypatch.setattr(TrainingProcess, "next_event", spy)
    accept_next(6)
    assert wait_until(lambda: cancelled)
    assert wait_until(lambda: not project.models.names())
    wait_until(lambda: False, 0.5)
    assert project.models.current.name == "timid"
    assert training.state().result is None


def test_a_decision_that_is_due_is_not_taken_away(adapting, monkeypatch):
    _, training, accept_next = adapting
    undecided = replace(training.state(), result=UNDECIDED_RESULT)
    monkeypatch.setattr(training, "state", lambda: undecided)
    accept_next(6)
    monkeypatch.undo()
    assert not training.state().adapting


def test_who_does_not_want_it_ends_it(adapting):
    project, training, accept_next = adapting
    accept_next(3)
    assert training.state().can_cancel
    training.change_settings(adapt=False)
    assert wait_until(lambda: not training.state().adapting)
    assert not project.settings.adapt
    accept_next(3)
    assert not training.state().adapting


def test_who_goes_back_is_left_alone(adapting):
    project, training, accept_next = adapting
    accept_next(6)
    assert wait_until(lambda: project.models.current.name == "adapted-001")
    assert wait_until(
        lambda: not training.state().adapting and not training.state().busy
    )
    training.back()
    assert wait_until(lambda: project.models.current.name == "timid")
    accept_next(3)
    assert not training.state().adapting


def test_the_panel_says_so_and_can_cancel_it(adapting, qtbot):
    _, training, accept_next = adapting
    section = FinetuneSection(training)
    qtbot.addWidget(section)
    section.show()
    assert not section.cancel.isVisible()
    accept_next(3)
    qtbot.waitUntil(section.cancel.isVisible)
    assert section.start.isEnabled() and not section.stop.isVisible()
    assert "Adapting the model to 3 labels" in section.status.text()
    qtbot.mouseClick(section.cancel, Qt.MouseButton.LeftButton)
    assert not training.state().adapting
    qtbot.waitUntil(lambda: not section.cancel.isVisible())
    assert "Adapting" not in section.status.text()
    accept_next()  # it is not wanted again for a single label more
    assert not training.state().adapting


def test_a_choice_of_the_reader_is_not_overruled(adapting):
    project, training, accept_next = adapting
    accept_next(6)
    assert wait_until(lambda: project.models.current.name == "adapted-001")
    assert wait_until(lambda: not training.state().adapting)
    accept_next(3)
    assert training.state().adapting
    assert wait_until(lambda: not training.state().busy)
    training.back()
    assert not training.state().adapting
    assert wait_until(lambda: project.models.current.name == "timid")
    wait_until(lambda: False, 1)
    assert project.models.current.name == "timid"


def test_an_adapted_model_is_trained_and_adapted_from_what_it_was(adapting):
    project, _, accept_next = adapting
    accept_next(6)
    assert wait_until(lambda: project.models.current.name == "adapted-001")
    options = FinetuneOptions(start=CURRENT)
    start, parent = load_start(project, options)
    assert start.model.card.name == "timid" and parent is None
    add_trained(project, "adapted-001")
    with pytest.raises(TrainingError, match="has learned from labels"):
        load_start(project, replace(options, train=False))
    start, parent = load_start(project, options)
    assert parent.name == "trained"


def add_trained(project, name: str) -> None:
    """Put a model to use that a training made of another one."""
    with project.models.new_folder() as new:
        shutil.copytree(project.models.path(name), new.folder, dirs_exist_ok=True)
        new.note_training({"version": 1, "figures": {"steps": 9}})
        new.finish("trained")
    project.models.promote("trained")


def test_a_trained_model_is_not_adapted(adapting, add_model):
    project, training, accept_next = adapting
    add_model(project, "trained", knows_arteries=True)
    accept_next(3)
    assert wait_until(lambda: not training.state().adapting)
    assert project.models.names() == ["trained"]


def test_only_where_the_project_wants_it(adapting):
    project, training, accept_next = adapting
    project.change_settings(adapt=False)
    accept_next(4)
    assert not training.state().adapting


def test_labels_that_come_in_meanwhile_are_not_forgotten(adapting, monkeypatch):
    _, training, accept_next = adapting
    next_event, is_saved, go_on = TrainingProcess.next_event, Event(), Event()

    def spy(self):
        event = next_event(self)
        if isinstance(event, events.Saved):  # it has read its labels
            is_saved.set()
            go_on.wait(60)
        return event

    monkeypatch.setattr(TrainingProcess, "next_event", spy)
    accept_next(3)
    assert wait_until(is_saved.is_set)
    accept_next(3)
    assert training.state().adapting
    go_on.set()
    adaptations = []
    training.changed.connect(lambda: adaptations.append(training.state().adapting))
    assert wait_until(lambda: False in adaptations)
    assert wait_until(lambda: True in adaptations[adaptations.index(False) :])


@pytest.mark.parametrize(
    ("outcome", "gain", "kind", "used"),
    [
        (BETTER, NOTICEABLE_GAIN, DONE, True),
        (BETTER, NOTICEABLE_GAIN / 2, DONE, False),  # nothing that anybody would see
        (NOT_BETTER, -0.1, DONE, False),
        (CANNOT_TELL, 0.1, DONE, False),
        (BETTER, 0.1, CANCELLED, False),
    ],
)
def test_what_nobody_asked_for_is_used_if_it_helps_and_else_discarded(
    make_project, add_model, outcome, gain, kind, used
):
    project = make_project(1)
    current = project.models.current
    add_model(project, "adapted-001", knows_arteries=True)
    project.models.roll_back()
    with project.models.new_folder() as new:  # one that was never in use
        shutil.copytree(
            project.models.path("adapted-001"), new.folder, dirs_exist_ok=True
        )
        new.finish("adapted-002")
    verdict = judge("adapted-002", current.name, "", {})
    verdict = replace(verdict, outcome=outcome, gain=gain)
    result = TrainingResult(kind, "", "adapted-002", verdict)
    decided = promote_or_discard(project, result)
    assert (decided.decision == PROMOTED) == used
    assert (project.models.current.name == "adapted-002") == used
    assert ("adapted-002" in project.models.names()) == used
