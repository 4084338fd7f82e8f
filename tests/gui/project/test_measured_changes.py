"""What a correction changed in the numbers: in the label, and of a project."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.io.measured_lesion import change_record
from napari_cmunet.project.labels.as_labelled import LimitsOfAgreement
from napari_cmunet.vessels.naming import SegmentName
from napari_cmunet.vessels.qca import Analysis, Calibration, analyse
from tests.gui.measurement.test_measurement import ROW, SIZE, angiogram, stenosed
from tests.gui.project.conftest import stroke


def analysis(share: float) -> Analysis:
    """Measure a vessel whose stenosis takes away a share of its diameter."""
    diameter = stenosed(share=share)
    rows = np.arange(SIZE)[:, None]
    path = np.stack([np.full(120, ROW), np.arange(20, 140)], axis=1)
    return analyse(angiogram(diameter), 2 * abs(rows - ROW) < diameter, path)


def test_the_limits_of_agreement():
    found = LimitsOfAgreement.of([1.0, 2.0, 3.0])
    assert (found.count, found.bias) == (3, 2.0)
    assert (found.low, found.high) == pytest.approx((2 - 1.96, 2 + 1.96))
    alone = LimitsOfAgreement.of([4.0])
    assert alone.bias == 4
    assert np.isnan(alone.low)


@pytest.mark.slow
def test_a_label_keeps_the_numbers_of_its_mask_alone(project, ready, tmp_path, capsys):
    session = project
    state = session.navigator.current.image_state
    image, folder = session.navigator.current.id, session.project.folder
    found = analysis(0.5), analysis(0.62)
    numbers = change_record(*found, Calibration())
    model, corrected = (analysis.narrowest for analysis in found)
    moved = corrected.percent_diameter - model.percent_diameter
    assert moved == pytest.approx(12, abs=3)

    def measured() -> None:
        state.measured[0] = (fingerprint(state.mask_frame(0)), *found)

    stroke(session)
    measured()
    row, column = np.round(found[0].borders.centre[found[0].narrowest.at]).astype(int)
    state.names[0] = (SegmentName("6", ((int(row), int(column)),)),)
    session.annotation.accept()
    ready(session)
    rows = {whose: numbers[whose] for whose in ("model", "corrected")}
    named = numbers | {whose: row | {"segment": "6"} for whose, row in rows.items()}
    assert session.project.labels.get(image, 0).note["measurement"] == named
    assert main(["measure", str(folder), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    printed = [line.split(",") for line in printed]
    bias = {name: float(bias) for name, count, bias, *_ in printed if count == "1"}
    assert bias["diameter_stenosis_percent"] == pytest.approx(moved, abs=0.15)
    assert {tuple(limits) for _, count, _, *limits in printed if count == "1"} == {
        ("nan", "nan")
    }
    narrower = corrected.mld - model.mld
    assert bias["minimum_diameter_px"] == pytest.approx(narrower, abs=0.02)
    with (tmp_path / "out" / "changes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["image"], row["segment"]) == (image, "6")
    assert row["minimum_diameter_px_corrected"] == str(round(corrected.mld, 2))
    assert row["minimum_diameter_mm_model"] == ""
    # A mask that was changed after it was measured has no numbers.
    stroke(session, 20)
    session.annotation.accept()
    ready(session)
    assert "measurement" not in session.project.labels.get(image, 0).note
