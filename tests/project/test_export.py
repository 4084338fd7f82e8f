from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cmunet.errors import ProjectError, WriteError
from napari_cmunet.io.masks.files import read_mask, read_provenance
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.export.formats import ExportConflictError, export_masks
from napari_cmunet.project.project import Project
from tests.io.dicom_making import write_dicom
from tests.project.project_making import SHAPE, events, mask_of


@pytest.fixture
def labelled(project):
    ids = project.images.ids()
    project.labels.accept(ids[0], 0, mask_of(1), pixel_size_mm=(0.2, 0.2))
    reviewed = np.zeros(SHAPE, bool)
    reviewed[:20] = True
    project.labels.accept(ids[3], 0, mask_of(2), reviewed)
    return project


def index(folder) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_masks_that_any_program_reads_and_where_they_come_from(labelled, tmp_path):
    ids = labelled.images.ids()
    exported = export_masks(labelled, tmp_path / "out" / "masks")
    assert exported.files == (f"{ids[0]}.tif", f"{ids[3]}.tif")
    assert (exported.problems, exported.complete) == ((), True)
    path = exported.folder / exported.files[0]
    assert np.array_equal(tifffile.imread(path), mask_of(1) * np.uint8(255))
    origin = read_provenance(path)
    assert origin.corrected
    assert origin.source_sha256 == labelled.images.hash_of(ids[0])
    rows = index(exported.folder)
    assert [row["image"] for row in rows] == [ids[0], ids[3]]
    assert rows[0]["mask_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert rows[0]["artery_pixels"] == str(mask_of(1).sum())
    assert (rows[0]["reviewed_file"], rows[0]["reviewed_share"]) == ("", "1.0")
    assert rows[1]["reviewed_share"] == "0.5"
    part = read_mask(exported.folder / rows[1]["reviewed_file"])
    assert part[:20].all()
    assert not part[20:].any()
    assert events(labelled)[-1] == "exported"


def test_chosen_labels_with_ones(labelled, tmp_path):
    image = labelled.images.ids()[3]
    exported = export_masks(labelled, tmp_path / "o", [(image, 0)], values=(0, 1))
    assert exported.files == (f"{image}.tif",)
    assert set(np.unique(tifffile.imread(tmp_path / "o" / f"{image}.tif"))) == {0, 1}


def test_frames_of_a_cine_are_told_apart(project, tmp_path):
    np.save(tmp_path / "c.npy", np.ones((3, *SHAPE), np.uint8))
    (image,) = project.images.add([tmp_path / "c.npy"]).images
    for frame in (0, 2):
        project.labels.accept(image, frame, mask_of(frame))
    exported = export_masks(project, tmp_path / "o")
    assert exported.files == (f"{image}_frame_0000.tif", f"{image}_frame_0002.tif")


def test_by_default_no_name_of_a_file_is_given_away(labelled, tmp_path):
    export_masks(labelled, tmp_path / "o")
    for path in (tmp_path / "o").iterdir():
        assert "frame-" not in path.name
        assert b"patient-" not in path.read_bytes()


def test_own_names_for_who_asks(project, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("=1+1", "@SUM(A1)", "a", "é"):
        np.save(folder / f"{name}.npy", np.eye(40, dtype=np.uint8))
    (folder / "a.npy").rename(folder / "b.npy")
    tifffile.imwrite(folder / "b.tif", np.eye(40, dtype=np.uint8))
    images = project.images.add([folder]).images
    for image in images:
        project.labels.accept(image, 0, np.eye(40, dtype=bool))
    exported = export_masks(project, tmp_path / "o", original_names=True)
    assert sorted(exported.files) == [
        "_=1+1.tif",
        "_@SUM(A1).tif",
        "b.npy.tif",
        "b.tif.tif",
        "é.tif",
    ]
    for row in index(tmp_path / "o"):
        assert all(not v.startswith(("=", "+", "-", "@")) for v in row.values())
        assert (tmp_path / "o" / row["file"]).is_file()


def test_a_model_name_that_would_be_a_formula(labelled, tmp_path):
    image = labelled.images.ids()[0]
    origin = Provenance(model="=1+1")
    labelled.labels.accept(image, 0, mask_of(1), provenance=origin)
    export_masks(labelled, tmp_path / "o")
    assert index(tmp_path / "o")[0]["model"].startswith("'=")


def test_other_files_are_not_replaced_without_asking(labelled, tmp_path):
    out = tmp_path / "o"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ExportConflictError, match="none would be replaced") as caught:
        export_masks(labelled, out)
    assert caught.value.replaced == ()
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    export_masks(labelled, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ExportConflictError) as caught:
        export_masks(labelled, out)
    assert "index.csv" in caught.value.replaced
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_images_are_never_replaced(project, tmp_path):
    folder = tmp_path / "tiffs"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.eye(40, dtype=np.uint8))
    before = (folder / "a.tif").read_bytes()
    (image,) = project.images.add([folder]).images
    project.labels.accept(image, 0, np.eye(40, dtype=bool))
    with pytest.raises(ExportConflictError, match="image of this project"):
        export_masks(project, folder, original_names=True, overwrite=True)
    assert (folder / "a.tif").read_bytes() == before


def test_the_project_is_never_written_over(labelled):
    image = labelled.images.ids()[0]
    for name in (".", "labels", "drafts", "models", f"labels/{image}"):
        with pytest.raises(ProjectError, match="project itself"):
            export_masks(labelled, labelled.folder / name, overwrite=True)
    export_masks(labelled, labelled.folder / "export")


def test_nothing_to_export_and_no_folder(project, tmp_path):
    with pytest.raises(ProjectError, match="no accepted label"):
        export_masks(project, tmp_path / "o")
    assert not (tmp_path / "o").exists()
    project.labels.accept(project.images.ids()[0], 0, mask_of(1))
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="not a folder"):
        export_masks(project, tmp_path / "file")


def test_stopped_exports_say_so_and_problems_are_told(labelled, tmp_path):
    done = []
    exported = export_masks(
        labelled,
        tmp_path / "o",
        progress=lambda n, total: done.append((n, total)),
        should_stop=lambda: len(done) == 1,
    )
    assert not exported.complete
    assert [row["file"] for row in index(tmp_path / "o")] == list(exported.files)
    image = labelled.images.ids()[0]
    (labelled.folder / "labels" / image / "frame_0000.tif").write_bytes(b"II*\0")
    exported = export_masks(labelled, tmp_path / "o2")
    assert len(exported.files) == 1
    assert exported.problems[0].startswith(f"Label {image}#0: ")


def test_images_are_not_needed_nor_the_lock(labelled, tmp_path, pictures):
    pictures.rename(tmp_path / "gone")
    with Project.open(labelled.folder, read_only=True) as reader:
        assert len(export_masks(reader, tmp_path / "o").files) == 2


@pytest.fixture
def cine(project, tmp_path):
    """A cine of which two frames have a label, one of them partly reviewed."""
    np.save(tmp_path / "c.npy", np.ones((4, *SHAPE), np.uint8))
    (image,) = project.images.add([tmp_path / "c.npy"]).images
    reviewed = np.zeros(SHAPE, bool)
    reviewed[:20] = True
    size = {"pixel_size_mm": (0.2, 0.2), "pixel_size_source": "from a 6 F catheter"}
    model = Provenance(model="m", model_sha256="ab" * 32, threshold=0.5)
    project.labels.accept(
        image, 3, mask_of(3), provenance=model, pixels_changed=7, **size
    )
    project.labels.accept(
        image, 1, mask_of(1), reviewed, provenance=model, pixels_changed=5, **size
    )
    return project, image


def test_a_cines_masks_as_one_stack(cine, tmp_path):
    project, image = cine
    exported = export_masks(project, tmp_path / "o", stacks=True)
    assert exported.files == (f"{image}_frames.tif",)
    assert exported.labels == 2
    path = tmp_path / "o" / exported.files[0]
    assert np.array_equal(read_mask(path), np.stack([mask_of(1), mask_of(3)]))
    origin = read_provenance(path)
    assert (origin.frames, origin.model) == ((1, 3), "m")
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "TYX"
    rows = index(tmp_path / "o")
    assert [(r["file"], r["page"], r["frame"]) for r in rows] == [
        (path.name, "0", "1"),
        (path.name, "1", "3"),
    ]
    reviewed = read_mask(tmp_path / "o" / rows[0]["reviewed_file"])
    assert reviewed[0].sum() == 20 * SHAPE[1]
    assert reviewed[1].all()


def test_a_stack_says_only_what_holds_for_all(cine, tmp_path):
    project, image = cine
    project.labels.accept(image, 2, mask_of(2), provenance=Provenance(model="other"))
    export_masks(project, tmp_path / "o", stacks=True)
    origin = read_provenance(tmp_path / "o" / f"{image}_frames.tif")
    assert (origin.frames, origin.model, origin.threshold) == ((1, 2, 3), None, None)


def test_records_beside_the_masks(cine, tmp_path):
    project, image = cine
    export_masks(project, tmp_path / "o", records=True)
    made = json.loads((tmp_path / "o" / f"{image}_frame_0001.json").read_text())
    assert made["reviewed"] == pytest.approx(0.5)
    assert made["pixels_changed_by_reader"] == 5
    assert made["pixel_size_source"] == "from a 6 F catheter"
    assert made["pixel_size_mm"] == [0.2, 0.2]
    assert made["source_sha256"] == project.images.hash_of(image)
    pixels = read_mask(tmp_path / "o" / f"{image}_frame_0001.tif")
    assert made["mask_pixels_sha256"] == hashlib.sha256(pixels).hexdigest()
    export_masks(project, tmp_path / "s", records=True, stacks=True)
    made = json.loads((tmp_path / "s" / f"{image}_frames.json").read_text())
    assert (made["shape"], made["frames"]) == ([2, *SHAPE], [1, 3])
    assert made["pixels_changed_by_reader"] == 12
    assert made["reviewed"] == pytest.approx(0.75)


def test_a_stack_of_inverted_frames_says_that_they_are(project, tmp_path):
    np.save(tmp_path / "c.npy", np.ones((3, *SHAPE), np.uint8))
    (image,) = project.images.add([tmp_path / "c.npy"]).images
    for frame in (1, 2):
        origin = Provenance(inverted=True)
        project.labels.accept(image, frame, mask_of(frame), provenance=origin)
    exported = export_masks(project, tmp_path / "o", stacks=True)
    (name,) = exported.files
    assert read_provenance(exported.folder / name).inverted


def test_nothing_is_written_where_no_label_can_be(labelled, tmp_path):
    formats = ("coco", "nnunet")
    for path in labelled.images.files():
        Path(path).unlink()
    before = events(labelled)
    exported = export_masks(labelled, tmp_path / "o", formats=formats)
    assert (exported.files, exported.labels, exported.formats) == ((), 0, ())
    nothing = (
        "Nothing was written as COCO or nnU-Net: it can hold none of these labels."
    )
    assert exported.problems[0] == nothing
    assert len(exported.problems) == 3  # and each image, once
    assert not (tmp_path / "o").exists()
    assert events(labelled) == before


def test_a_format_of_dicom_alone_says_that_no_image_is(labelled, tmp_path):
    formats = ("tiff", "dicom-seg", "dicom-sr")
    exported = export_masks(labelled, tmp_path / "o", formats=formats)
    assert (exported.labels, exported.formats) == (2, ("tiff",))
    assert exported.problems == (
        "Nothing was written as DICOM Segmentation or DICOM Structured Report: none of "
        "the 2 images is a DICOM file.",
    )


def test_a_problem_of_some_formats_names_them(labelled, tmp_path):
    image, other = labelled.images.ids()[0], labelled.images.ids()[3]
    dicom = write_dicom(tmp_path / "a.dcm", np.ones(SHAPE, np.uint8))
    (added,) = labelled.images.add([dicom]).images
    labelled.labels.accept(added, 0, mask_of(3))
    formats = ("tiff", "dicom-seg")
    exported = export_masks(labelled, tmp_path / "o", formats=formats)
    assert exported.formats == formats
    why = "as DICOM Segmentation: its image is no DICOM file."
    assert exported.problems == (f"Label {image}#0 {why}", f"Label {other}#0 {why}")
    # What hinders all formats is told once.
    (labelled.folder / "labels" / image / "frame_0000.tif").write_bytes(b"II*\0")
    again = export_masks(labelled, tmp_path / "p", formats=formats)
    damaged, alone = again.problems
    assert damaged.startswith(f"Label {image}#0: ")
    assert alone == exported.problems[1]


def test_the_index_has_size_area_changes_flag_and_comment(cine, tmp_path):
    project, image = cine
    project.flag(image)
    project.comment(image, "=CTO of the RCA")
    export_masks(project, tmp_path / "o")
    row = index(tmp_path / "o")[1]
    assert (row["frame"], row["pixels_changed"], row["flagged"]) == ("3", "7", "1")
    assert (row["pixel_height_mm"], row["pixel_width_mm"]) == ("0.2", "0.2")
    assert float(row["artery_mm2"]) == pytest.approx(0.04 * mask_of(3).sum())
    assert row["comment"] == ""  # may name people
    export_masks(project, tmp_path / "named", original_names=True)
    assert index(tmp_path / "named")[0]["comment"] == "'=CTO of the RCA"
    export_masks(project, tmp_path / "stack", stacks=True, records=True)
    (record,) = (tmp_path / "stack").glob("*.json")
    made = json.loads(record.read_text())
    assert made["pixels_changed_by_reader"] == 12
    assert made["frames_changed_by_reader"] == [1, 3]
