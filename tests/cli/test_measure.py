"""The command ``measure``: tables, JSON and pictures of images and masks."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cmunet.cli.main import main
from napari_cmunet.io.masks.files import write_mask
from napari_cmunet.io.masks.label_file import names_from_json
from napari_cmunet.io.measured_lesion import tree_lesions
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.vessel_names import NAMES_MODEL, propose_names
from napari_cmunet.synthetic import PhantomConfig, make_cine
from napari_cmunet.vessels.naming import DOUBTFUL
from tests.io.dicom_making import IDENTITY, write_dicom
from tests.vessels.test_qca import stenosed, vessel

pytestmark = pytest.mark.slow


@pytest.fixture
def folders(tmp_path):
    """A frame with a stenosis of half its diameter, 12 pixels, and its mask."""
    frame, mask, _ = vessel(stenosed(), noise=1.0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "images" / "a.tif",
        pixels,
        resolution=(50, 50),  # 0.2 mm
        resolutionunit="CENTIMETER",
        photometric="minisblack",
    )
    write_mask(tmp_path / "masks" / "a.tif", mask, Provenance())
    return tmp_path


def measure(folder, *more):
    out = folder / "out"
    words = ["measure", folder / "images", "-o", out, "--masks", folder / "masks"]
    return main([*map(str, [*words, *more])]), out


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_json_and_picture(folders, capsys):
    code, out = measure(folders, "--pictures", "--pixel-error", "3")
    assert code == 0
    names = ("a.json", "segments.csv", "lesions.csv")
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    (segment,) = rows(out / "segments.csv")
    (lesion,) = rows(out / "lesions.csv")
    assert segment["lesions"] == lesion["rank"] == "1"
    assert lesion["resolved"] == "yes"
    assert float(lesion["diameter_stenosis_percent"]) == pytest.approx(50, abs=5)
    assert float(lesion["area_stenosis_percent"]) == pytest.approx(75, abs=5)
    assert float(lesion["minimum_diameter_px"]) == pytest.approx(6, abs=0.6)
    mm = float(lesion["minimum_diameter_mm"])
    assert mm == pytest.approx(0.2 * float(lesion["minimum_diameter_px"]), abs=0.01)
    error = float(lesion["minimum_diameter_mm_error"])
    assert error == pytest.approx(0.03 * mm, abs=0.001)
    assert float(lesion["reference_diameter_mm"]) == pytest.approx(2.4, abs=0.15)
    assert float(lesion["column"]) == pytest.approx(80, abs=3)
    record = json.loads((out / "a.json").read_text())
    assert record["pixel_size_mm"] == pytest.approx(0.2)
    (found,) = record["segments"]
    assert len(found["centreline"]) == len(found["diameter_px"]) > 100
    with Image.open(out / "a.png") as picture:
        assert picture.size == (320, 320)
        colours = np.asarray(picture).reshape(-1, 3)
    assert (colours == (230, 159, 0)).all(axis=1).sum() > 50


def test_without_a_pixel_size_there_are_pixels_alone(folders):
    path = folders / "images" / "a.tif"
    tifffile.imwrite(path, tifffile.imread(path), photometric="minisblack")
    _, out = measure(folders)
    (lesion,) = rows(out / "lesions.csv")
    assert lesion["minimum_diameter_px"]
    assert lesion["minimum_diameter_mm"] == lesion["minimum_diameter_mm_error"] == ""
    _, out = measure(folders, "--pixel-size", "0.3")
    (lesion,) = rows(out / "lesions.csv")
    assert float(lesion["minimum_diameter_mm"]) == pytest.approx(1.8, abs=0.2)


def test_a_higher_limit_leaves_lesions_out(folders):
    _, out = measure(folders, "--least", "70")
    assert rows(out / "lesions.csv") == []
    assert rows(out / "segments.csv")[0]["lesions"] == "0"


def test_segments_are_proposed_and_doubtful_ones_are_left_out(folders):
    cine = make_cine(PhantomConfig(frames=8, size=256, seed=5))
    mask = cine.masks[-1]
    tifffile.imwrite(folders / "images" / "a.tif", cine.frames[-1])
    write_mask(folders / "masks" / "a.tif", mask, Provenance())
    _, out = measure(folders, "--report", "--least", "10")
    proposed = propose_names(mask, load_model(NAMES_MODEL))
    record = json.loads((out / "a.json").read_text())
    assert names_from_json(record["proposed_names"]) == proposed
    certain = {name.segment for name in proposed if name.doubt <= DOUBTFUL}
    for table in ("segments", "lesions"):
        found = [row["segment"] for row in rows(out / f"{table}.csv")]
        assert found == [row["segment"] for row in record[table]]
        assert set(found) - {""} <= certain
        assert any(found)
    text = (out / "report.html").read_text("utf-8")
    assert "<td>proposed by a model</td>" in text
    assert "<th>Segment</th>" in text


def test_without_a_report_no_lesion_is_prepared_for_one(folders, monkeypatch):
    made = []

    def note(*args):
        made.append(args)
        return tree_lesions(*args)

    monkeypatch.setattr("napari_cmunet.cli.measure.tree_lesions", note)
    measure(folders)
    assert not made
    measure(folders, "--report")
    assert len(made) == 1


def test_a_missing_mask_is_named_and_the_others_are_measured(folders, capsys):
    image = folders / "images" / "a.tif"
    (folders / "images" / "b.tif").write_bytes(image.read_bytes())
    code, out = measure(folders)
    assert code == 1
    assert "b.tif: no mask has this file name" in capsys.readouterr().err
    assert (out / "a.json").exists()
    assert not (out / "b.json").exists()


def test_without_masks_the_model_s_are_measured(folders):
    out = folders / "out"
    assert main(["measure", str(folders / "images"), "-o", str(out)]) == 0
    assert json.loads((out / "a.json").read_text())["frame"] == 0


def test_a_report_says_that_a_mask_without_a_record_is_of_unknown_origin(folders):
    _, mask, _ = vessel(stenosed(), noise=1.0)
    (folders / "masks" / "a.tif").unlink()
    Image.fromarray(mask).save(folders / "masks" / "a.png")
    _, out = measure(folders, "--report")
    text = (out / "report.html").read_text("utf-8")
    assert "none: imported from a file" in text
    assert "<th>Correction</th>" not in text


def test_whether_a_lesion_is_resolved_is_yes_or_no(folders):
    # So tight that the blur hides how tight.
    frame, mask, _ = vessel(stenosed(healthy=6, share=0.8), blur=1.4)
    pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    tifffile.imwrite(folders / "images" / "a.tif", pixels, photometric="minisblack")
    write_mask(folders / "masks" / "a.tif", mask, Provenance())
    _, out = measure(folders)
    found = {lesion["resolved"] for lesion in rows(out / "lesions.csv")}
    assert found == {"no"}


def test_a_report_and_dicom_of_dicom_images_alone(folders, capsys):
    frame = tifffile.imread(folders / "images" / "a.tif")
    write_dicom(folders / "images" / "b.dcm", frame)
    (folders / "masks" / "b.tif").write_bytes(
        (folders / "masks" / "a.tif").read_bytes()
    )
    code, out = measure(folders, "--report", "--dicom", "--pixel-error", "2")
    assert code == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(out / "report.html")
    assert (
        "a.tif: note: no Structured Report was written: its image is no D" in said.err
    )
    assert sorted(path.name for path in out.glob("*.dcm")) == [
        "b_measured.dcm",
        "b_sr.dcm",
    ]
    text = (out / "report.html").read_text("utf-8")
    assert text.count("<section") == 2
    assert "<h2>a.tif</h2>" in text
    assert "none: imported from a file" not in text  # its record says who made it
    lesion = rows(out / "lesions.csv")[0]
    assert f"{float(lesion['minimum_diameter_mm']):.2f}&nbsp;±" in text
    for value in IDENTITY.values():
        assert value not in text
