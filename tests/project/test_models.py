from __future__ import annotations

import os
import shutil

import pytest

from napari_cmunet.errors import (
    ModelError,
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
    WriteError,
)
from napari_cmunet.model.card import CARD
from napari_cmunet.model.registry import DEFAULT_MODEL, WEIGHTS
from napari_cmunet.project.files import TRAINING, read_json
from napari_cmunet.project.models import models as models_module
from napari_cmunet.project.models.history import (
    ModelHistory,
    ModelVersion,
    history_from,
)
from napari_cmunet.util.safe_files import write_json
from tests.project.project_making import events, mask_of, reopened


@pytest.fixture
def models(project, make_model):
    for name in ("tuned-001", "tuned-002", "tuned-003"):
        make_model(project, name, name.encode())
        project.models.register(name)
    return project.models


def test_a_new_project_uses_the_bundled_model(project):
    assert project.models.current == ModelVersion(DEFAULT_MODEL, "", True)
    assert not project.models.history.can_go_back
    assert project.models.free_name() == "tuned-001"


def test_promote_back_and_forward(project, models):
    models.promote("tuned-001", dice=0.81, before=0.78)
    models.promote("tuned-002")
    assert models.folder().name == "tuned-002"
    assert models.roll_back("looks worse").name == "tuned-001"
    assert models.roll_back().name == DEFAULT_MODEL
    with pytest.raises(ProjectError, match="older"):
        models.roll_back()
    assert models.roll_forward().name == "tuned-001"
    with reopened(project) as again:
        assert again.models.current.name == "tuned-001"
        assert again.models.history.can_go_forward
        again.models.promote("tuned-003")
        assert not again.models.history.can_go_forward
        assert [v.name for v in again.models.history.versions] == [
            DEFAULT_MODEL,
            "tuned-001",
            "tuned-003",
        ]
        entries = list(again.journal())
        promoted = next(e for e in entries if e.what == "promoted")
        assert promoted.details["dice"] == 0.81
        assert promoted.details["model"] == "tuned-001"
        assert "models_recovered" not in events(again)


def test_an_installed_model_can_be_promoted(project, models):
    assert models.promote(DEFAULT_MODEL, installed=True).sha256
    assert models.folder().name == DEFAULT_MODEL


def test_refused_models_are_kept(project, models):
    models.refuse("tuned-002", "Dice 0.78 is below 0.81", dice=0.78)
    assert models.current.name == DEFAULT_MODEL
    assert "tuned-002" in models.names()
    entry = list(project.journal())[-1]
    assert (entry.what, entry.details["reason"]) == (
        "refused",
        "Dice 0.78 is below 0.81",
    )


def test_registering_twice_is_once(project, models):
    models.register("tuned-001")
    with reopened(project) as again:
        again.models.register("tuned-001")
        assert events(again).count("trained") == 3
        trained = next(e for e in again.journal() if e.what == "trained")
        assert trained.details["dice"] == 0.8


def test_models_that_the_journal_missed_are_noted_when_opened(project, make_model):
    make_model(project, "tuned-001")
    with reopened(project) as again:
        assert events(again).count("trained") == 1
    with reopened(again) as third:
        assert events(third).count("trained") == 1


def test_damaged_models_are_not_put_to_use(project, models):
    (models.path("tuned-001") / WEIGHTS).write_bytes(b"other")
    with pytest.raises(ModelError, match="damaged"):
        models.promote("tuned-001")
    (models.path("tuned-002") / CARD).unlink()
    with pytest.raises(ModelError):
        models.promote("tuned-002")
    with pytest.raises(ModelError):
        models.promote("never-was")
    assert models.current.name == DEFAULT_MODEL


def test_going_back_to_a_model_that_is_gone(project, models):
    models.promote("tuned-001")
    models.promote("tuned-002")
    (models.path("tuned-001") / CARD).unlink()
    with pytest.raises(ModelError):
        models.roll_back()
    assert models.current.name == "tuned-002"


def test_another_model_of_the_same_name_is_told_apart(project, models, make_model):
    models.promote("tuned-001")
    folder = models.path("tuned-001")
    folder.rename(folder.with_name("aside"))
    make_model(project, "tuned-001", b"different")
    with pytest.raises(ModelError, match="not the one"):
        models.folder()


def test_the_newest_model_is_the_one_trained_last(project, make_model):
    for name, trained_at in (("zoo", 1000), ("tuned-001", 2000)):
        record = make_model(project, name) / TRAINING
        write_json(record, {"labels": [{"sha256": name}]})
        os.utime(record, (trained_at, trained_at))
    assert project.models.labels_of_newest() == {"tuned-001"}


def test_a_damaged_card_does_not_hide_the_other_models(project, models):
    (models.path("tuned-002") / CARD).write_text("{")
    names = [v.name for v in models.unused_versions() if not v.installed]
    assert names == ["tuned-001", "tuned-003"]


def test_a_model_counts_when_it_is_whole(project):
    with pytest.raises(ZeroDivisionError), project.models.new_folder() as new:
        (new.folder / CARD).write_text("{}")
        1 / 0  # noqa: B018
    with project.models.new_folder() as new:
        (new.folder / CARD).write_text("{}")
        assert project.models.names() == []
    assert list((project.folder / "models").iterdir()) == []


def test_names_are_not_taken_twice(project, make_model):
    make_model(project, "tuned-001")
    with pytest.raises(ProjectError, match="already"):
        make_model(project, "tuned-001")
    assert project.models.free_name() == "tuned-002"


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-x", "nul", "x" * 65, "a."])
def test_names_that_are_none(project, name):
    for act in (project.models.path, project.models.promote):
        with pytest.raises(ProjectError, match="letters"):
            act(name)


def test_models_reached_by_links_are_refused(project, models, tmp_path):
    folder = models.path("tuned-001").rename(tmp_path / "outside")
    (project.folder / "models" / "tuned-001").symlink_to(folder)
    assert "tuned-001" not in models.names()
    with pytest.raises(ProjectError, match="link"):
        models.promote("tuned-001")


def test_what_killed_trainings_left_is_removed_once_old(project):
    base = project.folder / "models"
    old, new = base / f".partial-{'0' * 16}", base / f".partial-{'1' * 16}"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(b"half")
    os.utime(old, (1, 1))
    with reopened(project):
        assert not old.exists()
        assert new.exists()


def test_a_full_disk_leaves_the_model_in_use(project, models, monkeypatch):
    models.promote("tuned-001")

    def full(*_):
        raise WriteError("current.json", "the disk is full.")

    monkeypatch.setattr(models_module, "write_json", full)
    with pytest.raises(WriteError):
        models.promote("tuned-002")
    assert models.current.name == "tuned-001"
    monkeypatch.undo()
    with reopened(project) as again:
        assert again.models.current.name == "tuned-001"


@pytest.mark.parametrize("damage", ["{", "", '{"history": []}', "gone"])
def test_the_history_comes_back_from_the_journal(project, models, damage):
    models.promote("tuned-001")
    models.promote("tuned-002")
    models.roll_back()
    project.close()
    path = project.folder / "models" / "current.json"
    path.unlink() if damage == "gone" else path.write_text(damage)
    for read_only in (True, False):
        with reopened(project, read_only=read_only) as again:
            if damage == "gone" and read_only:
                continue
            assert again.models.current.name == "tuned-001"
            assert again.models.history.can_go_forward
    assert read_json(path)["position"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"history": "x"},
        {"history": [1]},
        {"history": [{"name": "../x", "sha256": "", "installed": True}]},
        {"history": [{"name": "x", "sha256": 3, "installed": True}]},
        {"history": [{"name": "x", "sha256": "", "installed": "no"}]},
        {"position": 5},
        {"position": -1},
        {"position": True},
    ],
)
def test_histories_that_must_not_be(change):
    values = ModelHistory().to_json() | change
    with pytest.raises(ProjectDamagedError):
        history_from(values)


def test_a_newer_history_is_left_alone(project):
    project.close()
    path = project.folder / "models" / "current.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"version": 99})
    with pytest.raises(ProjectVersionError):
        reopened(project)
    assert read_holder_free(project)


def read_holder_free(project) -> bool:
    """The lock was let go by the opening that failed."""
    (project.folder / "models" / "current.json").unlink()
    reopened(project).close()
    return True


def test_labels_that_a_model_has_not_seen(project, make_model):
    ids = project.images.ids()
    seen = project.labels.accept(ids[0], 0, mask_of(1))
    project.labels.accept(ids[1], 0, mask_of(1))
    with project.models.new_folder() as new:
        new.note_training({"labels": [{"sha256": seen.sha256}, 5, {}]})
        new.finish("tuned-001")
    assert project.models.learned_labels("tuned-001") == {seen.sha256}
    assert project.models.learned_labels("unknown") == set()
    assert project.labels.hash(ids[0], 0) == seen.sha256
    assert project.labels.accept(ids[0], 0, mask_of(2)).sha256 != seen.sha256


def test_any_version_can_be_chosen(project, make_model):
    for name in ("a", "b", "c"):
        make_model(project, name, name.encode())
    project.models.promote("a")
    project.models.promote("b")
    first, a, b = project.models.history.versions
    project.models.choose(first)
    assert project.models.current == first
    assert project.models.history.versions == (first, a, b)  # nothing is lost ahead
    project.models.choose(b)
    assert project.models.current == b
    project.models.choose(project.models.version("c"))  # never in use so far
    assert project.models.current.name == "c"
    assert events(project)[-4:] == [
        "rolled_back",
        "rolled_forward",
        "rolled_forward",
        "promoted",
    ]
    again = reopened(project)
    assert again.models.current.name == "c"
    again.close()


def test_a_model_is_discarded_unless_it_was_in_use(project, make_model):
    make_model(project, "a")
    project.models.register("a")
    project.models.discard("a")
    assert project.models.names() == []
    make_model(project, "a", b"other weights")  # the name is free again
    project.models.register("a")
    assert events(project)[-3:] == ["trained", "discarded", "trained"]
    project.models.promote("a")
    with pytest.raises(ProjectError, match="was in use"):
        project.models.discard("a")
    count = len(events(project))
    again = reopened(project)
    assert len(events(again)) == count
    again.close()


def test_whom_a_model_learned_from(project, make_model):
    assert project.models.learned_patients(project.models.current) == set()  # installed
    with project.models.new_folder() as new:
        for path in make_model(project, "model").iterdir():
            shutil.copy(path, new.folder)
        labels = [{"patient": "x"}, {"patient": "y"}]
        new.note_training({"labels": labels, "learned_patients": ["x"]})
        new.finish("noted")
    assert project.models.learned_patients(ModelVersion("noted")) == {"x"}
    with project.models.new_folder() as new:
        for path in project.models.path("model").iterdir():
            shutil.copy(path, new.folder)
        new.note_training({"labels": labels})  # as an older program did
        new.finish("old")
    assert project.models.learned_patients(ModelVersion("old")) == {"x", "y"}
