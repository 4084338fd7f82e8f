"""Cines of one patient are of one patient, as their DICOM files say."""

from __future__ import annotations

import numpy as np

from napari_cmunet.core.phantom import PhantomConfig, make_frame
from napari_cmunet.study.patients import by_folder
from tests.io.dicom_making import IDENTITY, write_dicom

FRAME = make_frame(PhantomConfig(size=64, seed=1))[0]


def test_dicom_files_group_by_patient(study, tmp_path):
    folder = tmp_path / "cines"
    folder.mkdir()
    for number in range(3):
        write_dicom(folder / f"IM{number}", FRAME)
    write_dicom(folder / "other.dcm", FRAME, PatientID="another")
    np.save(folder / "z.npy", FRAME)
    added = study.images.add([folder])
    assert added.own_patient == 1
    patients = [study.images[image].patient for image in added.images]
    assert len(set(patients[:3])) == 1
    assert len(set(patients)) == 3
    kept = b"".join(p.read_bytes() for p in study.folder.rglob("*") if p.is_file())
    for value in IDENTITY.values():
        assert value.encode() not in kept


def test_a_rule_of_the_readers_own_comes_first(study, tmp_path):
    for name in ("A", "B"):
        (tmp_path / "cines" / name).mkdir(parents=True)
        write_dicom(tmp_path / "cines" / name / "IM1", FRAME)
    added = study.images.add([tmp_path / "cines"], by_folder())
    assert len({study.images[image].patient for image in added.images}) == 2
