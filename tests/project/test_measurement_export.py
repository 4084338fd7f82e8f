"""Labels exported as a report and as DICOM Structured Reports."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.io.measured_lesion import change_record
from napari_cmunet.io.report import frame_section
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.vessels.qca import Calibration, analyse
from tests.io.dicom_making import IDENTITY, write_dicom
from tests.vessels.test_qca import stenosed, vessel

SIZE = (0.2, 0.2)


@pytest.fixture
def measured(project, tmp_path):
    """Three labels of DICOM images: two measured by a reader, one not."""
    folder = tmp_path / "Mustermann"
    folder.mkdir()
    paths = [folder / f"{number}.dcm" for number in range(3)]
    for number, path in enumerate(paths):
        frame, mask, way = vessel(stenosed(share=0.4 + 0.1 * number), noise=1.0)
        pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
        write_dicom(path, pixels, PatientID=f"PID-{number}")
        added = project.images.add([path])
        (image,) = added.images
        found = analyse(pixels, mask, way)
        model = analyse(*vessel(stenosed(share=0.3), noise=1.0))
        record = change_record(model, found, Calibration(0.2, 0.03, "catheter"))
        project.labels.accept(
            image,
            0,
            mask,
            pixel_size_mm=SIZE,
            pixel_size_source="catheter",
            pixel_size_error=0.03,
            pixels_changed=300,
            pixels_added=100 if number else None,
            measurement=record if number < 2 else None,
        )
        project.comment(image, f"seen with Dr {number}")
        project.flag(image, True)
    return project


def test_a_report_of_a_project(measured, tmp_path):
    done = export_masks(measured, tmp_path / "out", formats=("report",))
    assert done.files == ("report.html",)
    assert done.problems == ()
    assert done.labels == 3
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "3 frames of 3 patients" in text
    assert text.count("<section class='frame") == 3
    # Readers against the model, in millimetres alone, since all have them.
    assert re.findall(r"<b>([^<]*)</b>: 2 lesions", text) == [
        "Minimum lumen diameter",
        "Diameter stenosis",
    ]
    assert "of Minimum lumen diameter, px" not in text
    chosen = re.findall(r"<td>(reader|program)</td></tr>", text)
    assert chosen.count("reader") == 4  # twice: of all frames, and of each
    assert chosen.count("program") == 2
    assert "added 4.0 mm², removed 8.0 mm²" in text
    assert "changed 12.0 mm²" in text
    assert "for a second look" in text
    assert "0.2 mm ± 3.0 %, catheter" in text
    for value in (*IDENTITY.values(), "seen with Dr", "PID-", "Mustermann"):
        assert value not in text


@pytest.mark.slow
def test_a_report_holds_one_frame_at_a_time(measured, tmp_path, monkeypatch):
    large = 20 * 2**20

    def larger(*args):
        return frame_section(*args) + f"<!--{'x' * large}-->"

    monkeypatch.setattr("napari_cmunet.project.export.report.frame_section", larger)
    tracemalloc.start()
    try:
        export_masks(measured, tmp_path / "out", formats=("report",))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * large  # one of three, as text and as bytes
    (report,) = (tmp_path / "out").iterdir()
    text = report.read_text("utf-8")
    assert len(text) > 3 * large
    assert text.endswith("--></body></html>\n")
    order = [
        text.index(x) for x in ("Readers and model", "All frames", "class='frame'")
    ]
    assert order == sorted(order)


def test_names_and_comments_where_somebody_asks(measured, tmp_path):
    export_masks(measured, tmp_path / "out", formats=("report",), original_names=True)
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "seen with Dr 1" in text
    assert "1.dcm</h2>" in text


def test_measure_of_a_project_writes_the_same_report(measured, tmp_path, capsys):
    measured.close()
    out = tmp_path / "out"
    out.mkdir()
    words = ["measure", measured.folder, "-o", out, "--report"]
    assert main([str(word) for word in words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(out / "report.html")
    (share,) = (x for x in lines if x.startswith("diameter_stenosis_percent,2,"))
    bias = float(share.split(",")[2])
    text = (out / "report.html").read_text("utf-8")
    assert f"bias {bias:+.1f}&nbsp;points" in text
    assert (out / "changes.csv").exists()


@pytest.mark.slow
def test_structured_reports_of_a_project(measured, tmp_path):
    sr = pytest.importorskip("highdicom").sr
    done = export_masks(measured, tmp_path / "out", formats=("dicom-sr",))
    assert done.problems == ()
    assert len(done.files) == 6
    percents = []
    for name in sorted(done.files):
        if name.endswith("_sr.dcm"):
            found = sr.srread(tmp_path / "out" / name)
            (group,) = found.content.get_planar_roi_measurement_groups()
            percents.append(float(group.get_measurements()[0].value))
    assert sorted(percents) == pytest.approx([40, 50, 60], abs=6)


def test_images_that_are_no_dicom_are_named(project, tmp_path, capsys):
    image = project.images.ids()[0]
    mask = np.zeros((40, 48), bool)
    mask[18:23, 4:44] = True
    project.labels.accept(image, 0, mask)
    project.close()
    out = tmp_path / "out"
    words = ["export", project.folder, "-o", out, "--format", "dicom-sr"]
    assert main([str(word) for word in words]) == 1
    assert f"Label {image}#0: its image is no DICOM file" in capsys.readouterr().err
    assert not out.exists()
