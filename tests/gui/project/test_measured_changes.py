"""What a correction changed in the numbers: in the label, and of a project."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.project.labels.measured_changes import LimitsOfAgreement
from tests.gui.project.conftest import stroke


def record(diameter: float, percent: float) -> dict[str, float]:
    return {
        "row": 8.0,
        "column": 9.0,
        "minimum_diameter_px": diameter,
        "diameter_stenosis_percent": percent,
    }


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
    numbers = {"model": record(6.0, 50.0), "corrected": record(4.5, 62.0)}

    def measured() -> None:
        state.measured[0] = (fingerprint(state.mask_frame(0)), numbers)

    stroke(session)
    measured()
    session.annotation.accept()
    ready(session)
    assert session.project.labels.get(image, 0).note["measurement"] == numbers
    assert main(["measure", str(folder), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "diameter_stenosis_percent,1,12.00,nan,nan" in printed
    assert "minimum_diameter_px,1,-1.50,nan,nan" in printed
    with (tmp_path / "out" / "changes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == image
    assert row["minimum_diameter_px_corrected"] == "4.5"
    assert row["minimum_diameter_mm_model"] == ""
    # A mask that was changed after it was measured has no numbers.
    stroke(session, 20)
    session.annotation.accept()
    ready(session)
    assert "measurement" not in session.project.labels.get(image, 0).note
