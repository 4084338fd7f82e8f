from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from napari_cmunet.gui.project.new_project_dialog import patient_choices
from napari_cmunet.io.discovery import InputFile


def files(*names: str) -> list[InputFile]:
    return [InputFile(Path("/x") / name, Path(name)) for name in names]


@pytest.mark.parametrize(
    ("names", "text", "patients"),
    [
        pytest.param(
            [f"nj_{n}_{view}.png" for n in range(10) for view in ("LCA", "RCA")],
            "File names up to the second “_”",
            10,
            id="prefix",
        ),
        pytest.param(
            [f"p{n}/{view}.dcm" for n in range(4) for view in range(3)],
            "One folder for each patient",
            4,
            id="folders",
        ),
        pytest.param(
            [f"{n:03d}.png" for n in range(9)],
            "Each image is another patient",
            9,
            id="alone",
        ),
        pytest.param(
            [f"{n // 2}-{n}.png" for n in range(8)],
            "File names up to the first “-”",
            4,
            id="dash",
        ),
        pytest.param(
            # Two hospitals are not two patients.
            [f"{h}_{n}_{v}.png" for h in "ab" for n in range(20) for v in "12"],
            "File names up to the second “_”",
            40,
            id="hospitals",
        ),
        pytest.param(
            # A series with a constant beginning is not one patient.
            [*(f"IM_{n:04d}.dcm" for n in range(60)), "extra_1.dcm"],
            "Each image is another patient",
            61,
            id="series",
        ),
        pytest.param(
            [f"{part}/{n}.png" for part in ("train", "test") for n in range(20)],
            "Each image is another patient",
            40,
            id="halves",
        ),
        pytest.param(
            # Many frames of each cine, but several patients.
            [f"p{p}/{n:02d}.png" for p in range(4) for n in range(30)],
            "One folder for each patient",
            4,
            id="frames",
        ),
    ],
)
def test_the_likeliest_comes_first(names, text, patients):
    choice = patient_choices(files(*names))[0]
    assert choice.text == text
    assert choice.patients == patients
    assert choice.result.startswith(f"{patients} patients in {len(names)} files")


def test_each_alone_is_always_offered():
    choices = patient_choices(files("a_1.png", "a_2.png", "b_1.png"))
    assert choices[-1].rule is None
    assert choices[0].result == "2 patients in 3 files; for instance “a” has 2."


def test_no_files():
    (only,) = patient_choices([])
    assert only.rule is None


def test_the_dicom_header_comes_first_where_it_tells_patients():
    found = files(*(f"{n}/{view}.dcm" for n in range(4) for view in range(3)), "a.png")
    paths = [PurePosixPath(file.relative.as_posix()) for file in found]
    headers = {p: f"dicom id {p.parts[0]}" for p in paths if p.suffix == ".dcm"}
    first, *others = patient_choices(found, headers)
    assert (first.text, first.rule, first.patients) == ("By the DICOM header", None, 5)
    assert first.result == "5 patients in 13 files; 1 file by itself."
    assert "One folder for each patient" in [choice.text for choice in others]
    # All of one patient: that may be an anonymiser's.
    same = dict.fromkeys(headers, "dicom id ANON")
    first, *others = patient_choices(found, same)
    assert first.text == "One folder for each patient"
    assert "By the DICOM header" in [choice.text for choice in others]
    assert not any(choice.text.startswith("Each image") for choice in others)
