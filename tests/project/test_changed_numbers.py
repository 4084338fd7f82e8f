"""Which labels the table of changed measurements counts."""

from __future__ import annotations

import csv

from napari_cmunet.cli.main import main
from napari_cmunet.project.readers.readers import REVIEWER, reader_code
from tests.project.project_making import mask_of, reopened


def numbers(percent: float, resolved: str = "yes") -> dict[str, object]:
    one = {"row": 8.0, "column": 9.0, "resolved": resolved}
    return {
        "model": one | {"diameter_stenosis_percent": 50.0},
        "corrected": one | {"diameter_stenosis_percent": percent},
    }


def test_reference_labels_count_where_they_are_resolved(project, tmp_path, capsys):
    kept, rejected, thin, damaged, other = project.images.ids()[:5]
    for image, measured in (
        (kept, numbers(60)),
        (rejected, numbers(90)),
        (thin, numbers(90, resolved="no")),
        (damaged, numbers(90)),
    ):
        project.labels.accept(image, 0, mask_of(1), measurement=measured)
    project = reopened(project, reader=reader_code(b"salt", "Dr Beta"))
    project.labels.accept(other, 0, mask_of(1), measurement=numbers(70))
    project = reopened(project, reader=REVIEWER)
    project.reject("", rejected, 0, "catheter")
    project.close()
    (path,) = (project.folder / "labels" / damaged).glob("*.tif")
    path.write_bytes(path.read_bytes()[:50])

    out = tmp_path / "out"
    assert main(["measure", str(project.folder), "-o", str(out)]) == 1

    said = capsys.readouterr()
    assert damaged in said.err
    assert "diameter_stenosis_percent,2,15.00," in said.out
    with (out / "changes.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [kept, other]
