from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_making import events, mask_of, reopened, save_pictures

from napari_cmunet.errors import Cancelled, CMUNetError, ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.study.errors import (
    ImageMissingError,
    StudyDamagedError,
    StudyError,
    StudyVersionError,
)
from napari_cmunet.study.images import ImageTable
from napari_cmunet.study.patients import by_csv, by_folder, by_prefix
from napari_cmunet.study.study import Study


def paths(study) -> list[str]:
    return [record.path for record in study.images]


# -- adding -------------------------------------------------------------------


def test_adding_reads_no_image(study, pictures):
    assert len(study.images) == 6
    assert paths(study)[0] == "patient-0/frame-0.npy"
    record = next(iter(study.images))
    assert record.sha256 is None
    assert record.size == (pictures / record.path).stat().st_size
    assert study.images.path(record.id) == pictures / record.path


def test_adding_again_adds_nothing(study, pictures):
    added = study.images.add([pictures, pictures / "patient-1"])
    assert (added.images, added.known) == ((), 6)
    save_pictures(pictures, 8)
    added = study.images.add([pictures])
    assert (len(added.images), added.known, added.own_patient) == (2, 6, 2)
    with reopened(study) as again:
        assert len(again.images) == 8


def test_no_path_of_this_computer_is_in_the_study(study, pictures):
    for path in study.folder.iterdir():
        if path.is_file():
            assert str(pictures.parent) not in path.read_text()


def test_images_in_the_study_folder_are_found_wherever_it_goes(tmp_path):
    folder = tmp_path / "study"
    save_pictures(folder / "pictures", 2)
    with Study.create(folder) as made:
        made.images.add([folder])
        assert {record.root for record in made.images} == {"study"}
        made.labels.accept(made.images.ids()[0], 0, mask_of(1))
        # Its own masks are no images of it.
        assert made.images.add([folder]).images == ()
    moved = folder.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    with Study.open(moved) as again:
        assert again.images.missing() == []


def test_files_that_cannot_be_added_are_named(study, tmp_path):
    added = study.images.add([tmp_path / "none.png"])
    assert added.images == ()
    assert "none.png" in added.problems[0]
    odd = tmp_path / "odd"
    odd.mkdir()
    np.save(odd / "nul.npy", np.zeros((40, 40), np.uint8))
    added = study.images.add([odd])
    assert added.images == ()
    assert "nul.npy" in added.problems[0]


def test_adding_can_be_stopped(study, pictures):
    save_pictures(pictures, 8)
    with pytest.raises(Cancelled):
        study.images.add([pictures], should_stop=lambda: True)
    assert len(study.images) == 6


def test_names_of_any_script(tmp_path, study):
    folder = tmp_path / "Ärzte 心臓"
    folder.mkdir()
    np.save(folder / "é è.npy", np.eye(40, dtype=np.uint8))
    (image,) = study.images.add([folder]).images
    with reopened(study) as again:
        assert read_angiogram(again.images.found_path(image)).shape == (40, 40)


# -- patients -----------------------------------------------------------------


def test_patients_are_hashed_with_the_salt(study, tmp_path, pictures):
    groups = [record.patient for record in study.images]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    with Study.create(tmp_path / "other") as other:
        other.images.add([pictures], lambda path: path.parts[0])
        assert {r.patient for r in other.images}.isdisjoint(groups)
    assert "patient" not in "".join(groups)


def test_without_a_rule_each_image_is_its_own_patient(tmp_path, pictures):
    with Study.create(tmp_path / "s") as made:
        added = made.images.add([pictures])
        assert added.own_patient == 6
        assert len({record.patient for record in made.images}) == 6


def test_rules(tmp_path):
    image = PurePosixPath("ann/run-1/p12_003.png")
    assert by_folder()(image) == "ann"
    assert by_folder(2)(image) == "ann/run-1"
    assert by_folder(3)(image) is None
    assert by_prefix("_")(image) == "p12"
    assert by_prefix("-")(image) is None
    assert by_prefix(2)(image) == "p1"
    assert by_prefix(99)(image) is None
    table = tmp_path / "patients.csv"
    table.write_text("\ufeffstem,patient\np12_003,Ann\nx,\n", encoding="utf-8")
    assert by_csv(table)(image) == "Ann"
    assert by_csv(table)(PurePosixPath("x.png")) is None


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"\xff\xfe\0", b"stem\npatient"])
def test_bad_lists_of_patients(tmp_path, data):
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(ReadError, match=r"p\.csv"):
        by_csv(tmp_path / "p.csv")


def test_grouping_can_be_told_later(study):
    assert study.images.regroup(lambda path: "all") == 6
    assert len({record.patient for record in study.images}) == 1
    assert study.images.regroup(lambda path: None) == 0
    assert events(study)[-1] == "images_regrouped"


# -- moved, copied, on another computer -----------------------------------------


def test_moved_study(study, tmp_path):
    image = study.images.ids()[0]
    study.labels.accept(image, 0, mask_of(1))
    study.close()
    moved = study.folder.rename(tmp_path / "a b")
    with Study.open(moved) as again:
        assert (again.labels.get(image, 0).mask == mask_of(1)).all()
        assert again.images.missing() == []


def test_copied_study(study, tmp_path):
    image = study.images.ids()[0]
    study.labels.accept(image, 0, mask_of(1))
    study.copy_to(tmp_path / "copy")
    with Study.open(tmp_path / "copy") as copy:  # while the other is open
        assert copy.images.missing() == []
        copy.labels.accept(image, 0, mask_of(2))
        assert (study.labels.get(image, 0).mask == mask_of(1)).all()
    with pytest.raises(StudyError, match="there already"):
        study.copy_to(tmp_path / "copy")
    with pytest.raises(StudyError, match="into itself"):
        study.copy_to(study.folder / "copy")


@pytest.fixture
def elsewhere(study, pictures, tmp_path, home):
    """The study on a computer that does not know where its images are."""
    study.images.hash_all()
    study.close()
    shutil.rmtree(home)
    moved = pictures.rename(tmp_path / "carried")
    with Study.open(study.folder) as opened:
        assert len(opened.images.missing()) == 6
        yield opened, moved


def test_images_elsewhere_are_asked_for(elsewhere):
    opened, moved = elsewhere
    image = opened.images.ids()[0]
    with pytest.raises(ImageMissingError, match="folder of its images"):
        opened.images.found_path(image)
    relinked = opened.images.relink(moved)
    assert (relinked.found, relinked.missing) == (6, ())
    assert opened.images.found_path(image).is_relative_to(moved)
    with reopened(opened) as again:
        assert again.images.missing() == []


@pytest.mark.parametrize("shown", ["above", "inside"])
def test_the_folder_above_or_inside_does_as_well(elsewhere, shown):
    opened, moved = elsewhere
    folder = moved.parent if shown == "above" else moved / "patient-1"
    relinked = opened.images.relink(folder)
    assert relinked.missing == ()
    assert {record.root for record in opened.images} == {"r1"}


def test_renamed_images_are_found_by_content(elsewhere):
    opened, moved = elsewhere
    flat = moved.parent / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(moved.rglob("*.npy"))):
        path.rename(flat / f"{9 - number}.npy")
    before = {record.id: record.sha256 for record in opened.images}
    assert opened.images.relink(flat).missing == ()
    for image, sha256 in before.items():
        assert opened.images.hash_of(image) == sha256


def test_another_file_of_the_same_name_is_not_taken(elsewhere):
    opened, moved = elsewhere
    victim = moved / "patient-0" / "frame-0.npy"
    np.save(victim, np.zeros((50, 50), np.uint8))
    relinked = opened.images.relink(moved)
    # Its folder is right, so it is looked for there; its content will tell.
    assert relinked.found >= 5


def test_the_wrong_folder_finds_nothing(elsewhere, tmp_path):
    opened, _ = elsewhere
    empty = tmp_path / "empty"
    empty.mkdir()
    assert opened.images.relink(empty).found == 0
    with pytest.raises(Cancelled):
        opened.images.relink(tmp_path / "carried", should_stop=lambda: True)


def test_reading_alone_can_relink_for_itself(elsewhere):
    opened, moved = elsewhere
    opened.close()
    with Study.open(opened.folder, read_only=True) as reader:
        assert reader.images.relink(moved).missing == ()


def test_what_reading_shows_is_kept(study):
    image = study.images.ids()[0]
    study.images.learn(image, read_angiogram(study.images.found_path(image)))
    with reopened(study) as again:
        record = again.images[image]
        assert (record.shape, record.frames) == ((40, 48), 1)
        assert record.sha256 == again.images.hash_of(image)


def test_places_of_the_user_may_be_damaged_or_unwritable(study, home, monkeypatch):
    (file,) = (home / "studies").iterdir()
    file.write_text("{")
    with reopened(study) as again:
        assert len(again.images.missing()) == 6
        file.unlink()
        file.parent.rmdir()
        file.parent.write_text("in the way")
        pictures = study.folder.parent / "pictures"
        assert again.images.relink(pictures).missing == ()
        assert any("asked again" in text for text in again.take_notices())


# -- damaged and hostile -------------------------------------------------------


def lines(study) -> list[dict]:
    text = (study.folder / "images.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write_lines(study, values) -> None:
    text = "".join(json.dumps(value) + "\n" for value in values)
    (study.folder / "images.jsonl").write_text(text)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../etc/passwd"},
        {"path": "/etc/passwd"},
        {"path": "C:/Windows/x.png"},
        {"path": "aux"},
        {"path": 5},
        {"id": "../labels/x"},
        {"id": None},
        {"root": "../x"},
        {"patient": "Ann"},
        {"sha256": "x"},
        {"shape": [0, 1]},
        {"shape": "ab"},
        {"frames": -1},
        {"size": 1e3},
    ],
)
def test_a_line_that_must_not_be(study, change):
    study.close()
    values = lines(study)
    values[2] |= change
    write_lines(study, values)
    before = (study.folder / "images.jsonl").read_bytes()
    with pytest.raises(StudyDamagedError, match=r"line 3 of images\.jsonl"):
        Study.open(study.folder)
    assert (study.folder / "images.jsonl").read_bytes() == before
    with Study.open(study.folder, salvage=True) as again:
        assert len(again.images) == 5
        assert "left out" in again.take_notices()[0]
        kept = list(study.folder.glob("images.jsonl.damaged-*"))
        assert [path.read_bytes() for path in kept] == [before]
    Study.open(study.folder).close()


def test_an_image_twice(study):
    study.close()
    write_lines(study, [*lines(study), lines(study)[1]])
    with pytest.raises(StudyDamagedError, match="twice"):
        Study.open(study.folder)


def test_labels_survive_the_loss_of_the_list(study, pictures):
    ids = study.images.ids()
    study.labels.accept(ids[0], 0, mask_of(1))
    study.close()
    (study.folder / "images.jsonl").write_bytes(b"\0" * 500)
    with pytest.raises(StudyDamagedError, match="No label is harmed"):
        Study.open(study.folder)
    with Study.open(study.folder, salvage=True) as again:
        assert again.images.ids() == [ids[0]]
        assert again.images.missing() == [ids[0]]
        assert again.images.relink(pictures).missing == ()
        (label,) = again.labels.read()
        assert (label.mask == mask_of(1)).all()


def test_a_newer_list_is_left_alone(study):
    study.close()
    values = lines(study)
    values[0]["version"] = 2
    write_lines(study, values)
    for options in ({}, {"read_only": True}, {"salvage": True}):
        before = {p: p.read_bytes() for p in study.folder.iterdir() if p.is_file()}
        with pytest.raises(StudyVersionError, match="Update"):
            Study.open(study.folder, **options)
        before.pop(study.folder / "lock")
        assert all(path.read_bytes() == data for path, data in before.items())


def test_images_in_the_study_reached_by_links_are_refused(tmp_path):
    secret = tmp_path / "secret"
    save_pictures(secret, 1)
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "pictures").symlink_to(secret, target_is_directory=True)
    with Study.create(folder) as made:
        added = made.images.add([folder])
        assert added.images == ()
        assert "link" in added.problems[0]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
_record = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["0123456789ab", "../x", "", 3]) | _json,
        "root": st.sampled_from(["r1", "study", "..", "/"]) | _json,
        "path": st.sampled_from(["a/b.png", "", "../a", "/a", "nul"]) | _json,
        "patient": st.sampled_from(["0" * 16, "Ann"]) | _json,
    },
    optional={"sha256": _json, "shape": _json, "frames": _json, "size": _json},
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_record | _json, max_size=4), st.booleans())
def test_any_list_is_read_or_refused(values, salvage):
    header = {"format": "napari-cmunet study images", "version": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.jsonl")
        text = "".join(json.dumps(v) + "\n" for v in [header, *values])
        path.write_text(text)
        table = ImageTable(path)
        try:
            table.load(salvage=salvage)
        except StudyDamagedError:
            assert not salvage
            return
        for record in table:
            assert not record.path.startswith("/")
            assert ".." not in record.path.split("/")
        table.save()
        again = ImageTable(path)
        again.load()
        assert list(again) == list(table)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.jsonl")
        path.write_bytes(data)
        try:
            ImageTable(path).load()
        except CMUNetError as error:
            assert "images.jsonl" in str(error)
        ImageTable(path).load(salvage=True)
