"""Whom a DICOM file is about stays in it; who is the same is known all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.fileset import FileSet

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.identity import (
    Cleaner,
    identifying_values,
    patient_key,
    safe_name,
    without_identity,
)
from napari_cmunet.io.discovery import InputFile, find_images
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.reader import get_reader
from napari_cmunet.synthetic import PhantomConfig, make_frame
from tests.io.dicom_making import IDENTITY, make_dataset, without_preamble, write_dicom

# As the program has it; pytest sets the warnings anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")
FRAME = make_frame(PhantomConfig(size=64, seed=1))[0]


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("Mustermann_Ottilie_run1.dcm", "anon_anon_run1.dcm"),
        ("MUSTERMANN OTTILIE.dcm", "anon anon.dcm"),
        ("xmustermannx.dcm", "xanonx.dcm"),
        ("Müstermann.dcm", "anon.dcm"),
        ("PID_4711_08.dcm", "anon.dcm"),
        ("1947-03-23_a.dcm", "anon_a.dcm"),
        ("23.03.1947.dcm", "anon.dcm"),
        ("acc20260017", "anon"),
        ("IM000001", "IM000001"),
        ("LAO cranial.dcm", "LAO cranial.dcm"),
    ],
)
def test_names_of_files(tmp_path, name, clean):
    path = write_dicom(tmp_path / name, FRAME)
    assert safe_name(path) == clean
    ((_, options, _),) = get_reader(str(path))(str(path))
    assert options["name"] == Path(clean).stem


def test_short_names_are_found_as_whole_words():
    cleaner = Cleaner({"li", "ng1"})
    assert cleaner.clean("Li_clinic") == "anon_clinic"
    assert cleaner.clean("list") == "list"
    assert cleaner.clean("ng1-2") == "anon-2"
    assert Cleaner(set()).clean("Li") == "Li"


def test_errors_do_not_name_the_patient(tmp_path):
    path = tmp_path / "Mustermann_1.dcm"
    write_dicom(path, FRAME, Rows=900)
    with pytest.raises(ReadError, match=r"^anon_1\.dcm: it declares 1") as error:
        read_angiogram(path)
    assert error.value.path == path


def test_folders_named_after_patients_stay_apart(tmp_path):
    files = []
    for name, number in (("Mustermann^Ottilie", "77001"), ("Beispiel^Bo", "77002")):
        folder = tmp_path / "in" / name.split("^")[0]
        folder.mkdir(parents=True)
        write_dicom(folder / "IM1", FRAME, PatientName=name, PatientID=number)
        np.save(folder / f"{number}.npy", FRAME)
    files = find_images([tmp_path / "in"])
    names = [str(file.relative) for file in without_identity(files)]
    assert names == ["anon/anon.npy", "anon/IM1", "anon-2/anon.npy", "anon-2/IM1"]
    assert [f.path for f in without_identity(files)] == [f.path for f in files]


def test_every_value_counts(tmp_path):
    values = identifying_values(write_dicom(tmp_path / "a.dcm", FRAME))
    for value in ("mustermann", "ottilie", "pid471108", "19470323", "sn55301"):
        assert value in values
    for value in IDENTITY.values():
        assert Cleaner(values).clean(f"a {value} b") != f"a {value} b"
    assert identifying_values(tmp_path / "none.dcm") == set()


def key(tmp_path, **elements) -> str | None:
    return patient_key(write_dicom(tmp_path / "k.dcm", FRAME, **elements))


def test_patients_are_told_apart_by_what_there_is(tmp_path):
    first = key(tmp_path)
    assert first == key(tmp_path, StudyInstanceUID="1.2.3", PatientName="Married^Anew")
    assert first != key(tmp_path, PatientID="2")
    unnumbered = {"PatientID": None}
    named = key(tmp_path, **unnumbered)
    assert named not in (None, first)
    assert named != key(tmp_path, **unnumbered, PatientBirthDate="19480101")
    nameless = {**unnumbered, "PatientName": None}
    assert key(tmp_path, **nameless) == key(tmp_path, **nameless)
    assert key(tmp_path, **nameless) != key(tmp_path, **nameless, StudyInstanceUID="1")
    assert key(tmp_path, **nameless, StudyInstanceUID=None) is None
    np.save(tmp_path / "a.npy", FRAME)
    assert patient_key(tmp_path / "a.npy") is None


# Folders and lists of files


@pytest.fixture
def disc(tmp_path) -> Path:
    """A disc with a DICOMDIR that lists three images."""
    files = FileSet()
    for number in range(3):
        made = make_dataset(FRAME, InstanceNumber=number, SeriesNumber=1, StudyID="1")
        made.StudyDate, made.StudyTime = "20260101", "101010"
        files.add(made)
    files.write(tmp_path / "disc")
    return tmp_path / "disc"


def test_a_dicomdir_stands_for_the_images_that_it_lists(disc):
    found = find_images([disc / "DICOMDIR"])
    assert len(found) == 3
    assert all(file.path.is_file() for file in found)
    assert found == sorted(found, key=lambda file: file.relative)
    # Walking the folder finds the same files, and the list itself is no image.
    assert {f.path for f in find_images([disc])} == {f.path for f in found}
    layers = get_reader(str(disc / "DICOMDIR"))(str(disc / "DICOMDIR"))
    assert len(layers) == 1
    assert layers[0][0].shape == (3, 64, 64)


def test_images_of_different_sizes_on_a_disc_are_layers_of_their_own(tmp_path):
    files = FileSet()
    for size in (64, 48):
        made = make_dataset(FRAME[:size, :size], SeriesNumber=1, StudyID="1")
        made.StudyDate, made.StudyTime = "20260101", "101010"
        made.InstanceNumber = size
        files.add(made)
    files.write(tmp_path / "disc")
    path = str(tmp_path / "disc" / "DICOMDIR")
    layers = get_reader(path)(path)
    assert sorted(data.shape for data, _, _ in layers) == [(48, 48), (64, 64)]
    for _, options, _ in layers:
        assert len(options["metadata"]["napari_cmunet"]["source_sha256"]) == 64


def test_a_dicomdir_leads_nowhere_else(disc, tmp_path):
    import pydicom

    secret = write_dicom(tmp_path / "secret", FRAME)
    listing = pydicom.dcmread(disc / "DICOMDIR")
    for record in listing.DirectoryRecordSequence:
        if record.DirectoryRecordType == "IMAGE":
            record["ReferencedFileID"] = pydicom.DataElement(
                0x00041500, "CS", ["..", "SECRET"]
            )
    Dataset.save_as(listing, disc / "DICOMDIR")
    secret.rename(tmp_path / "SECRET")
    (found,) = find_images([disc / "DICOMDIR"])
    assert found.path == disc / "DICOMDIR"
    with pytest.raises(ReadError, match="list of images"):
        read_angiogram(found.path)


def test_files_without_suffix_are_found_by_their_content(tmp_path):
    write_dicom(tmp_path / "IM1", FRAME)
    write_dicom(tmp_path / "1.2.840.10008.5", FRAME)
    without_preamble(write_dicom(tmp_path / "bare", FRAME))
    write_dicom(tmp_path / "a.dcm", FRAME)
    (tmp_path / "README").write_text("no image")
    (tmp_path / "notes.7").write_text("no image")
    (tmp_path / "LICENSE").write_bytes(b"")
    found = [file.relative.name for file in find_images([tmp_path])]
    assert found == ["1.2.840.10008.5", "IM1", "a.dcm", "bare"]


@pytest.mark.parametrize("suffix", ["IMA", "dic", "img", "v2", "dcm30", "12", "any"])
def test_dicom_of_any_suffix_is_found_in_a_folder(tmp_path, suffix):
    write_dicom(tmp_path / f"XA.1.3.{suffix}", FRAME)
    (tmp_path / f"text.{suffix}").write_text("no image")
    found = [file.relative.name for file in find_images([tmp_path])]
    assert found == [f"XA.1.3.{suffix}"]
    assert get_reader(str(tmp_path / f"XA.1.3.{suffix}")) is not None
    assert get_reader(str(tmp_path / f"text.{suffix}")) is None


@pytest.mark.parametrize("name", ["a.dcm", "Dcm.dcm", "a.DCM"])
def test_a_suffix_is_not_taken_for_a_name(name):
    assert Cleaner({"dcm"}).clean(name) == name.replace("Dcm", "anon")


def test_the_reader_takes_what_is_dicom(tmp_path):
    path = write_dicom(tmp_path / "IM1", FRAME)
    assert get_reader(str(path)) is not None
    (tmp_path / "text").write_text("no image")
    assert get_reader(str(tmp_path / "text")) is None
    assert get_reader([str(path), str(tmp_path / "text")]) is None
    shutil.copy(path, tmp_path / "a.tif")
    assert get_reader(str(tmp_path / "a.tif")) is None


def test_input_files_keep_their_paths():
    files = [InputFile(Path("x/none.tif"), Path("none.tif"))]
    assert without_identity(files) == files
