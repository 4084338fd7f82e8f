"""A folder tree in, the same tree out: mixed, killed, started anew, nobody named."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from napari_cmunet.cli.main import main
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.io.dicom_making import IDENTITY, make_dataset, write_dicom

CINE = make_cine(PhantomConfig(frames=6, size=96, seed=3, bits=12))


@pytest.fixture
def tree(tmp_path):
    """Folders of one patient: cines, a TIFF and what cannot be read."""
    root = tmp_path / "in"
    runs = root / "Mustermann, Ottilie" / "19470323"
    runs.mkdir(parents=True)
    write_dicom(
        runs / "IM000001",
        CINE.frames,
        "JPEG lossless SV1",
        bits=12,
        ImagerPixelSpacing=[0.28, 0.28],
        DistanceSourceToDetector="1050",
        DistanceSourceToPatient="750",
    )
    write_dicom(runs / "Ottilie_2.dcm", CINE.frames[0], bits=12)
    tifffile.imwrite(runs / "PID-4711-08.tif", CINE.frames[-1])
    broken = write_dicom(runs / "Mustermann_broken.dcm", CINE.frames)
    broken.write_bytes(broken.read_bytes()[:3000])
    (runs / "mustermann_letter.dcm").write_text("Dear colleague")
    (runs / "notes.txt").write_text("no image")
    burnt = write_dicom(runs / "burnt", CINE.frames[0], BurnedInAnnotation="YES")
    assert burnt.is_file()
    return root


def run(tree, out, model, capsys, *options):
    code = main(["segment", str(tree), "-o", str(out), "--model", str(model), *options])
    printed, said = capsys.readouterr()
    return code, printed.splitlines(), said


def rows(out):
    with (out / "summary.csv").open(newline="") as file:
        return {row["input"]: row for row in csv.DictReader(file)}


EVERYTHING = ("--probability", "--record", "--overlay")


def test_nobody_is_named_in_anything_that_is_written(
    tree, tmp_path, tiny_model, capsys
):
    out = tmp_path / "out"
    code, printed, said = run(tree, out, tiny_model, capsys, *EVERYTHING)
    assert (code, len(printed)) == (1, 4)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 4 * 3 + 3 + 1  # no overlay of what is burnt in
    names = "\n".join(str(path.relative_to(out)) for path in out.rglob("*"))
    content = b"\n".join(path.read_bytes() for path in files)
    for path in files:
        if path.suffix == ".tif":
            with tifffile.TiffFile(path) as tif:
                content += tif.pages[0].description.encode()
    shown = "\n".join(line.removeprefix(str(out)) for line in printed)
    everything = (names + shown + said).encode() + content
    for value in IDENTITY.values():
        for part in value.replace("^", " ").replace(",", " ").split():
            if len(part) > 3:
                assert part.lower().encode() not in everything.lower(), part
    assert str(tree).encode() not in content


def test_the_tree_comes_out_and_a_table_tells_of_it(tree, tmp_path, tiny_model, capsys):
    out = tmp_path / "out"
    run(tree, out, tiny_model, capsys, *EVERYTHING)
    table = rows(out)
    assert len(table) == 6
    cine = table["anon, anon/anon/IM000001"]
    assert cine["file"] == "anon, anon/anon/IM000001.tif"
    assert (cine["status"], cine["frames"], cine["height"]) == ("done", "6", "96")
    assert float(cine["pixel_width_mm"]) == pytest.approx(0.2)
    assert "/ 1.40 (magnification" in cine["pixel_size_source"]
    mask = read_mask(out / cine["file"])
    assert float(cine["artery_share"]) == pytest.approx(mask.mean(), abs=1e-5)
    with tifffile.TiffFile(out / cine["file"]) as tif:
        numerator, denominator = tif.pages[0].tags["XResolution"].value
    assert numerator / denominator == pytest.approx(50)  # pixels a centimetre
    assert (
        "6 frame(s) and holds 0" in table["anon, anon/anon/anon_broken.dcm"]["reason"]
    )
    assert "starts with text" in table["anon, anon/anon/anon_letter.dcm"]["reason"]
    record = json.loads((out / "anon, anon/anon/IM000001.json").read_text())
    assert record["source_sha256"] == cine["source_sha256"]
    assert record["artery_pixels"] == mask.sum()
    with Image.open(out / "anon, anon/anon/IM000001_overlay.png") as overlay:
        assert overlay.size == (96, 96)
        assert overlay.mode == "RGB"


@pytest.mark.slow
def test_a_second_run_keeps_what_is_there(tree, tmp_path, tiny_model, capsys):
    out = tmp_path / "out"
    run(tree, out, tiny_model, capsys)
    files = sorted(out.rglob("*.tif"))
    before = {path: path.stat().st_mtime_ns for path in files}
    first = rows(out)
    code, printed, said = run(tree, out, tiny_model, capsys)
    assert (code, len(printed)) == (1, 4)
    assert "4 of 6 were there already" in said
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert {row["status"] for row in rows(out).values()} == {"there already", "failed"}
    for name, row in rows(out).items():  # the table says as much as it did
        assert {**first[name], "status": "", "seconds": ""} == {
            **row,
            "status": "",
            "seconds": "",
        }
    # Anything asked for that is not there, or another threshold, is done anew.
    _, _, said = run(tree, out, tiny_model, capsys, "--record")
    assert "were there already" not in said
    _, _, said = run(tree, out, tiny_model, capsys, "--threshold", "0.3")
    assert "were there already" not in said
    # What lies beside a mask is done anew with it, wanted or not.
    records = [json.loads(path.read_text()) for path in out.rglob("*.json")]
    assert records and {record["threshold"] for record in records} == {0.3}
    # So is an image that has changed.
    run(tree, out, tiny_model, capsys)
    tifffile.imwrite(next(tree.rglob("*.tif")), CINE.frames[2])
    _, _, said = run(tree, out, tiny_model, capsys)
    assert "3 of 6 were there already" in said


@pytest.mark.slow
def test_killed_and_started_again(tmp_path, tiny_model, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for number in range(40):
        np.save(root / f"{number:02}.npy", CINE.frames[number % 6] + number)
    command = [sys.executable, "-m", "napari_cmunet", "segment", str(root)]
    command += ["-o", str(out), "--model", str(tiny_model)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    for _ in range(5):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    done = len(list(out.glob("*.tif")))
    assert 5 <= done < 40
    assert not (out / "summary.csv").exists()
    began = time.time_ns()
    code, printed, said = run(root, out, tiny_model, capsys)
    assert (code, len(printed)) == (0, 40)
    assert f"{done} of 40 were there already" in said
    fresh = [p for p in out.glob("*.tif") if p.stat().st_mtime_ns >= began]
    assert len(fresh) == 40 - done
    assert len(rows(out)) == 40


def test_monochrome1_gives_the_same_mask(tmp_path, tiny_model, capsys):
    frame = CINE.frames[-1]
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "two.dcm", frame, bits=12)
    made = make_dataset(4095 - frame, bits=12)
    made.PhotometricInterpretation = "MONOCHROME1"
    pydicom.dcmwrite(folder / "one.dcm", made, enforce_file_format=True)
    run(folder, tmp_path / "out", tiny_model, capsys)
    one, two = (read_mask(tmp_path / "out" / f"{n}.tif") for n in ("one", "two"))
    assert one.any()
    assert np.array_equal(one, two)


def test_a_name_that_is_a_word_leaves_the_file_to_be_found(
    tmp_path, tiny_model, capsys
):
    """The patient is called JPEG, as some are, and so are the files."""
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    name = {"PatientName": "JPEG^RG1"}
    write_dicom(root / "JPEG-lossless-RG1.dcm", CINE.frames[0], bits=12, **name)
    (root / "JPEG-lossy-RG1.dcm").write_text("no image")
    np.save(root / "other.npy", CINE.frames[1])
    code, printed, said = run(root, out, tiny_model, capsys)
    assert (code, len(printed)) == (1, 2)
    assert "anon-lossy-anon.dcm (input 2): not a DICOM file" in said
    assert "JPEG" not in said
    table = rows(out)
    assert [row["number"] for row in table.values()] == ["1", "2", "3"]
    assert table["anon-lossy-anon.dcm"]["number"] == "2"
    assert "input 3" not in said  # its own name is shown
