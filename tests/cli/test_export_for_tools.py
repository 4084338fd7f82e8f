"""Labels and masks for other programs, read back by the libraries they are for."""

from __future__ import annotations

import csv
import json

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from napari_cmunet.cli.main import main
from napari_cmunet.io.masks.coco import run_lengths
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.project.export.formats import FORMATS
from napari_cmunet.project.project import Project
from napari_cmunet.synthetic import PhantomConfig, make_cine
from napari_cmunet.vessels.naming import NamedTree, SegmentName
from napari_cmunet.vessels.segments import UNNAMED, VALUES
from napari_cmunet.vessels.tree import build_tree
from tests.io.dicom_making import IDENTITY, write_dicom

CINE = make_cine(PhantomConfig(frames=3, size=64, seed=3, bits=12))


@pytest.fixture
def exported(tmp_path, monkeypatch, capsys):
    """A project of two DICOM patients, its labels exported for everybody."""
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    images = tmp_path / "Mustermann"
    images.mkdir()
    write_dicom(images / "Ottilie1", CINE.frames, bits=12)
    write_dicom(images / "other.dcm", CINE.frames[0], bits=12, PatientID="another")
    with Project.create(tmp_path / "project") as project:
        project.images.add([images])
        first, second = project.images.ids()
        project.labels.accept(first, 1, CINE.masks[1])
        project.labels.accept(first, 2, CINE.masks[2], np.tri(64, dtype=bool))
        project.labels.accept(second, 0, np.zeros((64, 64), bool))
        sides = {r.name: r.side for r in project.labels.refs()}
    out = tmp_path / "out"
    code = main(["export", str(project.folder), "-o", str(out), "--coco", "--nnunet"])
    assert (code, capsys.readouterr().err) == (0, "")
    return out, first, second, sides


def test_coco_is_read_by_pycocotools(exported, capsys):
    tools = pytest.importorskip("pycocotools.coco")
    out, first, _, _ = exported
    coco = tools.COCO(out / "coco.json")
    assert len(coco.getImgIds()) == 3
    (image,) = (
        i for i in coco.loadImgs(coco.getImgIds()) if "_frame_0001" in i["file_name"]
    )
    assert image["file_name"] == f"{first}_frame_0001.png"
    (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
    assert np.array_equal(coco.annToMask(annotation) != 0, CINE.masks[1])
    assert annotation["area"] == CINE.masks[1].sum()
    with Image.open(out / "coco_images" / image["file_name"]) as picture:
        assert np.array_equal(np.asarray(picture), CINE.frames[1])


def test_named_vessels_in_every_format(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    write_dicom(images / "a", CINE.frames, bits=12)
    tree = build_tree(CINE.masks[1])
    points = tree.branches[0].points
    middle = tuple(points[len(points) // 2])
    names = NamedTree(tree).rename(middle, "6", onward=True)
    names = (*names, SegmentName("7", (tuple(map(int, points[0])),), doubt=0.9))
    reviewed = np.tri(64, dtype=bool)
    with Project.create(tmp_path / "project") as project:
        project.images.add([images])
        (image,) = project.images.ids()
        project.labels.accept(image, 1, CINE.masks[1], names=names)
        project.labels.accept(image, 2, CINE.masks[2], reviewed, names=names)
        maps = [NamedTree(build_tree(CINE.masks[n]), names).values() for n in (1, 2)]
    assert set(np.unique(maps[0])) == {0, VALUES["6"], UNNAMED}
    formats = [f"--format={f}" for f in ("tiff", "coco", "nnunet", "dicom-seg")]
    options = [str(project.folder), "-o", str(out), *formats]
    assert main(["export", *options, "--segments"]) == 0, capsys.readouterr().err

    stem = f"{image}_frame_0001"
    assert np.array_equal(read_mask(out / f"{stem}.tif"), CINE.masks[1])
    assert np.array_equal(tifffile.imread(out / f"{stem}_segments.tif"), maps[0])
    with (out / "segments.csv").open(newline="") as file:
        rows = {int(row["value"]): row for row in csv.DictReader(file)}
    assert rows[VALUES["6"]]["name"] == "6 LAD proximal"
    assert rows[VALUES["6"]]["snomed_ct"] == "68787002"
    assert rows[UNNAMED]["name"] == "coronary artery"

    coco = json.loads((out / "coco.json").read_text())
    titles = {c["id"]: c["name"] for c in coco["categories"]}
    found = [(titles[a["category_id"]], a["area"]) for a in coco["annotations"]]
    first = found[:2]
    assert first == [
        ("6 LAD proximal", (maps[0] == VALUES["6"]).sum()),
        ("coronary artery", (maps[0] == UNNAMED).sum()),
    ]
    assert len(titles) == UNNAMED

    raw = out / "nnUNet_raw/Dataset001_CoronaryArteries"
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    assert sorted(labels.values()) == list(range(UNNAMED + 2))
    assert (labels["6 LAD proximal"], labels["ignore"]) == (VALUES["6"], UNNAMED + 1)
    with Image.open(raw / "labelsTr" / f"{stem}.png") as picture:
        assert np.array_equal(np.asarray(picture), maps[0])
    with Image.open(raw / "labelsTr" / f"{image}_frame_0002.png") as picture:
        wanted = np.where(reviewed, maps[1], UNNAMED + 1)
        assert np.array_equal(np.asarray(picture), wanted)

    seg = pydicom.dcmread(out / f"{image}_seg.dcm")
    told = [
        (s.SegmentNumber, s.SegmentLabel, s.SegmentedPropertyTypeCodeSequence[0])
        for s in seg.SegmentSequence
    ]
    assert [(n, label) for n, label, _ in told] == [
        (1, "6 LAD proximal"),
        (2, "Coronary artery"),
        (3, "Reviewed area"),
    ]
    assert (told[0][2].CodeValue, told[0][2].CodingSchemeDesignator) == (
        "68787002",
        "SCT",
    )
    pages = seg.pixel_array.reshape(3, 2, 64, 64)
    assert np.array_equal(pages[0] != 0, np.stack(maps) == VALUES["6"])
    assert np.array_equal(pages[1] != 0, np.stack(maps) == UNNAMED)


def test_coco_leaves_what_was_not_reviewed_to_a_crowd_region(exported):
    tools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval
    out, first, second, _ = exported
    coco = tools.COCO(out / "coco.json")
    images = {i["file_name"]: i["id"] for i in coco.dataset["images"]}
    partly, whole = images[f"{first}_frame_0002.png"], images[f"{first}_frame_0001.png"]
    reviewed = np.tri(64, dtype=bool)
    crowd, artery = sorted(
        coco.loadAnns(coco.getAnnIds(partly)), key=lambda a: -a["iscrowd"]
    )
    assert (crowd["iscrowd"], artery["iscrowd"]) == (1, 0)
    assert np.array_equal(coco.annToMask(crowd) != 0, ~reviewed)
    assert np.array_equal(coco.annToMask(artery) != 0, CINE.masks[2] & reviewed)
    assert not coco.getAnnIds(whole, iscrowd=True)
    assert not coco.getAnnIds(images[f"{second}_frame_0000.png"])
    # An artery found where nobody looked is no false positive.
    mask = np.asfortranarray(np.triu(np.ones((64, 64), np.uint8), 2))
    encoded = pytest.importorskip("pycocotools.mask").encode(mask)
    found = [
        {"image_id": i, "category_id": 1, "segmentation": encoded, "score": 0.9}
        for i in (partly, whole)
    ]
    judged = evaluation(coco, coco.loadRes(found), "segm")
    judged.evaluate()
    sizes = judged.params.areaRng[0]  # all
    ignored = {
        e["image_id"]: e["dtIgnore"][0, 0]
        for e in judged.evalImgs
        if e and e["aRng"] == sizes
    }
    assert ignored[partly]
    assert not ignored[whole]


def test_run_lengths_are_those_of_pycocotools():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for density in (0, 0.3, 1):
        mask = rng.random((7, 5)) < density
        made = tools.frPyObjects({"size": [7, 5], "counts": run_lengths(mask)}, 7, 5)
        assert np.array_equal(tools.decode(made) != 0, mask)
        assert sum(run_lengths(mask)) == mask.size


def test_the_folders_of_nnunet(exported):
    out, first, second, sides = exported
    root = out / "nnUNet_raw" / "Dataset001_CoronaryArteries"
    told = json.loads((root / "dataset.json").read_text())
    assert told["numTraining"] == 3
    assert told["labels"] == {"background": 0, "artery": 1, "ignore": 2}
    cases = sorted(p.name.removesuffix(".png") for p in (root / "labelsTr").iterdir())
    pictures = sorted(p.name for p in (root / "imagesTr").iterdir())
    assert pictures == [f"{case}_0000.png" for case in cases]
    partly = np.asarray(Image.open(root / "labelsTr" / f"{first}_frame_0002.png"))
    reviewed = np.tri(64, dtype=bool)
    assert (partly[~reviewed] == 2).all()
    assert np.array_equal(partly[reviewed] == 1, CINE.masks[2][reviewed])
    (split,) = json.loads((root / "splits_final.json").read_text())
    assert sorted(split["train"] + split["val"]) == cases
    for image in (first, second):  # a patient lies on one side
        own = [k for k, part in split.items() for c in part if c.startswith(image)]
        assert len(set(own)) == 1
    assert {s for n, s in sides.items() if n.startswith(first)} in (
        {"train"},
        {"validation"},
    )


def assert_names_nobody(out):
    files = [path for path in out.rglob("*") if path.is_file()]
    everything = b"\n".join(
        str(path.relative_to(out)).encode() + path.read_bytes() for path in files
    ).lower()
    for value in IDENTITY.values():
        for part in value.replace("^", " ").split():
            if len(part) > 3:
                assert part.lower().encode() not in everything, part


def test_exports_name_nobody(exported, capsys):
    out, *_ = exported
    assert_names_nobody(out)
    project, more = out.parent / "project", out.parent / "more"
    command = ["export", str(project), "-o", str(more), "--record", "--stack"]
    assert main(command) == 0
    assert len(list(more.glob("*.json"))) == 2
    assert len(list(more.glob("*_frames.tif"))) == 1
    assert_names_nobody(more)
    said = "".join(capsys.readouterr()).lower().replace(str(out.parent).lower(), "")
    assert "mustermann" not in said
    assert "ottilie" not in said


def test_images_that_were_moved_are_shown_to_the_export(exported, capsys):
    out, *_ = exported
    project, again = out.parent / "project", out.parent / "again"
    (out.parent / "Mustermann").rename(out.parent / "elsewhere")
    command = ["export", str(project), "-o", str(again), "--coco"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "is not where it was" in said
    assert "Nothing was written as COCO: it can hold none of these labels." in said
    assert "--images DIR" in said
    assert not (again / "coco.json").exists()
    assert main([*command, "--overwrite", "--images", str(out.parent / "no")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    elsewhere = str(out.parent / "elsewhere")
    assert main([*command, "--overwrite", "--images", elsewhere]) == 0
    assert "2 of 2 missing images found again" in capsys.readouterr().err
    assert len(list((again / "coco_images").iterdir())) == 3


def test_a_refusal_names_the_way_out(exported, capsys):
    out, *_ = exported
    assert main(["export", str(out.parent / "project"), "-o", str(out)]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_a_picture_with_text_in_it_stays_at_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    path = write_dicom(tmp_path / "a.dcm", CINE.frames[1], BurnedInAnnotation="YES")
    with Project.create(tmp_path / "project") as project:
        project.images.add([path])
        project.labels.accept(project.images.ids()[0], 0, CINE.masks[1])
    out = tmp_path / "out"
    code = main(["export", str(project.folder), "-o", str(out), "--coco", "--nnunet"])
    assert code == 1
    assert "its picture may show text" in capsys.readouterr().err
    assert sorted(path.suffix for path in out.rglob("*")) == [".csv", ".tif"]


def test_what_is_segmented_names_nobody(tmp_path, tiny_model, capsys):
    images = tmp_path / "in" / "Mustermann_Ottilie"
    images.mkdir(parents=True)
    write_dicom(images / "PID_4711_08.dcm", CINE.frames, bits=12)
    write_dicom(images / "IM1", CINE.frames[2], bits=12, PixelSpacing=[0.2, 0.2])
    out = tmp_path / "out"
    extras = ("--record", "--probability", "--probability-float32", "--overlay")
    command = ["segment", str(images), "-o", str(out), *extras]
    assert main([*command, "--model", str(tiny_model)]) == 0
    kinds = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert kinds == {".tif", ".json", ".png", ".csv"}
    assert_names_nobody(out)
    said = "".join(capsys.readouterr()).lower()
    assert "mustermann" not in said
    assert "4711" not in said


def test_a_float_probability_is_what_the_mask_was_cut_from(
    tmp_path, tiny_model, capsys
):
    np.save(tmp_path / "a.npy", CINE.frames)
    out = tmp_path / "out"
    command = ["segment", str(tmp_path / "a.npy"), "-o", str(out), "--threshold", "0.4"]
    command += ["--probability", "--probability-float32", "--model", str(tiny_model)]
    assert main(command) == 0
    exact = tifffile.imread(out / "a_probability_float32.tif")
    steps = tifffile.imread(out / "a_probability.tif")
    assert (exact.dtype, steps.dtype) == (np.float32, np.uint8)
    assert np.abs(exact * 255 - steps).max() <= 0.5 + 1e-4
    assert len(np.unique(exact)) > 256
    assert np.array_equal(read_mask(out / "a.tif"), steps >= 102)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 3])
def test_dicom_segmentation_is_read_by_highdicom(tmp_path, tiny_model, capsys, frames):
    seg = pytest.importorskip("highdicom").seg
    source = write_dicom(
        tmp_path / "a.dcm",
        CINE.frames[:frames].squeeze(),
        bits=12,
        PixelSpacing=[0.2, 0.3],
        PixelSpacingCalibrationType="GEOMETRY",
    )
    out = tmp_path / "out"
    command = ["segment", str(source), "-o", str(out), "--dicom-seg", "--dicom-sc"]
    code = main([*command, "--model", str(tiny_model)])
    assert (code, capsys.readouterr().err) == (0, "")
    mask = read_mask(out / "a.tif").reshape(frames, 64, 64)
    assert mask.any()
    found = seg.segread(out / "a_seg.dcm")
    assert np.array_equal(found.pixel_array.reshape(mask.shape) != 0, mask)
    assert "CM-UNet" in found.SeriesDescription
    assert [float(side) for side in found.PixelSpacing] == [0.2, 0.3]
    assert pydicom.dcmread(out / "a_sc.dcm").get("NumberOfFrames", 1) == frames
    assert_names_nobody(out)


def test_where_there_can_be_none_it_is_said(tmp_path, tiny_model, capsys):
    np.save(tmp_path / "a.npy", CINE.frames)
    write_dicom(tmp_path / "b.dcm", CINE.frames[2], BurnedInAnnotation="YES")
    out = tmp_path / "out"
    command = ["segment", str(tmp_path), "-o", str(out), "--dicom-seg", "--dicom-sc"]
    assert main([*command, "--model", str(tiny_model)]) == 0
    said = capsys.readouterr().err
    for what in ("DICOM segmentation", "Secondary Capture"):
        assert f"a.npy: note: no {what} was written: its image is no DICOM" in said
    assert "b.dcm: note: no Secondary Capture was written: its picture may" in said
    assert [path.name for path in out.glob("*.dcm")] == ["b_seg.dcm"]


def test_simpleitk_reads_a_cines_masks_as_one_stack(tmp_path, tiny_model, capsys):
    itk = pytest.importorskip("SimpleITK")
    path = write_dicom(
        tmp_path / "a.dcm",
        CINE.frames,
        bits=12,
        PixelSpacing=[0.25, 0.2],
        PixelSpacingCalibrationType="FIDUCIAL",
    )
    command = ["segment", str(path), "-o", str(tmp_path / "out")]
    assert main([*command, "--model", str(tiny_model)]) == 0
    image = itk.ReadImage(tmp_path / "out" / "a.tif")
    expected = read_mask(tmp_path / "out" / "a.tif")
    assert np.array_equal(itk.GetArrayFromImage(image) != 0, expected)
    assert image.GetSpacing()[:2] == pytest.approx((0.2, 0.25), rel=1e-4)


def test_every_format_of_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    write_dicom(tmp_path / "a.dcm", CINE.frames, bits=12)
    np.save(tmp_path / "b.npy", CINE.frames[1])
    with Project.create(tmp_path / "project") as project:
        project.images.add([tmp_path / "a.dcm", tmp_path / "b.npy"])
        dicom, other = project.images.ids()
        for frame in (2, 0):
            project.labels.accept(dicom, frame, CINE.masks[frame])
        project.labels.accept(other, 0, CINE.masks[1])
    names = ["tiff", "coco", "nnunet", "dicom-seg", "dicom-sc", "dicom-sr", "report"]
    assert [f.name for f in FORMATS] == names
    for form in FORMATS:
        out = tmp_path / form.name
        words = [str(project.folder), "-o", str(out), "--format", form.name]
        code = main(["export", *words])
        error = capsys.readouterr().err
        if form.name.startswith("dicom"):
            assert code == 1
            assert f"Label {other}#0: its image is no DICOM file" in error
            if form.name == "dicom-sr":  # too small to be measured
                assert error.count("no lesion was measured or found") == 2
                assert not out.exists() or not list(out.iterdir())
                continue
            assert error.count("Label") == 1, error
            (file,) = out.iterdir()
            found = pydicom.dcmread(file)
            assert found.NumberOfFrames == 2
            if form.name == "dicom-seg":
                assert np.array_equal(found.pixel_array != 0, CINE.masks[[0, 2]])
        else:
            assert (code, error) == (0, "")
        assert (out / "index.csv").exists() == (form.name == "tiff")
