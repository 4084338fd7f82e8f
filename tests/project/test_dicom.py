"""Cines of one patient are of one patient, as their DICOM files say."""

from __future__ import annotations

import numpy as np

from napari_cmunet.project.patients import by_folder
from napari_cmunet.synthetic import PhantomConfig, make_frame
from tests.io.dicom_making import IDENTITY, write_dicom

FRAME = make_frame(PhantomConfig(size=64, seed=1))[0]


def test_dicom_files_group_by_patient(project, tmp_path):
    folder = tmp_path / "cines"
    folder.mkdir()
    for number in range(3):
        write_dicom(folder / f"IM{number}", FRAME)
    write_dicom(folder / "other.dcm", FRAME, PatientID="another")
    np.save(folder / "z.npy", FRAME)
    added = project.images.add([folder])
    patients = [project.images[image].patient for image in added.images]
    assert len(set(patients[:3])) == 1
    assert len(set(patients)) == 3
    kept = b"".join(p.read_bytes() for p in project.folder.rglob("*") if p.is_file())
    for value in IDENTITY.values():
        assert value.encode() not in kept


def test_a_rule_of_the_readers_own_comes_first(project, tmp_path):
    for name in ("A", "B"):
        (tmp_path / "cines" / name).mkdir(parents=True)
        write_dicom(tmp_path / "cines" / name / "IM1", FRAME)
    added = project.images.add([tmp_path / "cines"], by_folder())
    assert len({project.images[image].patient for image in added.images}) == 2
