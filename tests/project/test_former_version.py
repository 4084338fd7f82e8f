"""Projects of version 0.1, which were called studies: read, migrated, gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys

import numpy as np
import pytest
import tifffile

from napari_cmunet.errors import ReadError
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.model.card import CARD
from napari_cmunet.model.registry import WEIGHTS
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.files import is_project
from napari_cmunet.project.lock import ProjectLockedError
from napari_cmunet.project.models.history import ModelVersion
from napari_cmunet.project.project import Project
from napari_cmunet.project.settings import note_recent, recent_projects
from tests.project.project_making import SHAPE, mask_of, reopened

ID = "bd803d2b1bd7b7cf7e6968f2e73baec5"
SALT = "6c097be33f96df7fc166f7380c933d8fd0ed2657d63a20f3266aba1c516ca3fb"
BESIDE, DRAFTED, SKIPPED, INSIDE = (
    "50f143b95e33",
    "91a2a4831b78",
    "8878d5c280c8",
    "b23ccd11a0ad",
)
PATIENTS = {
    BESIDE: "843be9400d9cbd7c",
    DRAFTED: "117c04747a7809b0",
    SKIPPED: "4bee7ce769d3ef2b",
    INSIDE: "20a17472341f6a5d",
}


def write_tiff(path, pages, **record):
    record = {
        "content": "artery mask",
        "background": 0,
        "artery": 255,
        "pages": ["artery", "reviewed"][: len(pages)],
        "note": {},
        "pixel_size_mm": None,
        "schema": 1,
        "model": None,
        "model_sha256": None,
        "threshold": None,
        "device": None,
        "source_sha256": None,
        "frames": [0],
        "corrected": True,
        "created": "2026-11-29T14:25:21+00:00",
        "program": "napari-cmunet",
        "version": "0.1.0",
        **record,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([p.astype(np.uint8) * 255 for p in pages])
    record["shape"] = list(pixels.shape if len(pages) > 1 else SHAPE)
    tifffile.imwrite(
        path,
        pixels if len(pages) > 1 else pixels[0],
        photometric="minisblack",
        compression="zlib",
        description=json.dumps(record),
        metadata=None,
        software="napari-cmunet 0.1.0",
    )


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def study(tmp_path, home):
    """A folder as version 0.1 wrote it, with everything it may hold."""
    folder, pictures = tmp_path / "study", tmp_path / "pictures"
    for name in ("beside", "drafted", "skipped"):
        pictures.mkdir(exist_ok=True)
        frame = np.random.default_rng(len(name)).integers(1, 250, SHAPE, dtype=np.uint8)
        np.save(pictures / f"{name}.npy", frame)
    (folder / "inside").mkdir(parents=True)
    np.save(folder / "inside" / "x.npy", np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE))

    def write(name, *values):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(v, indent=None if len(values) > 1 else 1) for v in values]
        path.write_text("".join(line + "\n" for line in lines))

    files = {
        BESIDE: pictures / "beside.npy",
        DRAFTED: pictures / "drafted.npy",
        SKIPPED: pictures / "skipped.npy",
        INSIDE: folder / "inside" / "x.npy",
    }
    labels = {i: folder / "labels" / i / "frame_0000.tif" for i in (BESIDE, INSIDE)}
    whole, part = [mask_of(1)], [mask_of(2), mask_of(3)]
    write_tiff(labels[BESIDE], whole, source_sha256=sha256(files[BESIDE]))
    write_tiff(labels[INSIDE], part, source_sha256=sha256(files[INSIDE]))
    older = labels[BESIDE].parent / "older" / "frame_0000-001.tif"
    write_tiff(older, [mask_of(4)], source_sha256=sha256(files[BESIDE]))
    draft = folder / "drafts" / f"{DRAFTED}-frame_0000.tif"
    write_tiff(draft, [mask_of(5)], note={"base": ""}, frames=None)
    write(
        "study.json",
        {
            "format": "napari-cmunet study",
            "version": 1,
            "id": ID,
            "created": "2026-11-29T14:25:01+00:00",
            "salt": SALT,
            "about": "A study of napari-cmunet: labels/ holds the accepted masks.",
        },
    )
    records = [
        {
            "id": image,
            "root": "study" if image == INSIDE else "r1",
            "path": "inside/x.npy" if image == INSIDE else path.name,
            "patient": PATIENTS[image],
            "size": path.stat().st_size,
            "sha256": sha256(path) if image in labels else None,
            "shape": list(SHAPE) if image in labels else None,
            "frames": None,
        }
        for image, path in files.items()
    ]
    header = {"format": "napari-cmunet study images", "version": 1}
    write("images.jsonl", header, *records)
    plain = {"skipped": False, "flagged": False, "comment": ""}
    marks = {
        SKIPPED: plain | {"skipped": True},
        DRAFTED: plain | {"flagged": True, "comment": "hello"},
    }
    write("marks.json", {"version": 1, "images": marks})
    sides = {PATIENTS[BESIDE]: "train", PATIENTS[INSIDE]: "validation"}
    write("split.json", {"version": 1, "patients": sides})
    write("gains.json", {"version": 1, "models": {"f" * 64: {DRAFTED: 3.0}}})
    write("position.json", {"version": 1, "image": DRAFTED, "frame": 0})
    settings = {"title": "Old", "start": "cmunet-ssl", "finetune_every": 5}
    settings |= {"minutes": 10.0, "phantoms": 0, "next_image": "random"}
    write("settings.json", {"version": 1, **settings})
    weights = b"weights"
    model = {"name": "tuned-001", "sha256": hashlib.sha256(weights).hexdigest()}
    card = {"kind": "artery", "width": 4, "preprocessing": {}, **model}
    write(f"models/tuned-001/{CARD}", card)
    (folder / "models" / "tuned-001" / WEIGHTS).write_bytes(weights)
    learned = [{"image": BESIDE, "frame": 0, "sha256": sha256(labels[BESIDE])}]
    learned[0] |= {"patient": PATIENTS[BESIDE], "side": "train"}
    write("models/tuned-001/training.json", {"version": 1, "labels": learned})
    history = [
        {"name": "cmunet-artery", "sha256": "", "installed": True},
        {**model, "installed": False},
    ]
    write("models/current.json", {"version": 1, "history": history, "position": 1})
    entries = [
        {"what": "created"},
        {"what": "images_added", "count": 4},
        {"what": "accepted", "image": BESIDE, "frame": 0, "sha256": sha256(older)},
        {"what": "patient_assigned", "patient": PATIENTS[BESIDE], "side": "train"},
        {
            "what": "accepted",
            "image": BESIDE,
            "frame": 0,
            "sha256": sha256(labels[BESIDE]),
            "replaced": sha256(older),
            "seconds": 12.0,
        },
        {
            "what": "accepted",
            "image": INSIDE,
            "frame": 0,
            "sha256": sha256(labels[INSIDE]),
        },
        {"what": "patient_assigned", "patient": PATIENTS[INSIDE], "side": "validation"},
        {"what": "flagged", "image": DRAFTED},
        {"what": "skipped", "image": SKIPPED},
        {"what": "trained", "model": "tuned-001", "sha256": model["sha256"]},
        {
            "what": "promoted",
            "model": "tuned-001",
            "sha256": model["sha256"],
            "installed": False,
        },
    ]
    known = {"time": "2026-11-29T14:25:01+00:00", "user": "u"}
    lines = [{"n": n, **known, **e} for n, e in enumerate(entries, 1)]
    write("journal.jsonl", *lines)
    released = {"host": "elsewhere", "pid": 5, "token": "46206b4e1c53ed83"}
    released |= {"since": known["time"], "beat": known["time"], "released": True}
    (folder / "lock").write_text(json.dumps(released).ljust(511) + "\n")
    home.joinpath("studies").mkdir(parents=True)
    (home / "studies" / f"{ID}.json").write_text(json.dumps({"r1": str(pictures)}))
    recent = {"version": 1, "folders": [str(folder)]}
    (home / "recent-studies.json").write_text(json.dumps(recent))
    return folder


def contents(folder):
    return {
        p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def check(project):
    """Everything that the folder held is there."""
    assert project.take_notices() == []
    assert project.id == ID
    assert project.images.ids() == [BESIDE, DRAFTED, SKIPPED, INSIDE]
    assert project.images.missing() == []
    np.testing.assert_array_equal(project.labels.get(BESIDE, 0).mask, mask_of(1))
    label = project.labels.get(INSIDE, 0)
    np.testing.assert_array_equal(label.mask, mask_of(2))
    np.testing.assert_array_equal(label.reviewed, mask_of(3))
    assert next(r.side for r in project.labels.refs()) == "train"
    assert project.labels.sides()[PATIENTS[INSIDE]] == "validation"
    assert project.status(SKIPPED).state == "skipped"
    assert project.status(DRAFTED).comment == "hello"
    assert project.status(DRAFTED).flagged
    assert project.position == (DRAFTED, 0)
    settings = project.settings
    assert (settings.title, settings.finetune_every) == ("Old", 5)
    assert settings.next_image == "random"
    assert project.models.current.name == "tuned-001"
    assert project.models.folder().is_dir()
    assert project.models.learned_patients(ModelVersion("tuned-001")) == {
        PATIENTS[BESIDE]
    }
    assert project._scores.of("f" * 64) == {DRAFTED: 3.0}


def test_a_former_project_is_read_without_a_change(study):
    before = contents(study)
    assert is_project(study)
    with Project.open(study, read_only=True) as project:
        check(project)
        np.testing.assert_array_equal(project.drafts.load(DRAFTED, 0).mask, mask_of(5))
        assert [label.ref.image for label in project.labels.read()] == [BESIDE, INSIDE]
    assert contents(study) == before


def test_a_former_project_goes_on(study, tmp_path, home):
    before = contents(study)
    with Project.open(study) as project:
        check(project)
        np.testing.assert_array_equal(project.drafts.load(DRAFTED, 0).mask, mask_of(5))
        assert project.labels.accept(DRAFTED, 0, mask_of(6)).notice == ""
        project.labels.restore(project.labels.older(BESIDE, 0)[0])
        project.images.add([tmp_path / "pictures" / "skipped.npy", study / "inside"])
        project.flag(BESIDE)
    with Project.open(study) as project:
        assert project.take_notices() == []
        assert len(project.images) == 4  # known under their former roots
        assert project.images.missing() == []
        np.testing.assert_array_equal(project.labels.get(DRAFTED, 0).mask, mask_of(6))
        np.testing.assert_array_equal(project.labels.get(BESIDE, 0).mask, mask_of(4))
        assert project.status(BESIDE).flagged
        assert project.status(DRAFTED).comment == "hello"
        exported = export_masks(project, tmp_path / "out")
        assert (exported.labels, exported.problems) == (3, ())
        masks = read_mask(tmp_path / "out" / f"{DRAFTED}.tif")
        assert np.array_equal(np.squeeze(masks), mask_of(6))
    names = {p.name for p in study.iterdir()}
    assert {"project.json", "flags.json", "acquisition_scores.json"} <= names
    # The former program finds no study here any more, so it cannot write an old state.
    assert not {"study.json", "marks.json", "gains.json"} & names
    after = contents(study).values()
    label = [k for k in before if k.parts[0] == "labels"]
    assert all(before[k] in after for k in label)  # no label is lost


def test_the_users_own_data_are_taken_over(study, tmp_path, home):
    assert recent_projects() == [study]
    with Project.create(tmp_path / "another"):
        note_recent(tmp_path / "another")
    assert recent_projects() == [tmp_path / "another", study]
    with Project.open(study) as project:
        extra = tmp_path / "extra"
        extra.mkdir()
        np.save(extra / "y.npy", np.ones(SHAPE, np.uint8))
        project.images.add([extra])
    saved = json.loads((home / "projects" / f"{ID}.json").read_text())
    assert set(saved) == {"r1", "r2"}
    with Project.open(study) as project:
        assert project.images.missing() == []


@pytest.mark.parametrize("renamed", range(3))
def test_a_migration_that_a_crash_cut_short_is_completed(study, renamed):
    pairs = [("marks.json", "flags.json"), ("gains.json", "acquisition_scores.json")]
    for old, new in pairs[:renamed]:
        (study / old).rename(study / new)
    with Project.open(study) as project:
        check(project)
        check(reopened(project))


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_the_former_program_holds_the_lock(study):
    import fcntl

    before = contents(study)
    descriptor = os.open(study / "lock", os.O_RDWR)
    with contextlib.closing(os.fdopen(descriptor, "r+b")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ProjectLockedError):
            Project.open(study)
        assert contents(study) == before
        with Project.open(study, read_only=True) as project:
            check(project)
    Project.open(study).close()


def test_a_folder_without_a_marker_is_none(study):
    (study / "study.json").unlink()
    with pytest.raises(ReadError, match="not a project"):
        Project.open(study)
