from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_cmunet.errors import (
    CMUNetError,
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
    ReadError,
    WriteError,
)
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.files import is_project
from napari_cmunet.project.patients import Split
from napari_cmunet.project.project import Project
from tests.project.project_making import events, mask_of, reopened, save_pictures

EXAMPLES = int(os.environ.get("NAPARI_CMUNET_TEST_EXAMPLES", "120"))


@pytest.mark.slow
def test_no_torch_no_qt_no_napari(run_python):
    run_python(
        "import sys, napari_cmunet.project.project\n"
        "import napari_cmunet.project.export.formats\n"
        "loaded = {'torch', 'qtpy', 'napari', 'PyQt6'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )


def test_a_folder_becomes_a_project_once(tmp_path):
    folder = tmp_path / "a" / "b"
    assert not is_project(folder)
    Project.create(folder).close()
    assert is_project(folder)
    with pytest.raises(ProjectError, match="already"):
        Project.create(folder)
    values = json.loads((folder / "project.json").read_text())
    assert (values["format"], values["version"]) == ("napari-cmunet project", 1)


def test_leftovers_of_a_project_are_not_covered(tmp_path):
    (tmp_path / "labels").mkdir()
    with pytest.raises(ProjectError, match="part of one"):
        Project.create(tmp_path)


def test_what_is_no_project(tmp_path):
    with pytest.raises(ReadError, match="not a project"):
        Project.open(tmp_path)
    with pytest.raises(ReadError, match="no such folder"):
        Project.open(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_project_says_so(project):
    project.close()
    with pytest.raises(ProjectError, match="closed"):
        project.skip(project.images.ids()[0])


# -- the way through -------------------------------------------------------------


def test_next_goes_round_and_passes_over_what_is_done(project):
    ids = project.images.ids()
    assert project.next_image() == ids[0]
    project.labels.accept(ids[0], 0, mask_of(1))
    project.skip(ids[1])
    assert project.next_image(ids[0]) == ids[2]
    assert project.next_image(ids[5]) == ids[2]
    assert project.next_image(ids[2]) == ids[3]
    for image in ids[2:5]:
        project.labels.accept(image, 0, mask_of(1))
    assert project.next_image(ids[5]) == ids[5]
    project.labels.accept(ids[5], 0, mask_of(1))
    assert project.next_image(ids[5]) is None
    project.skip(ids[1], False)
    assert project.next_image(ids[5]) == ids[1]
    assert project.neighbour(ids[3]) == ids[2]
    assert project.neighbour(ids[3], 1) == ids[4]
    assert project.neighbour(ids[0]) is None
    assert project.neighbour(ids[5], 1) is None


def test_progress_and_marks(project):
    ids = project.images.ids()
    assert str(project.progress()) == "0 of 6"
    project.labels.accept(ids[0], 0, mask_of(1))
    project.labels.accept(ids[0], 3, mask_of(1))
    project.labels.accept(ids[2], 0, mask_of(1))
    project.skip(ids[0])  # the label outweighs it
    project.skip(ids[1])
    project.flag(ids[1])
    project.flag(ids[1])
    project.comment(ids[1], "Müller, catheter?")
    with reopened(project) as again:
        progress = again.progress()
        assert str(progress) == "2 of 6, 1 skipped, 1 flagged"
        assert progress.frames == 3
        assert again.status(ids[0]).state == "labelled"
        assert again.status(ids[0]).frames == (0, 3)
        status = again.status(ids[1])
        assert (status.state, status.flagged) == ("skipped", True)
        assert status.comment == "Müller, catheter?"
        assert again.status(ids[5]).state == "unseen"
        assert events(again).count("flagged") == 1
        # What a reader writes about an image stays out of the journal.
        assert "Müller" not in (again.folder / "journal.jsonl").read_text("utf-8")


def test_reopened_where_one_left_off(project):
    assert project.position is None
    image = project.images.ids()[3]
    project.remember_position(image, 7)
    with reopened(project) as again:
        assert again.position == (image, 7)
    (project.folder / "position.json").write_text('{"image": "../x", "frame": 1}')
    with reopened(project) as again:
        assert again.position is None


def test_settings(project):
    project.change_settings(title="LAD", finetune_every=5, minutes=2.5)
    path = project.folder / "settings.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"of_tomorrow": 1, "phantoms": "many"}))
    with reopened(project) as again:
        assert again.settings.title == "LAD"
        assert again.settings.minutes == 2.5
        assert again.settings.phantoms == 0  # what does not fit is left out
        again.change_settings(finetune_every=6)
        assert json.loads(path.read_text())["of_tomorrow"] == 1
        for wrong in ({"finetune_every": -1}, {"minutes": float("nan")}, {"title": 5}):
            with pytest.raises(ProjectError):
                again.change_settings(**wrong)
        assert again.settings.finetune_every == 6


# -- the split ---------------------------------------------------------------------


def test_one_patient_of_five_validates(tmp_path):
    split = Split(tmp_path / "split.json", b"salt" * 8)
    names = [f"{n:016x}" for n in range(50)]
    sides = list(split.preview(names).values())
    for block in range(10):
        assert sides[5 * block : 5 * block + 5].count("validation") == 1
    places = {sides[5 * b : 5 * b + 5].index("validation") for b in range(10)}
    assert len(places) > 1


def test_a_patient_keeps_its_side(tmp_path):
    save_pictures(tmp_path / "pictures", 24)
    with Project.create(tmp_path / "project") as project:
        project.images.add([tmp_path / "pictures"], lambda path: path.parts[0])
        ids = project.images.ids()
        for image in ids[:12]:
            project.labels.accept(image, 0, mask_of(1))
        before = project.labels.sides()
        assert len(before) == 6
        for image in ids[12:]:
            project.labels.accept(image, 0, mask_of(1))
        after = project.labels.sides()
        assert {p: after[p] for p in before} == before
        assert list(after.values()).count("validation") in (2, 3)
        for image in ids:
            project.labels.withdraw(image, 0)
        assert project.labels.sides() == after
        refs = project.labels.refs()
        assert refs == []


@pytest.mark.parametrize("damage", ["{", '{"patients": {"x": "both"}}', "gone"])
def test_a_lost_split_is_not_drawn_anew(project, damage):
    for image in project.images.ids():
        project.labels.accept(image, 0, mask_of(1))
    before = project.labels.sides()
    project.close()
    path = project.folder / "split.json"
    path.unlink() if damage == "gone" else path.write_text(damage)
    with reopened(project, read_only=True) as reader:
        sides = {ref.patient: ref.side for ref in reader.labels.refs()}
        assert sides == before
    with reopened(project) as again:
        assert again.labels.sides() == before
        if damage != "gone":
            assert "split.json" in again.take_notices()[0]
            assert list(again.folder.glob("split.json.damaged-*"))


def test_labels_of_one_side(project):
    for image in project.images.ids():
        project.labels.accept(image, 0, mask_of(1))
    refs = project.labels.refs()
    train, held_out = (
        [ref for ref in project.labels.refs() if ref.side == side]
        for side in ("train", "validation")
    )
    assert sorted(train + held_out, key=refs.index) == refs
    assert {r.patient for r in train}.isdisjoint({r.patient for r in held_out})


# -- damaged, newer, hostile -----------------------------------------------------


def contents(folder):
    found = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found.pop(folder / "lock", None)
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../x"},
        {"id": 5},
        {"salt": "zz"},
        {"salt": None},
        {"format": "another"},
        {"version": "1"},
        {"version": 0},
    ],
)
def test_a_damaged_project_is_refused_and_not_touched(project, change):
    project.labels.accept(project.images.ids()[0], 0, mask_of(1))
    project.close()
    path = project.folder / "project.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = contents(project.folder)
    with pytest.raises(
        ProjectDamagedError, match=r"project\.json.*The labels are not affected"
    ):
        Project.open(project.folder)
    assert contents(project.folder) == before
    with Project.open(project.folder, salvage=True) as again:
        assert again.progress().labelled == 1
        assert "made anew" in again.take_notices()[0]
    with Project.open(project.folder) as again:
        assert again.take_notices() == []


def test_a_newer_project_is_refused_and_not_touched(project):
    project.close()
    path = project.folder / "project.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    before = contents(project.folder)
    for options in ({}, {"salvage": True}, {"break_lock": True}, {"read_only": True}):
        with pytest.raises(ProjectVersionError, match="newer"):
            Project.open(project.folder, **options)
    assert contents(project.folder) == before


@pytest.mark.parametrize("name", ["flags.json", "settings.json", "position.json"])
def test_small_files_can_be_done_without(project, name):
    image = project.images.ids()[0]
    project.skip(image)
    project.flag(image)
    project.flag(image, False)
    project.change_settings(title="x")
    project.remember_position(image)
    project.close()
    (project.folder / name).write_bytes(b"\xff\0")
    with Project.open(project.folder) as again:
        assert again.status(image).state == "skipped"  # from the journal, if need be
        assert not again.status(image).flagged
    with Project.open(project.folder) as again:
        assert again.take_notices() == []


def test_without_its_journal_a_project_has_its_labels(project):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    project.close()
    (project.folder / "journal.jsonl").unlink()
    with Project.open(project.folder) as again:
        assert again.progress().labelled == 1
        assert events(again) == ["created", "label_recovered"]


def test_a_label_put_in_or_taken_out_by_hand(project):
    ids = project.images.ids()
    project.labels.accept(ids[0], 0, mask_of(1))
    project.close()
    folder = project.folder / "labels" / ids[0]
    (folder / "frame_0000.tif").rename(folder / "frame_0002.tif")
    with Project.open(project.folder) as again:
        assert "backup" in again.take_notices()[0]
        assert again.labels.frames(ids[0]) == (2,)
        assert events(again)[-2:] == ["label_recovered", "label_missing"]
    with Project.open(project.folder) as again:
        assert again.take_notices() == []


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["images", "patients", "history", "position", "version", "id"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(
        [
            "project.json",
            "flags.json",
            "split.json",
            "settings.json",
            "position.json",
            "models/current.json",
            "images.jsonl",
            "journal.jsonl",
            "lock",
        ]
    ),
    _values.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=60),
)
@pytest.mark.slow
def test_hostile_files_open_or_are_refused_in_words(project, name, data):
    image = project.images.ids()[0]
    if not project._context.closed:
        project.labels.accept(image, 0, mask_of(1))
        project.close()
        project.folder.joinpath("models").mkdir(exist_ok=True)
    path = project.folder / name
    before = path.read_bytes() if path.exists() else None
    outside = sorted(project.folder.parent.rglob("*"))
    path.write_bytes(data)
    for options in ({"read_only": True}, {}, {"salvage": True}):
        try:
            with Project.open(project.folder, **options) as opened:
                opened.progress()
                opened.labels.refs()
                opened.next_image()
                opened.take_notices()
        except CMUNetError as error:
            assert str(error)
    label = project.folder / "labels" / image / "frame_0000.tif"
    assert label.exists()
    here = {
        p for p in project.folder.parent.rglob("*") if project.folder not in p.parents
    }
    assert {p for p in here if "home" not in p.parts} <= set(outside)
    path.unlink(missing_ok=True)
    for kept in project.folder.rglob("*.damaged-*"):
        kept.unlink()
    if before is not None:
        path.write_bytes(before)


def test_a_full_disk_at_opening_is_said(project, monkeypatch):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    project.close()
    for name in ("split.json", "flags.json", "journal.jsonl"):
        (project.folder / name).unlink(missing_ok=True)
    real = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with Project.open(project.folder) as again:
        assert any("disk is full" in text for text in again.take_notices())
        assert again.progress().labelled == 1
        with pytest.raises(WriteError):
            again.labels.accept(image, 0, mask_of(2))
        monkeypatch.setattr(os, "fsync", real)
        again.labels.accept(image, 0, mask_of(2))
    with Project.open(project.folder) as again:
        assert again.take_notices() == []
        assert len(again.labels.sides()) == 1


def test_a_disk_that_fails_when_a_project_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError):
        Project.create(tmp_path / "file" / "project")


# -- at once, and identity ---------------------------------------------------------


def test_threads_share_a_project(project):
    ids = project.images.ids()
    problems = []

    def read():
        for number in range(8):
            project.labels.accept(ids[number % 3], 0, mask_of(number))
            project.drafts.save(ids[3], 0, mask_of(number))
            project.images.learn_facts(ids[number % 3], "a" * 64)

    def watch():
        for _ in range(20):
            project.progress()
            for ref in project.labels.refs():
                if project.labels.get(ref.image, ref.frame) is None:
                    problems.append("half")

    threads = [threading.Thread(target=work) for work in (read, read, watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    numbers = [entry.number for entry in project.journal()]
    assert numbers == sorted(set(numbers))


def test_no_name_of_a_patient_leaves_the_list_of_images(tmp_path, make_model):
    pictures = tmp_path / "Jane Roe 1950" / "run"
    pictures.mkdir(parents=True)
    for number in range(2):
        frame = np.eye(40, dtype=np.uint8) + number
        np.save(pictures / f"Roe_Jane_{number}.npy", frame)
    said = []
    with Project.create(tmp_path / "project", user="r1") as project:
        project.images.add([pictures.parent], lambda path: "Jane Roe")
        image = project.images.ids()[0]
        origin = Provenance(source_sha256=project.images.hash_of(image))
        project.labels.accept(image, 0, np.eye(40) > 0, provenance=origin)
        project.drafts.save(image, 0, np.eye(40) > 0)
        project.flag(image)
        make_model(project, "tuned-001")
        project.models.register("tuned-001")
        project.remember_position(image)
        project.images.path(project.images.ids()[0]).unlink()
        assert list(project.labels.read(problem=said.append)) == []
        try:
            project.images.found_path(image)
        except ProjectError as error:
            said.append(str(error))
    for path in project.folder.rglob("*"):
        if path.is_file() and path.name != "images.jsonl":
            text = path.read_bytes()
            assert b"Roe" not in text, path.name
            assert b"Jane" not in text, path.name
    assert len(said) == 2
    assert "Roe" not in " ".join(said)
