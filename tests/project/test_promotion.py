"""What follows from the stages of a training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_cmunet.project.models.promotion import (
    CANCELLED,
    DIED,
    DONE,
    PROMOTED,
    REFUSED,
    STOPPED,
    UNDECIDED,
    TrainingResult,
    promote_each,
    result_of,
)
from napari_cmunet.training import events


class Models:
    """Records what is done to the models of a project."""

    def __init__(self, name: str = "old") -> None:
        self.done: list[tuple[str, str]] = []
        self.name = name

    @property
    def installed(self) -> bool:
        return self.name == "old"

    def is_trained(self, version) -> bool:
        return self.name not in ("old", "adapted")

    @property
    def current(self):
        return self

    def register(self, name):
        self.done.append(("register", name))

    def discard(self, name):
        self.done.append(("discard", name))

    def refuse(self, name, reason, **figures):
        self.done.append(("refuse", name))

    def promote(self, name, *, reason, **figures):
        self.done.append(("promote", name))
        self.name = name


class Project:
    def __init__(self, in_use: str) -> None:
        self.models = Models(in_use)


def verdict(model, against, outcome, gain=0.01):
    text = {
        events.BETTER: "Better.",
        events.NOT_BETTER: "Not better.",
        events.CANNOT_TELL: "Cannot tell: the difference may be luck.",
    }[outcome]
    return events.Verdict(model, against, "", outcome, f"{text} Figures.", 5, gain=gain)


def follow(*given, end, in_use="old"):
    def run():
        yield from given
        return end

    project, found = Project(in_use), []
    steps = promote_each(project, run())
    while True:
        try:
            found.append(next(steps))
        except StopIteration as stop:
            return project.models, found, stop.value


FIRST = verdict("a", "old", events.BETTER)
QUICK = (events.Stage("quick", 0, 80, 9.0), events.Saved("a"), FIRST)
DEEP = (events.Stage("deep", 60, 80, 9.0), events.Saved("b"))


def test_the_first_model_is_used_at_once_and_the_second_replaces_it():
    second = verdict("b", "a", events.BETTER)
    end = TrainingResult(DONE, second.text, "b", second)
    models, found, result = follow(*QUICK, *DEEP, second, end=end)
    (first,) = [x for x in found if isinstance(x, TrainingResult)]
    assert (first.model, first.decision) == ("a", PROMOTED)
    assert (result.model, result.decision) == ("b", PROMOTED)
    assert models.done == [
        ("register", "a"),
        ("promote", "a"),
        ("register", "b"),
        ("promote", "b"),
    ]


@pytest.mark.parametrize(
    ("kind", "text", "done"),
    [
        (CANCELLED, "Better. Figures.", "discard"),
        (DIED, "Better. Figures. It ended. The first model stays.", "register"),
    ],
)
def test_a_second_model_without_a_verdict_leaves_the_first_in_use(kind, text, done):
    end = TrainingResult(kind, "It ended.", "b")
    models, _, result = follow(*QUICK, *DEEP, end=end)
    assert (result.model, result.decision, result.text) == ("a", PROMOTED, text)
    assert models.done == [("register", "a"), ("promote", "a"), (done, "b")]


@pytest.mark.parametrize(
    ("gain", "decision", "head"),
    [
        (0.01, PROMOTED, "Better on average than a. Figures."),
        (-0.01, REFUSED, "Not better than a. Figures."),
    ],
)
def test_between_the_stages_the_mean_gain_decides(gain, decision, head):
    second = verdict("b", "a", events.CANNOT_TELL, gain)
    end = TrainingResult(DONE, second.text, "b", second)
    _, _, result = follow(*QUICK, *DEEP, second, end=end)
    assert (result.decision, result.text) == (decision, head)


@pytest.mark.parametrize(("gain", "decision"), [(0.01, PROMOTED), (-0.01, REFUSED)])
def test_against_an_adapted_model_the_mean_gain_decides(gain, decision):
    first = verdict("a", "adapted", events.CANNOT_TELL, gain)
    stage = (events.Stage("quick", 0, 80, 9.0), events.Saved("a"), first)
    end = TrainingResult(DONE, first.text, "a", first)
    _, found, _ = follow(*stage, end=end, in_use="adapted")
    (result,) = [x for x in found if isinstance(x, TrainingResult)]
    assert result.decision == decision
    assert "than adapted. Figures." in result.text
    _, _, result = follow(first, end=end, in_use="adapted")  # without stages
    assert result.decision == decision
    # Against a model that somebody trained or installed it does not.
    for other in ("old", "tuned"):
        first = verdict("a", other, events.CANNOT_TELL, gain)
        end = TrainingResult(DONE, first.text, "a", first)
        _, _, result = follow(first, end=end, in_use=other)
        assert result.decision == UNDECIDED


def test_a_gain_of_one_measure_does_not_outweigh_the_fall_of_the_other():
    """The first model stays: on average it is worse, but Dice falls too far."""
    second = replace(
        verdict("b", "a", events.CANNOT_TELL),
        dice=0.90,
        dice_before=0.92,
        cldice=0.99,
        cldice_before=0.95,
    )
    end = TrainingResult(DONE, second.text, "b", second)
    models, _, result = follow(*QUICK, *DEEP, second, end=end)
    assert (result.decision, models.name) == (REFUSED, "a")
    assert result.text == "Not better than a. Figures."


def test_against_the_former_model_it_does_not():
    first = verdict("a", "old", events.NOT_BETTER)
    second = verdict("b", "old", events.CANNOT_TELL)
    end = TrainingResult(DONE, second.text, "b", second)
    quick = (*QUICK[:2], first)
    models, _, result = follow(*quick, *DEEP, second, end=end)
    assert result.decision == UNDECIDED
    assert models.name == "old"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (CANCELLED, "Better. Figures."),
        (DIED, "The first model stays."),
        (STOPPED, "Better. Figures."),
    ],
)
def test_a_second_stage_without_a_model_leaves_the_first(kind, words):
    end = TrainingResult(kind, "What happened.")
    models, _, result = follow(*QUICK, DEEP[0], end=end)
    assert (result.model, result.decision, result.kind) == ("a", PROMOTED, kind)
    assert result.text.endswith(words)
    assert result.failed == (kind == DIED)
    assert models.name == "a"


def test_cancelled_nothing_is_kept_but_what_is_in_use():
    told = verdict("a", "old", events.CANNOT_TELL)
    given = (QUICK[0], QUICK[1], told)
    models, _, result = follow(*given, *DEEP, end=TrainingResult(CANCELLED, "", "b"))
    assert (result.model, result.kind, result.decision) == ("", CANCELLED, "")
    assert models.done == [("register", "a"), ("discard", "b"), ("discard", "a")]


@pytest.mark.parametrize("gain", [None, 0.01])
def test_a_stopped_second_model_that_was_not_measured_gives_way(gain):
    second = verdict("b", "a", events.CANNOT_TELL, gain)
    end = TrainingResult(STOPPED, second.text, "b", second)
    models, _, result = follow(*QUICK, *DEEP, second, end=end)
    assert result.kind == STOPPED
    assert result.model == ("a" if gain is None else "b")
    assert (("discard", "b") in models.done) == (gain is None)


@pytest.mark.parametrize(
    ("asked", "kind"), [("stopped", STOPPED), ("cancelled", CANCELLED), ("", DIED)]
)
def test_a_later_stage_that_ends_before_its_first_step(asked, kind):
    flags = {"stopped": False, "cancelled": False}
    if asked:
        flags[asked] = True
    last = {events.Stage: events.Stage(events.DEEP_STAGE, 36, 112, 9.0)}
    assert result_of(last, 0, [], **flags).kind == kind


def test_cancelled_after_the_verdict_nothing_is_kept():
    told = verdict("new", "old", events.BETTER)
    last = {events.Saved: events.Saved("models/new"), events.Verdict: told}
    end = result_of(last, 0, [], stopped=False, cancelled=True)
    models, _, result = follow(end=end)
    assert (result.kind, result.decision) == (CANCELLED, "")
    assert models.done == [("discard", "new")]


def test_without_stages_nothing_is_decided_before_the_end():
    end = TrainingResult(DONE, FIRST.text, "a", FIRST)
    _, found, result = follow(events.Saved("a"), FIRST, end=end)
    assert not any(isinstance(x, TrainingResult) for x in found)
    assert result.decision == PROMOTED
