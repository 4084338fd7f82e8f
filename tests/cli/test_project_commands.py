"""``finetune PROJECT`` and ``export PROJECT``, while a window has the project open."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.errors import TrainingError
from napari_cmunet.io.masks.label_file import read_label, write_label
from napari_cmunet.model.registry import load_model
from napari_cmunet.project.project import Project
from napari_cmunet.project.training.finetuning import finetune_project
from napari_cmunet.training import events as training_events

pytestmark = pytest.mark.slow

TINY = ["--start", "random", "--width", "4", "--grid", "64", "--batch", "2"]
QUICK = [*TINY, "--no-comparison"]
EVENTS = ["--events", "-"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def project(tmp_path):
    """Fifteen patients, one frame and label each; open, as in a window."""
    random = np.random.default_rng(2)
    for number in range(15):
        folder = tmp_path / "images" / f"Roe-{number:02d}"
        folder.mkdir(parents=True)
        frame = random.integers(1, 250, (64, 64), dtype=np.uint8)
        np.save(folder / "a.npy", frame)
    mask = np.zeros((64, 64), bool)
    mask[10:50, 30:33] = True
    with Project.create(tmp_path / "project") as made:
        made.images.add([tmp_path / "images"], lambda path: path.parts[0])
        for image in made.images.ids():
            made.labels.accept(image, 0, mask, np.tri(64, dtype=bool))
        yield made


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_finetune_adds_a_model_that_says_what_it_learned_from(project, capsys):
    code = main(["finetune", str(project.folder), *TINY, "--steps", "2", *EVENTS])
    told = events(capsys.readouterr().out)
    assert code == 0
    assert told[0]["event"] == "planned"
    started = next(e for e in told if e["event"] == "started")
    assert (started["labels"], started["patients"]) == (15, 15)
    assert [e["event"] for e in told[-3:]] == ["saved", "comparing", "verdict"]
    assert project.models.names() == ["tuned-001"]
    folder = project.models.path("tuned-001")
    assert told[-3]["model"] == str(folder)
    card = load_model(folder).card
    assert (card.name, card.labels) == ("tuned-001", 15)
    record = project.models.training("tuned-001")
    assert {x["side"] for x in record["labels"]} == {"train", "validation"}
    assert b"Roe" not in b"".join(p.read_bytes() for p in folder.iterdir())
    project.models.register("tuned-001")
    project.models.promote("tuned-001")
    code = main(
        [
            "finetune",
            str(project.folder),
            *"--start current --steps 1 --batch 2 --name b".split(),
        ]
    )
    assert code == 0
    assert load_model(project.models.path("b")).card.parent == "tuned-001"
    # Said before the training, which would be lost.
    capsys.readouterr()
    assert main(["finetune", str(project.folder), "--name", "b", *EVENTS]) == 1
    told = capsys.readouterr()
    assert "already has a model named 'b'" in told.err
    assert not any(e["event"] == "started" for e in events(told.out))


def test_few_patients_are_left_out_in_turn(project, capsys):
    for image in project.images.ids()[3:]:
        project.labels.withdraw(image, 0)
    code = main(["finetune", str(project.folder), *QUICK, "--steps", "1", *EVENTS])
    told = events(capsys.readouterr().out)
    assert code == 0
    assert [e["folds"] for e in told if e["event"] == "fold"] == [4] * 4
    left_out = project.models.training("tuned-001")["left_out"]
    assert set(left_out) == {ref.patient for ref in project.labels.refs()}


def test_labels_that_cannot_be_used_are_told_without_names(project, capsys):
    project.images.path(project.images.ids()[0]).unlink()
    code = main(["finetune", str(project.folder), *QUICK, "--steps", "1", *EVENTS])
    out = capsys.readouterr().out
    assert code == 1  # one failed, the others were done
    assert project.models.names() == ["tuned-001"]
    assert any(e["event"] == "note" for e in events(out))
    assert "Roe" not in out


def test_a_large_label_is_learned_from_only_if_somebody_was_asked(project, capsys):
    old, confirmed = project.images.ids()[:2]
    large = np.zeros((64, 64), bool)
    large[:40] = True
    for image in (old, confirmed):
        project.labels.accept(image, 0, large)
    path = project.labels.path(old, 0)  # as a version that did not ask wrote it
    write_label(path, replace(read_label(path), note={}))
    order = ["finetune", str(project.folder), *QUICK, "--steps", "1", *EVENTS]
    assert main(order) == 1
    told = events(capsys.readouterr().out)
    notes = [e["text"] for e in told if e["event"] == "note"]
    (note,) = [text for text in notes if "62 % of it is artery" in text]
    assert note.startswith(f"Label {old}#0")
    assert "--large-masks keep" in note
    assert load_model(project.models.path("tuned-001")).card.labels == 14
    assert main([*order, "--large-masks", "keep"]) == 0
    assert load_model(project.models.path("tuned-002")).card.labels == 15
    with pytest.raises(SystemExit, match="2"):
        main([*order, "--large-masks", "invert"])


def test_images_that_were_moved(project, tmp_path, capsys):
    (tmp_path / "images").rename(tmp_path / "moved")
    order = ["finetune", str(project.folder), *QUICK, "--steps", "1"]
    assert main(order) == 1
    error = capsys.readouterr().err
    assert "--images" in error
    assert "Traceback" not in error
    assert main([*order, "--images", str(tmp_path / "moved")]) == 0


def test_a_project_without_labels(tmp_path, capsys):
    Project.create(tmp_path / "s").close()
    assert main(["finetune", str(tmp_path / "s"), *QUICK]) == 1
    assert "no accepted label" in capsys.readouterr().err
    assert main(["finetune", str(tmp_path / "none"), *QUICK]) == 1


def test_without_a_window_the_journal_is_kept(project):
    project.close()
    assert main(["finetune", str(project.folder), *QUICK, "--steps", "1"]) == 0
    with Project.open(project.folder, read_only=True) as reader:
        assert [e.what for e in reader.journal()][-1] == "trained"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--images", "a"],
        ["project", "--masks", "a"],
        ["project", "-o", "x"],
    ],
)
def test_bad_usage(options):
    with pytest.raises(SystemExit) as caught:
        main(["finetune", *options])
    assert caught.value.code == 2


def test_export(project, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(project.folder), "-o", str(out)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 15
    assert "Roe" not in (out / "index.csv").read_text()
    assert main(["export", str(project.folder), "-o", str(out)]) == 1
    assert "already holds" in capsys.readouterr().err
    again = ["export", str(project.folder), "-o", str(out), "--overwrite"]
    assert main([*again, "--original-names"]) == 0
    assert (out / "Roe-00" / "a.tif").is_file()


def test_exported_masks_are_the_labels(project, tmp_path):
    main(["export", str(project.folder), "-o", str(tmp_path / "out"), "--ones"])
    from napari_cmunet.io.masks.files import read_mask

    for ref in project.labels.refs():
        path = project.folder / "labels" / ref.image / "frame_0000.tif"
        exported = read_mask(tmp_path / "out" / f"{ref.image}.tif")
        assert np.array_equal(exported, read_label(path).mask)


def test_folds_are_left_out_before_steps(project):
    for image in project.images.ids()[4:]:
        project.labels.withdraw(image, 0)
    options = {"start": "random", "width": 4, "grid": 64, "steps": 30, "batch": 2}
    # A training takes 30 steps of 4 views of 10 ms: one fits, five do not.
    told: list[object] = []
    folder, _ = finetune_project(
        project.folder,
        options | {"minutes": 3 / 60},
        write=told.append,
        view_seconds=0.01,
    )
    assert folder is not None
    (plan,) = [e for e in told if isinstance(e, training_events.Planned)]
    assert "not compared" in plan.text
    assert not any(isinstance(e, training_events.Fold) for e in told)
    with pytest.raises(TrainingError, match="too short"):
        finetune_project(
            project.folder,
            options | {"minutes": 0.5 / 60},
            write=told.append,
            view_seconds=0.01,
        )
