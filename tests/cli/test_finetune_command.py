"""finetune and evaluate on folders: pairing, splitting, budgets, bad labels."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from napari_cmunet.cli import finetune as finetune_command
from napari_cmunet.cli.evaluate import MEASURES
from napari_cmunet.cli.label_folders import number_patients, read_label_folders
from napari_cmunet.cli.main import main
from napari_cmunet.io.masks.files import read_mask, write_mask
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.model.card import read_card
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model, save_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training import events
from napari_cmunet.training import loop as engine
from napari_cmunet.training import stage as command
from napari_cmunet.training.config import WISE_FT_PRIOR
from napari_cmunet.training.evaluation.metrics import score
from napari_cmunet.training.evaluation.validation import (
    split_by_patient,
    validates,
)
from tests.io.dicom_making import write_dicom

TINY = ["--start", "random", "--width", "2", "--grid", "32", "--steps", "6"]


@pytest.fixture(scope="module")
def phantoms():
    return [make_frame(PhantomConfig(seed=s, size=64)) for s in range(12)]


@pytest.fixture
def folders(tmp_path, phantoms):
    """A folder of images, one of masks; returns a function that fills them."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()

    def fill(count, values=(0, 255)):
        for i, (frame, mask) in enumerate(phantoms[:count]):
            Image.fromarray(frame).save(images / f"case{i}.png")
            grey = np.where(mask, values[1], values[0]).astype(np.uint8)
            Image.fromarray(grey).save(masks / f"case{i}.png")
        return images, masks

    return fill


def finetune(images, masks, output, *more):
    return main(
        [
            "finetune",
            "--images",
            str(images),
            "--masks",
            str(masks),
            "-o",
            str(output),
            *TINY,
            *map(str, more),
        ]
    )


def read_events(path):
    return [events.from_line(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_model_with_its_lineage_comes_out(folders, tmp_path, capsys):
    images, masks = folders(10)
    out, log = tmp_path / "mine", tmp_path / "log.jsonl"
    out.mkdir()
    (out / "card.json").write_text("that of an older model")

    assert finetune(images, masks, out, "--events", log) == 0

    assert capsys.readouterr().out.strip() == str(out)
    card = load_model(out).card
    assert (card.name, card.kind, card.width, card.labels) == ("mine", "artery", 2, 10)
    assert card.preprocessing.grid == 32
    told = read_events(log)
    replaced = f"{out} holds a model already. The new one will replace it."
    assert events.Note(replaced) in told
    started = next(e for e in told if isinstance(e, events.Started))
    assert (started.labels, started.patients) == (10, 10)
    assert 0 <= card.metrics["validation"]["dice"] <= 1
    assert "left out in turn" in card.metrics["validation"]["protocol"]
    assert told[-1] == events.Saved(str(out))


def test_events_that_cannot_be_written_are_an_error(folders, tmp_path, capsys):
    log = tmp_path / "missing" / "events.jsonl"
    assert finetune(*folders(2), tmp_path / "out", "--events", log) == 1
    assert "events.jsonl: its folder does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_masks_that_leave_arteries_out_are_completed_by_the_start(
    folders, tmp_path, tiny_model, capsys
):
    images, masks = folders(3)
    log, options = tmp_path / "log.jsonl", ["--steps", "2", "--no-validation"]
    more = ["--partial-labels", "--start", tiny_model, "--events", log]
    given = ["--images", images, "--masks", masks, "-o", tmp_path / "a"]
    assert main(["finetune", *map(str, [*given, *options, *more])]) == 0
    notes = [e.text for e in read_events(log) if isinstance(e, events.Note)]
    assert any("completes the masks" in note for note in notes)
    more = ("--partial-labels", "--no-validation")
    assert finetune(images, masks, tmp_path / "b", *more) == 1
    assert "Choose another --start" in capsys.readouterr().err


def test_masks_that_leave_arteries_out_tell_no_dice(folders, tmp_path, capsys):
    images, masks = folders(3)
    assert finetune(images, masks, tmp_path / "b", "--partial-labels") == 1
    assert "--val-masks" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_what_completing_the_masks_ran_into_is_told(
    folders, tmp_path, tiny_model, monkeypatch
):
    images, masks = folders(3)
    run, runs = Predictor._run, []

    def short_of_memory(self, *args):
        runs.append(args)
        if len(runs) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, *args)

    monkeypatch.setattr(Predictor, "_run", short_of_memory)
    log = tmp_path / "log.jsonl"
    given = ["--images", images, "--masks", masks, "-o", tmp_path / "a"]
    options = ["--steps", "2", "--no-validation", "--start", tiny_model]
    more = ["--partial-labels", "--events", log]
    assert main(["finetune", *map(str, [*given, *options, *more])]) == 0
    notes = [e.text for e in read_events(log) if isinstance(e, events.Note)]
    assert "Out of memory: the frame is predicted in tiles from now on." in notes


@pytest.mark.slow
def test_a_start_that_finds_arteries_is_kept_in_part(folders, tmp_path, monkeypatch):
    images, masks = folders(2)
    kept = []

    def spy(network, frames, config, **options):
        kept.append(config.wise_ft_prior)
        return engine.finetune(network, frames, config, **options)

    monkeypatch.setattr(command, "finetune", spy)
    first, second = tmp_path / "first", tmp_path / "second"
    assert finetune(images, masks, first, "--no-validation") == 0
    model = load_model(first)
    save_model(first, model.network.state_dict(), replace(model.card, threshold=0.8))
    assert finetune(images, masks, second, "--no-validation", "--start", first) == 0
    assert kept == [0.0, WISE_FT_PRIOR, WISE_FT_PRIOR]  # of a quick and a deep stage
    card = read_card(second)
    assert card.threshold == 0.65  # half way
    assert card.description == (
        "Fine-tuned on 2 labels. 25% of it is the model it started from."
    )


@pytest.mark.slow
def test_the_next_model_starts_from_the_last_out_loud(folders, tmp_path):
    images, masks = folders(3)
    assert finetune(images, masks, tmp_path / "first", "--no-validation") == 0
    log = tmp_path / "log.jsonl"

    code = main(
        [
            "finetune",
            "--images",
            str(images),
            "--masks",
            str(masks),
            "--steps",
            "2",
            "--start",
            str(tmp_path / "first"),
            "-o",
            str(tmp_path / "second"),
            "--no-validation",
            "--events",
            str(log),
        ]
    )

    assert code == 0
    card, parent = read_card(tmp_path / "second"), read_card(tmp_path / "first")
    assert (card.parent, card.parent_sha256) == ("first", parent.sha256)
    started = next(e for e in read_events(log) if isinstance(e, events.Started))
    assert started.receipt.startswith("134 of 134 encoder and decoder tensors")


@pytest.mark.slow
def test_few_patients_are_left_out_in_turn(folders, tmp_path):
    images, masks = folders(3)
    log = tmp_path / "log.jsonl"

    assert finetune(images, masks, tmp_path / "out", "--events", log) == 0

    told = read_events(log)
    folds = [e for e in told if isinstance(e, events.Fold)]
    assert len(folds) == 4  # the last one has them all
    started = [e for e in told if isinstance(e, events.Started)]
    assert [e.labels for e in started] == [3]


@pytest.mark.slow
def test_patients_of_the_csv_are_kept_together(folders, tmp_path):
    images, masks = folders(12)
    table = tmp_path / "patients.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stem", "patient"])
        rows.writerows([f"case{i}", f"patient{i // 2}"] for i in range(12))
    log = tmp_path / "log.jsonl"

    code = finetune(
        images, masks, tmp_path / "out", "--patients", table, "--events", log
    )

    assert code == 0
    started = next(e for e in read_events(log) if isinstance(e, events.Started))
    assert (started.labels, started.patients) == (12, 6)


def test_a_patient_never_changes_sides():
    few = [f"p{i}" for i in range(10)]
    many = [f"p{i}" for i in range(100)]
    held_few = {few[i] for i in split_by_patient(few)[1]}
    held_many = {many[i] for i in split_by_patient(many)[1]}

    assert held_few == held_many & set(few)
    assert 10 <= len(held_many) <= 30
    assert all(validates(p) for p in held_many)


@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_masks_of_0_1_and_0_255_mean_the_same(folders, tmp_path, values):
    images, masks = folders(2, values)

    assert finetune(images, masks, tmp_path / "out", "--no-validation") == 0

    assert read_mask(masks / "case0.png").any()


def spoil_size(images, masks):
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(masks / "case0.png")


def spoil_all(images, masks):
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(masks / "case0.png")


def spoil_white(images, masks):
    mask = read_mask(masks / "case0.png")
    Image.fromarray(~mask * np.uint8(255)).save(masks / "case0.png")


def spoil_orphan(images, masks):
    (images / "case0.png").unlink()


def spoil_image(images, masks):
    (images / "case0.png").write_bytes(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (spoil_size, "own grid"),
        (spoil_all, "all of it is artery"),
        (spoil_white, "--large-masks invert"),
        (spoil_orphan, "no image has this stem"),
        (spoil_image, "case0.png"),
    ],
)
def test_a_bad_label_is_named_and_the_others_train(
    folders, tmp_path, capsys, spoil, word
):
    images, masks = folders(3)
    spoil(images, masks)

    assert finetune(images, masks, tmp_path / "out", "--no-validation") == 1

    assert word in capsys.readouterr().err
    assert load_model(tmp_path / "out").card.labels == 2


def test_masks_drawn_black_on_white_are_turned_on_demand(folders, tmp_path, capsys):
    images, masks = folders(3)
    spoil_white(images, masks)
    out = tmp_path / "out"
    words = ["--no-validation", "--large-masks", "invert"]
    assert finetune(images, masks, out, *words) == 0
    assert load_model(out).card.labels == 3


def test_a_mask_of_the_inverted_image_comes_with_inverted_pixels(folders):
    images, masks = folders(2)
    _, of_bright = sorted(masks.iterdir())
    mask = read_mask(of_bright)
    of_bright.unlink()
    write_mask(masks / "case1.tif", mask, Provenance(inverted=True))
    dark, bright = read_label_folders([images], [masks]).labels
    for label, name, turned in ((dark, "case0", False), (bright, "case1", True)):
        with Image.open(images / f"{name}.png") as picture:
            stored = np.asarray(picture)
        assert np.array_equal(label.frame, 255 - stored if turned else stored)


@pytest.mark.parametrize(("corrected", "frames"), [(True, [0, 1, 2]), (False, [0, 2])])
def test_an_empty_frame_that_a_reader_corrected_is_a_label(
    folders, phantoms, corrected, frames
):
    images, masks = folders(0)
    pixels, stack = map(np.stack, zip(*phantoms[:3], strict=True))
    stack[1] = False
    np.save(images / "run.npy", pixels)
    write_mask(masks / "run.tif", stack, Provenance(corrected=corrected))
    found = read_label_folders([images], [masks])
    assert [label.name for label in found.labels] == [f"run#{n}" for n in frames]
    for label, frame in zip(found.labels, frames, strict=True):
        assert np.array_equal(label.frame, pixels[frame])
        assert np.array_equal(label.mask, stack[frame])
    empty = "run: no artery in 1 label; counts as background."
    assert (empty in found.notes) == corrected


def test_only_the_reviewed_part_is_learned(folders, phantoms):
    images, masks = folders(2)
    (masks / "case0.png").unlink()
    seen = np.ones((64, 64), bool)
    seen[:20] = False
    write_mask(masks / "case0.tif", phantoms[0][1], Provenance())
    write_mask(masks / "case0_reviewed.tif", seen, Provenance())
    found = read_label_folders([images], [masks])
    part, whole = found.labels
    assert np.array_equal(part.reviewed, seen)
    assert whole.reviewed is None
    assert any(note.startswith("1 label reviewed in part") for note in found.notes)


def test_only_the_reviewed_part_is_scored(folders, phantoms, tmp_path, tiny_model):
    images, masks = folders(1)
    (masks / "case0.png").unlink()
    model = load_model(tiny_model)
    predictor = Predictor(model, torch.device("cpu"))
    found = mask_at(predictor.predict(phantoms[0][0]), model.card.threshold)
    seen = np.zeros((64, 64), bool)
    seen[:32] = True
    assert (found & seen).any()
    write_mask(masks / "case0.tif", found ^ ~seen, Provenance())
    write_mask(masks / "case0_reviewed.tif", seen, Provenance())
    out = tmp_path / "scores.json"
    words = ["evaluate", "--images", images, "--masks", masks, "--json", out]
    words += ["--model", tiny_model, "--large-masks", "keep"]
    assert main([*map(str, words)]) == 0
    assert json.loads(out.read_text())["images"]["case0"]["dice"] == 1.0


def test_a_mask_of_another_image_file_is_told(folders, phantoms):
    images, masks = folders(2)
    (masks / "case0.png").unlink()
    other = Provenance(source_sha256="0" * 64)
    write_mask(masks / "case0.tif", phantoms[0][1], other)
    found = read_label_folders([images], [masks])
    assert found.problems == []
    note = (
        "case0.tif: made of another image file than case0.png; do both show the same?"
    )
    assert note in found.notes


def test_a_mask_of_some_frames_is_of_those(folders, phantoms):
    images, masks = folders(0)
    pixels, stack = map(np.stack, zip(*phantoms[:3], strict=True))
    np.save(images / "run.npy", pixels)
    write_mask(masks / "run.tif", stack[1:], Provenance(frames=(1, 2)))
    labels = read_label_folders([images], [masks]).labels
    assert [label.name for label in labels] == ["run#1", "run#2"]


def test_patients_are_numbered_on_the_same_side(tmp_path, phantoms):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for i, (frame, mask) in enumerate(phantoms):
        write_dicom(images / f"case{i}.dcm", frame, PatientID=f"KH-{i // 2}")
        write_mask(masks / f"case{i}.tif", mask, Provenance())
    labels = read_label_folders([images], [masks]).labels
    numbered = number_patients(labels)
    assert not any("KH-" in label.patient for label in numbered)
    pairs = {(a.patient, b.patient) for a, b in zip(labels, numbered, strict=True)}
    assert len(pairs) == len({new for _, new in pairs}) == 6
    assert all(validates(old) == validates(new) for old, new in pairs)


def test_the_same_image_twice_counts_once(folders, tmp_path, capsys):
    images, masks = folders(3)
    (images / "again.png").write_bytes((images / "case0.png").read_bytes())
    (masks / "again.png").write_bytes((masks / "case0.png").read_bytes())

    assert finetune(images, masks, tmp_path / "out", "--no-validation") == 0

    assert "the same image as" in capsys.readouterr().err
    assert load_model(tmp_path / "out").card.labels == 3


def test_a_mask_that_is_left_out_is_not_said_to_be_background(folders):
    images, masks = folders(1)
    (images / "again.png").write_bytes((images / "case0.png").read_bytes())
    for name in ("again", "case0"):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(masks / f"{name}.png")
    assert read_label_folders([images], [masks]).notes == [
        "again: no artery in 1 label; counts as background.",
        "case0: the same image as again; left out.",
    ]


def test_background_alone_teaches_nothing(folders, tmp_path, capsys):
    images, masks = folders(2)
    for path in masks.iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)

    assert finetune(images, masks, tmp_path / "out", "--no-validation") == 1

    assert "nothing to learn" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_named(folders, tmp_path, capsys):
    images, _ = folders(2)

    assert finetune(images, tmp_path / "nowhere", tmp_path / "out") == 1

    assert "nowhere: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nope", "nope: there is no such folder."),
        ("nope.png", "nope.png: there is no such file."),
        ("empty", "empty: there is no image in this folder."),
    ],
)
def test_images_that_are_not_there_are_no_wrong_names(
    folders, tmp_path, tiny_model, capsys, name, said
):
    _, masks = folders(2)
    (tmp_path / "empty").mkdir()
    images = tmp_path / name
    assert finetune(images, masks, tmp_path / "out") == 1
    words = ["evaluate", "--images", images, "--masks", masks, "--model", tiny_model]
    assert main([*map(str, words)]) == 1
    assert capsys.readouterr().err == f"napari-cmunet: {said}\n" * 2


def test_a_folder_without_masks_is_told_from_one_that_is_not_there(folders, tmp_path):
    images, _ = folders(1)
    (tmp_path / "empty").mkdir()
    found = read_label_folders([images], [tmp_path / "empty", tmp_path / "nope"])
    assert found.problems == [
        "empty: there is no mask in this folder.",
        "nope: there is no such file or folder.",
    ]


def test_a_patient_on_both_sides_is_refused(folders, tmp_path, capsys):
    images, masks = folders(4)

    code = finetune(
        images, masks, tmp_path / "out", "--val-images", images, "--val-masks", masks
    )

    assert code == 1
    assert "both in training and in validation" in capsys.readouterr().err


def test_evaluate_agrees_with_the_masks_that_segment_writes(
    folders, tmp_path, tiny_model, capsys, phantoms
):
    images, masks = folders(4)
    report, worst = tmp_path / "report.json", tmp_path / "worst.png"

    code = main(
        [
            "evaluate",
            "--images",
            str(images),
            "--masks",
            str(masks),
            "--model",
            str(tiny_model),
            "--json",
            str(report),
            "--worst",
            str(worst),
        ]
    )

    assert code == 0
    said = capsys.readouterr().out
    assert f"{tiny_model.name}: 4 frames of 4 patients" in said
    assert "where one mask is empty" not in said
    result = json.loads(report.read_text())
    segmented = main(
        ["segment", str(images), "-o", str(tmp_path / "o"), "--model", str(tiny_model)]
    )
    assert segmented == 0
    for i in range(4):
        expected = score(read_mask(tmp_path / "o" / f"case{i}.tif"), phantoms[i][1])
        got = result["images"][f"case{i}"]
        assert got["dice"] == pytest.approx(expected.dice)
        assert got["cldice"] == pytest.approx(expected.cldice)
    mean, low, high = result["mean"]["dice"]
    assert low <= mean <= high
    assert Image.open(worst).size == (768, 4 * 384)


def test_what_segment_writes_beside_masks_is_no_mask(
    folders, tmp_path, tiny_model, capsys
):
    images, _ = folders(2)
    out, model = str(tmp_path / "o"), ["--model", str(tiny_model)]
    extras = ["--overlay", "--probability", "--probability-float32", "--record"]
    assert main(["segment", str(images), "-o", out, *extras, *model]) == 0
    assert len(list((tmp_path / "o").glob("*_overlay.png"))) == 2
    words = ["evaluate", "--images", str(images), "--masks", out, *model]
    assert main([*words, "--large-masks", "keep"]) == 0
    said = capsys.readouterr()
    assert "2 frames of 2 patients" in said.out
    assert "no image has this stem" not in said.err
    # A mask without an image is a problem as before, whatever it is called.
    (tmp_path / "o" / "case0_overlay.png").rename(tmp_path / "o" / "b_overlay.png")
    assert main([*words, "--large-masks", "keep"]) == 1
    assert "b_overlay.png" in capsys.readouterr().err


def test_frames_without_a_distance_are_said(folders, tmp_path, tiny_model, capsys):
    images, masks = folders(2)
    path = sorted(masks.iterdir())[0]
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    words = ["evaluate", "--images", str(images), "--masks", str(masks)]
    assert main([*words, "--model", str(tiny_model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("hd95")
    assert lines[-1].endswith("without 1 frame where one mask is empty")


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_few_patients_have_no_interval(folders, tmp_path, tiny_model, capsys, patients):
    images, masks = folders(3)
    table, report = tmp_path / "patients.csv", tmp_path / "report.json"
    rows = [f"case{i},p{i % patients}" for i in range(3)]
    table.write_text("\n".join(["stem,patient", *rows]))
    words = ["evaluate", "--images", images, "--masks", masks, "--model", tiny_model]
    words += ["--patients", table, "--json", report]
    assert main([*map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(MEASURES)
    for line, name in zip(lines, MEASURES, strict=True):
        mean, low, high = json.loads(report.read_text())["mean"][name]
        unit = " px" if name == "hd95" else ""
        if patients < 3:
            assert (low, high) == (None, None)
            interval = "too few patients for an interval"
        else:
            assert low < mean < high
            interval = f"95 % {low:.4f} to {high:.4f}"
        assert line == f"{name:10} {mean:.4f}{unit}  ({interval})"


def test_what_is_adapted_without_a_training_is_told(
    folders, tmp_path, tiny_model, capsys
):
    images, masks = folders(1)
    out = tmp_path / "mine"
    words = ["finetune", "--images", images, "--masks", masks, "-o", out]
    words += ["--no-training", "--start", tiny_model]
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr()
    card = read_card(out)
    chosen = f"threshold {card.threshold:.2f}, grid {card.preprocessing.grid}"
    assert chosen in said.err
    assert "mine: not compared on left-out patients" in said.err
    assert said.out.strip() == str(out)


def test_a_model_of_a_stopped_training_is_said_to_be_unmeasured(
    folders, tmp_path, tiny_model, monkeypatch, capsys
):
    images, masks = folders(3)
    log = tmp_path / "log.jsonl"

    @contextmanager
    def stop_soon():
        yield lambda: any(isinstance(e, events.Step) for e in read_events(log))

    monkeypatch.setattr(finetune_command, "stop_on_signals", stop_soon)
    words = ["finetune", "--images", images, "--masks", masks, "-o", tmp_path / "mine"]
    words += ["--start", tiny_model, "--events", log]
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr().err
    assert "stopped: " in said
    assert "mine: not compared on left-out patients" in said
