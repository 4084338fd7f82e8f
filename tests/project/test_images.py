from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cmunet.errors import (
    Cancelled,
    CMUNetError,
    ImageMissingError,
    ProjectDamagedError,
    ProjectVersionError,
    ReadError,
)
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import write_mask
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.image_records import read_records, write_records
from napari_cmunet.project.patients import by_csv, by_folder, by_prefix
from napari_cmunet.project.project import Project
from tests.project.project_making import mask_of, reopened, save_pictures


def paths(project) -> list[str]:
    return [record.path for record in project.images]


# -- adding -------------------------------------------------------------------


def test_adding_reads_no_image(project, pictures):
    assert len(project.images) == 6
    assert paths(project)[0] == "patient-0/frame-0.npy"
    record = next(iter(project.images))
    assert record.sha256 is None
    assert record.size == (pictures / record.path).stat().st_size
    assert project.images.path(record.id) == pictures / record.path


def test_adding_again_adds_nothing(project, pictures):
    added = project.images.add([pictures, pictures / "patient-1"])
    assert (added.images, added.known) == ((), 6)
    save_pictures(pictures, 8)
    added = project.images.add([pictures])
    assert (len(added.images), added.known) == (2, 6)
    with reopened(project) as again:
        assert len(again.images) == 8


@pytest.mark.parametrize("frames", [1, 3])
def test_masks_exported_beside_the_images_are_no_images(project, pictures, frames):
    exported = pictures / "patient-0" / "frame-0.tif"
    mask = np.zeros((frames, 64, 64), bool)
    mask[:, 20:30] = True
    write_mask(exported, mask, Provenance(model="mine"), pixel_size_mm=(0.2, 0.2))
    tifffile.imwrite(pictures / "patient-1" / "new.tif", mask[0].astype(np.uint8))
    added = project.images.add([pictures])
    assert [project.images[i].path for i in added.images] == ["patient-1/new.tif"]
    assert len(project.images.add([exported]).images) == 1  # it is asked for by name


def test_no_path_of_this_computer_is_in_the_project(project, pictures):
    for path in project.folder.iterdir():
        if path.is_file():
            assert str(pictures.parent) not in path.read_text()


def test_images_in_the_project_folder_are_found_wherever_it_goes(tmp_path):
    folder = tmp_path / "project"
    save_pictures(folder / "pictures", 2)
    with Project.create(folder) as made:
        made.images.add([folder])
        assert {record.root for record in made.images} == {"project"}
        made.labels.accept(made.images.ids()[0], 0, mask_of(1))
        # Its own masks are no images of it.
        assert made.images.add([folder]).images == ()
    moved = folder.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    with Project.open(moved) as again:
        assert again.images.missing() == []


def test_files_that_cannot_be_added_are_named(project, tmp_path):
    added = project.images.add([tmp_path / "none.png"])
    assert added.images == ()
    assert "none.png" in added.problems[0]
    odd = tmp_path / "odd"
    odd.mkdir()
    np.save(odd / "nul.npy", np.zeros((40, 40), np.uint8))
    added = project.images.add([odd])
    assert added.images == ()
    assert "nul.npy" in added.problems[0]


def test_adding_can_be_stopped(project, pictures):
    save_pictures(pictures, 8)
    with pytest.raises(Cancelled):
        project.images.add([pictures], should_stop=lambda: True)
    assert len(project.images) == 6


def test_names_of_any_script(tmp_path, project):
    folder = tmp_path / "Ärzte 心臓"
    folder.mkdir()
    np.save(folder / "é è.npy", np.eye(40, dtype=np.uint8))
    (image,) = project.images.add([folder]).images
    with reopened(project) as again:
        assert read_angiogram(again.images.found_path(image)).shape == (40, 40)


# -- patients -----------------------------------------------------------------


def test_patients_are_hashed_with_the_salt(project, tmp_path, pictures):
    groups = [record.patient for record in project.images]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    with Project.create(tmp_path / "other") as other:
        other.images.add([pictures], lambda path: path.parts[0])
        assert {r.patient for r in other.images}.isdisjoint(groups)
    assert "patient" not in "".join(groups)


def test_without_a_rule_each_image_is_its_own_patient(tmp_path, pictures):
    with Project.create(tmp_path / "s") as made:
        added = made.images.add([pictures])
        assert len(added.images) == 6
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


# -- moved, copied, on another computer -----------------------------------------


def test_moved_project(project, tmp_path):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    project.close()
    moved = project.folder.rename(tmp_path / "a b")
    with Project.open(moved) as again:
        assert (again.labels.get(image, 0).mask == mask_of(1)).all()
        assert again.images.missing() == []


def test_copied_project(project, tmp_path):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    left_out = shutil.ignore_patterns("lock")
    shutil.copytree(project.folder, tmp_path / "copy", ignore=left_out)
    with Project.open(tmp_path / "copy") as copy:  # while the other is open
        assert copy.images.missing() == []
        copy.labels.accept(image, 0, mask_of(2))
        assert (project.labels.get(image, 0).mask == mask_of(1)).all()


@pytest.fixture
def elsewhere(project, pictures, tmp_path, home):
    """The project on a computer that does not know where its images are."""
    for image in project.images.ids():
        project.images.learn_facts(image, project.images.hash_of(image))
    project.close()
    shutil.rmtree(home)
    moved = pictures.rename(tmp_path / "carried")
    with Project.open(project.folder) as opened:
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
    with Project.open(opened.folder, read_only=True) as reader:
        assert reader.images.relink(moved).missing == ()


def test_what_reading_shows_is_kept(project):
    image = project.images.ids()[0]
    project.images.learn(image, read_angiogram(project.images.found_path(image)))
    with reopened(project) as again:
        record = again.images[image]
        assert (record.shape, record.frames) == ((40, 48), 1)
        assert record.sha256 == again.images.hash_of(image)


def test_places_of_the_user_may_be_damaged_or_unwritable(project, home, monkeypatch):
    (file,) = (home / "projects").iterdir()
    file.write_text("{")
    with reopened(project) as again:
        assert len(again.images.missing()) == 6
        file.unlink()
        file.parent.rmdir()
        file.parent.write_text("in the way")
        pictures = project.folder.parent / "pictures"
        assert again.images.relink(pictures).missing == ()
        assert any("asked again" in text for text in again.take_notices())


# -- damaged and hostile -------------------------------------------------------


def lines(project) -> list[dict]:
    text = (project.folder / "images.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write_lines(project, values) -> None:
    text = "".join(json.dumps(value) + "\n" for value in values)
    (project.folder / "images.jsonl").write_text(text)


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
def test_a_line_that_must_not_be(project, change):
    project.close()
    values = lines(project)
    values[2] |= change
    write_lines(project, values)
    before = (project.folder / "images.jsonl").read_bytes()
    with pytest.raises(ProjectDamagedError, match=r"line 3 of images\.jsonl"):
        Project.open(project.folder)
    assert (project.folder / "images.jsonl").read_bytes() == before
    with Project.open(project.folder, salvage=True) as again:
        assert len(again.images) == 5
        assert "left out" in again.take_notices()[0]
        kept = list(project.folder.glob("images.jsonl.damaged-*"))
        assert [path.read_bytes() for path in kept] == [before]
    Project.open(project.folder).close()


def test_an_image_twice(project):
    project.close()
    write_lines(project, [*lines(project), lines(project)[1]])
    with pytest.raises(ProjectDamagedError, match="twice"):
        Project.open(project.folder)


def test_labels_survive_the_loss_of_the_list(project, pictures):
    ids = project.images.ids()
    project.labels.accept(ids[0], 0, mask_of(1))
    project.close()
    (project.folder / "images.jsonl").write_bytes(b"\0" * 500)
    with pytest.raises(ProjectDamagedError, match="The labels are not affected"):
        Project.open(project.folder)
    with Project.open(project.folder, salvage=True) as again:
        assert again.images.ids() == [ids[0]]
        assert again.images.missing() == [ids[0]]
        assert again.images.relink(pictures).missing == ()
        (label,) = again.labels.read()
        assert (label.mask == mask_of(1)).all()


def test_a_newer_list_is_left_alone(project):
    project.close()
    values = lines(project)
    values[0]["version"] = 2
    write_lines(project, values)
    for options in ({}, {"read_only": True}, {"salvage": True}):
        before = {p: p.read_bytes() for p in project.folder.iterdir() if p.is_file()}
        with pytest.raises(ProjectVersionError, match="Update"):
            Project.open(project.folder, **options)
        before.pop(project.folder / "lock")
        assert all(path.read_bytes() == data for path, data in before.items())


def test_images_in_the_project_reached_by_links_are_refused(tmp_path):
    secret = tmp_path / "secret"
    save_pictures(secret, 1)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pictures").symlink_to(secret, target_is_directory=True)
    with Project.create(folder) as made:
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
        "root": st.sampled_from(["r1", "project", "..", "/"]) | _json,
        "path": st.sampled_from(["a/b.png", "", "../a", "/a", "nul"]) | _json,
        "patient": st.sampled_from(["0" * 16, "Ann"]) | _json,
    },
    optional={"sha256": _json, "shape": _json, "frames": _json, "size": _json},
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_record | _json, max_size=4), st.booleans())
@pytest.mark.slow
def test_any_list_is_read_or_refused(values, salvage):
    header = {"format": "napari-cmunet project images", "version": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.jsonl")
        text = "".join(json.dumps(v) + "\n" for v in [header, *values])
        path.write_text(text)
        try:
            table, _ = read_records(path, salvage=salvage)
        except ProjectDamagedError:
            assert not salvage
            return
        for record in table.values():
            assert not record.path.startswith("/")
            assert ".." not in record.path.split("/")
        write_records(path, table.values())
        again, _ = read_records(path, salvage=False)
        assert list(again.items()) == list(table.items())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.jsonl")
        path.write_bytes(data)
        try:
            read_records(path, salvage=False)
        except CMUNetError as error:
            assert "images.jsonl" in str(error)
        read_records(path, salvage=True)
