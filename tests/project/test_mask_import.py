"""Masks of other programs: the right pixels, or refused for the true reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from napari_cmunet.errors import Cancelled
from napari_cmunet.io.dicom.segmentation import write_segmentation
from napari_cmunet.io.masks.coco import CocoFile
from napari_cmunet.io.masks.files import write_mask
from napari_cmunet.io.polarity import invert_array
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.labels.mask_import import (
    ImportOptions,
    plan_import,
    run_import,
)
from napari_cmunet.project.labels.mask_matching import better_orientation
from napari_cmunet.project.project import Project
from napari_cmunet.project.readers.readers import REVIEWER
from napari_cmunet.synthetic import PhantomConfig, make_cine, make_frame
from napari_cmunet.vessels.naming import SegmentName
from tests.io.dicom_making import write_dicom

HIGH, WIDE, FRAMES = 96, 128, 4


def cropped(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[..., :HIGH, :WIDE])


FRAME, TRUTH = map(cropped, make_frame(PhantomConfig(size=128, seed=8)))
_CINE = make_cine(PhantomConfig(size=128, seed=9, frames=FRAMES))
CINE, TRUTHS = cropped(np.asarray(_CINE.frames)), cropped(_CINE.masks)


@pytest.fixture
def project(tmp_path):
    """A PNG, a DICOM frame and a DICOM cine."""
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(FRAME).save(images / "still.png")
    write_dicom(images / "shot.dcm", FRAME)
    write_dicom(images / "run.dcm", CINE)
    with Project.create(tmp_path / "project", user="reader-1") as made:
        made.images.add([images])
        yield made


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    return folder


def image_of(project, name):
    for record in project.images:
        if record.path.startswith(name):
            return record.id
    raise LookupError(name)


def imported(project, *inputs, **options):
    chosen = ImportOptions(**options)
    plan = plan_import(project, inputs, chosen)
    return plan, run_import(project, plan, chosen)


def check_label(project, name, frame=0, mask=TRUTH, reviewed=None, kind=None):
    label = project.labels.get(image_of(project, name), frame)
    assert label is not None
    assert np.array_equal(label.mask, mask)
    if reviewed is None:
        assert label.reviewed is None
    else:
        assert np.array_equal(label.reviewed, reviewed)
    made = label.provenance
    assert made.source_sha256 == project.images[image_of(project, name)].sha256
    assert len(made.imported_sha256) == 64
    assert kind is None or made.imported_from == kind


# -- kinds of mask files -------------------------------------------------------------

BYTES = TRUTH.astype(np.uint8) * 255


def png(folder, image=None, name="still.png", **options):
    (image or Image.fromarray(BYTES)).save(folder / name, **options)


def png_of_ones(folder):
    png(folder, Image.fromarray(BYTES // 255))


def png_of_one_bit(folder):
    png(folder, Image.fromarray(TRUTH))


def png_in_red(folder):
    red = np.zeros((HIGH, WIDE, 3), np.uint8)
    red[TRUTH] = 255, 0, 0
    png(folder, Image.fromarray(red))


def png_on_a_transparent_ground(folder):
    white = np.full((HIGH, WIDE, 4), 255, np.uint8)
    white[..., 3] = BYTES
    png(folder, Image.fromarray(white))


def png_with_a_palette(folder):
    image = Image.fromarray(BYTES // 255, "P")
    image.putpalette([0, 0, 0, 200, 10, 10])
    png(folder, image)


def bmp(folder):
    png(folder, name="still.bmp")


def webp_without_loss(folder):
    png(folder, name="still.webp", lossless=True)


def npy_of_bool(folder):
    np.save(folder / "still.npy", TRUTH)


def npy_of_floats(folder):
    np.save(folder / "still.npy", TRUTH.astype(np.float64))


def tiff_of_imagej(folder):
    tifffile.imwrite(folder / "still.tif", BYTES, imagej=True)


def tiff_with_an_inverting_lut(folder):
    tifffile.imwrite(folder / "still.tif", BYTES, photometric="miniswhite")


def tiff_of_16_bits(folder):
    tifffile.imwrite(folder / "still.tif", TRUTH.astype(np.uint16) * 7)


def tiff_of_this_program(folder):
    write_mask(folder / "still.tif", TRUTH, Provenance(model="mine", threshold=0.5))


def tiff_that_names_no_frame(folder):
    write_mask(folder / "still.tif", TRUTH, Provenance(frames=()))


def named_with_mask(folder):
    png(folder, name="still_mask.png")


def named_as_the_file(folder):
    png(folder, name="mask-Still.png.png")


KINDS = [
    png,
    png_of_ones,
    png_of_one_bit,
    png_in_red,
    png_on_a_transparent_ground,
    png_with_a_palette,
    bmp,
    webp_without_loss,
    npy_of_bool,
    npy_of_floats,
    tiff_of_imagej,
    tiff_with_an_inverting_lut,
    tiff_of_16_bits,
    tiff_of_this_program,
    tiff_that_names_no_frame,
    named_with_mask,
    named_as_the_file,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_mask_files(project, masks, make):
    make(masks)
    plan, result = imported(project, masks)
    assert (plan.problems, result.saved, result.problems) == ((), 1, ())
    check_label(project, "still")


def pages(path, stack):
    tifffile.imwrite(path, stack.astype(np.uint8) * 255, photometric="minisblack")


def test_a_stack_of_a_cine(project, masks):
    stack = TRUTHS.copy()
    stack[1] = False  # nobody labelled this frame
    pages(masks / "run.tif", stack)
    _, result = imported(project, masks)
    drawn = tuple(int(n) for n in np.flatnonzero(stack.any(axis=(1, 2))))
    assert result.saved == len(drawn) > 1
    assert project.labels.frames(image_of(project, "run")) == drawn
    check_label(project, "run", 3, TRUTHS[3], kind="TIFF")


def test_one_frame_of_a_cine_is_named(project, masks):
    png(masks, Image.fromarray(TRUTHS[2]), "run_frame_0002.png")
    _, result = imported(project, masks)
    assert result.saved == 1
    check_label(project, "run", 2, TRUTHS[2], kind="PNG")


# -- COCO, DICOM Segmentation, nnU-Net ---------------------------------------------


def coco(path, mask=TRUTH, name="still.png", **changes):
    made = CocoFile()
    made.add(name, mask)
    made.write(path)
    content = json.loads(path.read_text())
    content["annotations"][0] |= changes
    path.write_text(json.dumps(content))
    return path


def test_coco_run_lengths(project, masks):
    _, result = imported(project, coco(masks / "a.json"))
    assert result.saved == 1
    check_label(project, "still", kind="COCO")


def test_coco_compressed_run_lengths(project, masks):
    encode = pytest.importorskip("pycocotools.mask").encode
    made = encode(np.asfortranarray(TRUTH, np.uint8))
    counts = {"size": made["size"], "counts": made["counts"].decode()}
    imported(project, coco(masks / "a.json", segmentation=counts))
    check_label(project, "still", kind="COCO")


def test_coco_polygons_are_those_of_its_own_tools(project, masks):
    tools = pytest.importorskip("pycocotools.mask")
    outlines = [
        [10.5, 12.0, 60.25, 20.75, 61.0, 25.0, 9.0, 18.5],
        [58.0, 20.0, 90.1, 71.3, 85.2, 74.9, 55.0, 26.0],
    ]
    drawn = tools.decode(tools.merge(tools.frPyObjects(outlines, HIGH, WIDE))) > 0
    path = coco(masks / "a.json", segmentation=outlines)
    imported(project, path, any_orientation=True)
    check_label(project, "still", mask=drawn, kind="COCO")


def test_a_crowd_region_of_coco_is_not_reviewed(project, masks):
    reviewed = np.ones((HIGH, WIDE), bool)
    reviewed[:, :20] = False
    made = CocoFile()
    made.add("still.png", TRUTH, reviewed)
    made.write(masks / "a.json")
    imported(project, masks)
    check_label(project, "still", 0, TRUTH & reviewed, reviewed, "COCO")


def test_coco_names_are_paths_of_any_system(project, masks):
    imported(project, coco(masks / "a.json", name="C:\\data\\still.jpg"))
    check_label(project, "still")


def test_pictures_of_a_coco_file_are_no_masks(project, masks):
    coco(masks / "a.json")
    Image.fromarray(FRAME).save(masks / "still.png")
    plan, result = imported(project, masks)
    assert (plan.problems, result.saved) == ((), 1)
    check_label(project, "still", kind="COCO")


def test_categories_are_chosen(project, masks):
    path = coco(masks / "a.json")
    content = json.loads(path.read_text())
    catheter = dict(content["annotations"][0], id=2, category_id=2)
    catheter |= {"bbox": [0, 0, 20, 20], "area": 200}
    catheter["segmentation"] = [[0, 0, 20, 0, 20, 20]]
    content["annotations"].append(catheter)
    content["categories"].append({"id": 2, "name": "catheter"})
    path.write_text(json.dumps(content))
    plan, _ = imported(project, path)
    (problem,) = plan.problems
    assert "2 kinds apart: coronary artery, catheter" in problem
    imported(project, path, artery=("Coronary Artery",))
    check_label(project, "still")


def test_a_dicom_segmentation_of_a_frame(project, masks):
    shot = project.images.path(image_of(project, "shot"))
    write_segmentation(masks / "whatever.dcm", shot, TRUTH, Provenance())
    _, result = imported(project, masks)
    assert result.saved == 1
    check_label(project, "shot", kind="DICOM SEG")


def test_a_dicom_segmentation_of_some_frames_and_a_part(project, masks):
    run = project.images.path(image_of(project, "run"))
    reviewed = np.ones((2, HIGH, WIDE), bool)
    reviewed[1, :, 60:] = False
    made = Provenance(frames=(1, 3))
    write_segmentation(masks / "a.dcm", run, TRUTHS[[1, 3]], made, reviewed=reviewed)
    _, result = imported(project, masks)
    assert result.saved == 2
    check_label(project, "run", 1, TRUTHS[1])
    check_label(project, "run", 3, TRUTHS[3], reviewed[1])


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_dicom_segmentations_of_another_program(project, masks, kind):
    hd = pytest.importorskip("highdicom")
    shot = pydicom.dcmread(project.images.path(image_of(project, "shot")))
    for keyword in ("PatientSex", "StudyDate", "StudyTime"):
        setattr(shot, keyword, "")
    shot.PatientBirthDate = ""
    shot.SeriesNumber = shot.InstanceNumber = 1
    shot.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    description = hd.seg.SegmentDescription(
        1,
        "vessel",
        hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure"),
        hd.sr.CodedConcept("41801008", "SCT", "Coronary artery"),
        hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    pixels = TRUTH.astype(float) if kind == "FRACTIONAL" else TRUTH.astype(np.uint8)
    try:
        made = hd.seg.Segmentation(
            [shot],
            pixels,
            kind,
            [description],
            pydicom.uid.generate_uid(),
            1,
            pydicom.uid.generate_uid(),
            1,
            "maker",
            "model",
            "1",
            "serial",
            omit_empty_frames=False,
        )
    except (ValueError, AttributeError, KeyError) as error:
        pytest.skip(f"this highdicom does not write it: {error}")
    made.save_as(masks / "seg.dcm")
    plan, result = imported(project, masks)
    assert (plan.problems, result.saved) == ((), 1)
    check_label(project, "shot", kind="DICOM SEG")


@pytest.mark.parametrize("first_version", [True, False])
def test_nnunet(project, masks, first_version):
    folder = masks / "Dataset007"
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "imagesTr").mkdir()
    classes = TRUTH.astype(np.uint8) * 2
    classes[:, :20] = 3
    Image.fromarray(classes).save(folder / "labelsTr" / "still.png")
    Image.fromarray(FRAME).save(folder / "imagesTr" / "still_0000.png")
    labels = {"background": 0, "vessel": 2, "ignore": 3}
    if first_version:
        labels = {str(value): name for name, value in labels.items()}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    plan, result = imported(project, masks)
    assert (plan.problems, result.saved) == ((), 1)
    check_label(project, "still", 0, classes == 2, classes != 3, kind="nnU-Net")


def test_what_was_exported_comes_back(project, masks, tmp_path):
    """Into another project of the same images."""
    reviewed = np.ones((HIGH, WIDE), bool)
    reviewed[:10] = False
    project.labels.accept(image_of(project, "run"), 2, TRUTHS[2])
    project.labels.accept(image_of(project, "still"), 0, TRUTH, reviewed)
    formats = ("tiff", "coco", "nnunet")
    export_masks(project, masks, formats=formats, original_names=True)
    with Project.create(tmp_path / "second") as other:
        other.images.add([tmp_path / "images"])
        plan, result = imported(
            other, masks / "run_frame_0002.tif", masks / "still.tif"
        )
        assert (plan.problems, result.saved) == ((), 2)
        check_label(other, "run", 2, TRUTHS[2])
        check_label(other, "still", 0, TRUTH, reviewed)
    for part in ("coco.json", "nnUNet_raw"):
        plan = plan_import(project, [masks / part], ImportOptions())
        assert plan.problems == ()
        assert sorted(pair.known for pair in plan.pairs) == [(0,), (2,)]


# -- what the project knows of an image ----------------------------------------------


def test_a_calibrated_pixel_size_stays(project, masks):
    run = image_of(project, "run")
    size = {"pixel_size_mm": (0.2, 0.2), "pixel_size_source": "from a 6 F catheter"}
    project.labels.accept(run, 2, TRUTHS[2], pixel_size_error=0.03, **size)
    png(masks, Image.fromarray(TRUTHS[3]), "run_frame_0003.png")
    imported(project, masks)
    label = project.labels.get(run, 3)
    assert label.pixel_size_mm == pytest.approx((0.2, 0.2))
    assert label.note["pixel_size_source"] == "from a 6 F catheter"
    assert label.note["pixel_size_error"] == 0.03


def test_the_reviewer_sees_the_pixel_sizes_of_all_readers(project, masks):
    run, folder = image_of(project, "run"), project.folder
    size = {"pixel_size_mm": (0.2, 0.2), "pixel_size_source": "from a 6 F catheter"}
    made = Provenance(inverted=True)
    project.labels.accept(run, 2, TRUTHS[2], provenance=made, **size)
    project.close()
    png(masks, Image.fromarray(TRUTHS[3]), "run_frame_0003.png")
    for reader, known in ((REVIEWER, True), ("0badcafe", False)):
        with Project.open(folder, reader=reader) as opened:
            imported(opened, masks)
            label = opened.labels.get(run, 3)
        assert (label.pixel_size_mm is not None) == known
        assert label.provenance.inverted == known


@pytest.mark.parametrize("drafts", [False, True])
def test_masks_of_an_inverted_image_are_inverted(project, masks, drafts):
    run, still = image_of(project, "run"), image_of(project, "still")
    project.invert(still)
    project.drafts.save(run, 2, TRUTHS[2], provenance=Provenance(inverted=True))
    png(masks)
    png(masks, Image.fromarray(TRUTHS[3]), "run_frame_0003.png")
    imported(project, masks, drafts=drafts)
    get = project.drafts.load if drafts else project.labels.get
    assert get(still, 0).provenance.inverted
    assert get(run, 3).provenance.inverted


# -- refused -------------------------------------------------------------------------


def jpeg(folder):
    png(folder, name="still.jpg", quality=70)


def two_values(folder):
    png(folder, Image.fromarray(np.where(TRUTH, 2, FRAME % 2).astype(np.uint8)))


def another_size(folder):
    png(folder, Image.fromarray(BYTES[:50]))


def rows_and_columns_exchanged(folder):
    png(folder, Image.fromarray(np.ascontiguousarray(BYTES.T)))


def mirrored(folder):
    png(folder, Image.fromarray(np.ascontiguousarray(BYTES[:, ::-1])))


def upside_down(folder):
    png(folder, Image.fromarray(np.ascontiguousarray(BYTES[::-1])))


def black_on_white(folder):
    png(folder, Image.fromarray(255 - BYTES))


def all_artery(folder):
    png(folder, Image.fromarray(np.full_like(BYTES, 255)))


def one_frame_for_a_cine(folder):
    png(folder, name="run.png")


def a_frame_that_is_not_there(folder):
    png(folder, name="run_frame_0009.png")


def too_few_pages(folder):
    pages(folder / "run.tif", TRUTHS[:2])


def nifti(folder):
    (folder / "still.nii.gz").write_bytes(b"\x1f\x8b" + bytes(30))


def labelme(folder):
    (folder / "still.json").write_text('{"shapes": [], "imagePath": "still.png"}')


def cut_short(folder):
    png(folder)
    path = folder / "still.png"
    path.write_bytes(path.read_bytes()[:200])


def without_an_image(folder):
    png(folder, name="other.png")


def a_dicom_image(folder):
    write_dicom(folder / "still.dcm", BYTES)


def a_segmentation_of_another_image(folder):
    source = write_dicom(folder / "source.bin", FRAME)
    write_segmentation(folder / "still.dcm", source, TRUTH, Provenance())
    source.unlink()


def a_damaged_segmentation(folder):
    a_segmentation_of_another_image(folder)
    made = pydicom.dcmread(folder / "still.dcm")
    del made.PerFrameFunctionalGroupsSequence
    made.save_as(folder / "still.dcm")


def coco_of_another_size(folder):
    coco(folder / "a.json", TRUTH[:50])


def coco_with_broken_runs(folder):
    coco(folder / "a.json", segmentation={"size": [HIGH, WIDE], "counts": [9, -4]})


def coco_with_a_box_alone(folder):
    coco(folder / "a.json", segmentation=None)


REFUSED = [
    (jpeg, "JPEG changes the values of a mask"),
    (two_values, "not a mask of two values"),
    (another_size, "the mask is 50 x 128, its image 96 x 128"),
    (rows_and_columns_exchanged, "Rows and columns seem to be exchanged"),
    (mirrored, "fits its image better mirrored"),
    (upside_down, "fits its image better upside down"),
    (black_on_white, "artery and background are exchanged"),
    (all_artery, "all of it is artery"),
    (one_frame_for_a_cine, "end its name in _frame_0007"),
    (a_frame_that_is_not_there, "frame 9; its image has 4"),
    (too_few_pages, "the mask is 2 x 96 x 128, its image 4 x 96 x 128"),
    (nifti, "(NII.GZ) are not read"),
    (labelme, "no COCO annotations"),
    (cut_short, "damaged or cut short"),
    (without_an_image, "no image of the project has this name"),
    (a_dicom_image, "a DICOM image, not a mask"),
    (a_segmentation_of_another_image, "is not in the project"),
    (a_damaged_segmentation, "does not say what its frames are"),
    (coco_of_another_size, "the mask is 50 x 128"),
    (coco_with_broken_runs, "the outline of an artery in it is damaged"),
    (coco_with_a_box_alone, "the outline of an artery in it is damaged"),
]


@pytest.mark.parametrize(
    ("make", "reason"), REFUSED, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_refused_and_why(project, masks, make, reason):
    make(masks)
    plan, result = imported(project, *sorted(masks.iterdir()))
    (problem,) = plan.problems
    assert reason in problem
    assert "\n" not in problem
    assert str(masks) not in problem
    assert (plan.pairs, result.saved) == ((), 0)
    assert not project.labels.keys()


def test_a_mask_of_another_image_file_is_refused(project, masks):
    other = Provenance(model="mine", source_sha256="0" * 64)
    write_mask(masks / "still.tif", TRUTH, other)
    png(masks, Image.fromarray(TRUTHS[2]), "run_frame_0002.png")
    plan, result = imported(project, masks)
    assert plan.problems == ("still.tif: it was made of another image file.",)
    assert result.saved == 1
    assert project.labels.get(image_of(project, "still"), 0) is None


def test_a_draft_keeps_the_reviewed_area_and_a_label_says_that_it_does_not(
    project, masks
):
    still, seen = image_of(project, "still"), np.zeros((HIGH, WIDE), bool)
    seen[:, :50] = True
    project.labels.accept(still, 0, ~TRUTH, seen)
    Image.fromarray(TRUTH).save(masks / "still.png")
    plan, _ = imported(project, masks, drafts=True, replace=True)
    assert str(plan.pairs[0]) == "still.png -> still.png, frame 0"
    draft = project.drafts.load(still, 0)
    np.testing.assert_array_equal(draft.mask, TRUTH)
    np.testing.assert_array_equal(draft.reviewed, seen)
    plan, _ = imported(project, masks, replace=True)
    assert str(plan.pairs[0]).endswith(
        "frame 0: all counts as reviewed, no longer a part"
    )
    check_label(project, "still")


def test_a_mask_of_which_nothing_was_reviewed_stops_no_other(project, masks):
    tiff_of_this_program(masks)
    write_mask(masks / "still_reviewed.tif", np.zeros_like(TRUTH), Provenance())
    png(masks, Image.fromarray(TRUTHS[2]), "run_frame_0002.png")
    plan, result = imported(project, masks)
    assert plan.problems == ("still.tif: nothing of frame 0 was reviewed.",)
    assert result.saved == 1
    check_label(project, "run", 2, TRUTHS[2])


def test_empty_pages_are_labels_only_of_a_corrected_mask(project, masks):
    stack = TRUTHS[2:].copy()
    stack[0] = False
    made = Provenance(model="mine", frames=(2, 3))
    write_mask(masks / "run.tif", stack, made)
    imported(project, masks)
    assert project.labels.frames(image_of(project, "run")) == (3,)
    write_mask(masks / "run.tif", stack, replace(made, corrected=True))
    imported(project, masks)
    assert project.labels.frames(image_of(project, "run")) == (2, 3)


def test_the_plan_says_that_a_mask_is_empty(project, masks):
    png(masks, Image.fromarray(BYTES * 0))
    plan, _ = imported(project, masks)
    assert str(plan.pairs[0]) == (
        "still.png -> still.png, frame 0: no artery is marked"
    )
    check_label(project, "still", mask=TRUTH & False)


def test_the_plan_names_the_frames_without_an_artery(project, masks):
    """Somebody who marks them as reviewed says so, hence they are labels."""
    run = project.images.path(image_of(project, "run"))
    stack = TRUTHS[[3, 1, 2, 3]]
    stack[1:3] = False
    reviewed = np.ones_like(stack)
    reviewed[:, :5], reviewed[2] = False, False
    write_segmentation(
        masks / "a.dcm", run, stack, Provenance(frames=(0, 1, 2, 3)), reviewed=reviewed
    )
    plan, _ = imported(project, masks)
    assert str(plan.pairs[0]).endswith("frames 0, 1, 3: no artery is marked in frame 1")
    check_label(project, "run", 1, stack[1], reviewed[1])


def test_inverted_grey_values_change_no_orientation():
    for turned in (TRUTH, TRUTH[::-1], TRUTH[:, ::-1]):
        found = better_orientation(FRAME, turned)
        assert better_orientation(invert_array(FRAME), turned) == found


# -- what is there already ---------------------------------------------------------


def test_a_second_run_changes_nothing(project, masks):
    png(masks)
    imported(project, masks)
    before = project.labels.hash(image_of(project, "still"), 0)
    plan, result = imported(project, masks)
    assert (result.saved, plan.pairs[0].known) == (0, (0,))
    assert "(there already)" in str(plan.pairs[0])
    assert project.labels.hash(image_of(project, "still"), 0) == before


def test_another_label_is_replaced_only_if_asked(project, masks):
    image = image_of(project, "still")
    project.labels.accept(image, 0, TRUTH[::-1])
    png(masks)
    plan, _ = imported(project, masks)
    assert "has another mask in the project" in plan.problems[0]
    _, result = imported(project, masks, replace=True)
    assert result.saved == 1
    check_label(project, "still")
    assert len(project.labels.older(image, 0)) == 1


@pytest.mark.parametrize("drafts", [False, True])
def test_names_of_vessels_stay(project, masks, drafts):
    image, names = image_of(project, "still"), (SegmentName("7", ((20, 30),)),)
    project.labels.accept(image, 0, TRUTH[::-1], names=names)
    png(masks)
    _, result = imported(project, masks, drafts=drafts, replace=True)
    assert result.saved == 1
    label = (project.drafts.load if drafts else project.labels.get)(image, 0)
    assert np.array_equal(label.mask, TRUTH)
    assert label.names == names


def test_a_draft_stays_unless_it_may_be_replaced(project, masks):
    image = image_of(project, "still")
    project.drafts.save(image, 0, TRUTH[::-1])
    png(masks)
    for drafts in (False, True):
        plan, result = imported(project, masks, drafts=drafts)
        assert "has another mask in the project" in plan.problems[0]
        assert result.saved == 0
        assert np.array_equal(project.drafts.load(image, 0).mask, TRUTH[::-1])
    imported(project, masks, replace=True)
    check_label(project, "still")
    assert project.drafts.load(image, 0) is None


def test_a_draft_of_the_same_mask_becomes_a_label(project, masks):
    project.drafts.save(image_of(project, "still"), 0, TRUTH)
    png(masks)
    plan, result = imported(project, masks)
    assert (plan.problems, result.saved) == ((), 1)


def test_two_masks_of_one_image_are_both_named(project, masks):
    png(masks)
    png(masks, name="still_mask.png")
    plan, result = imported(project, masks)
    assert result.saved == 0
    assert len(plan.problems) == 2
    assert all("is for the same image" in problem for problem in plan.problems)


def test_drafts(project, masks):
    png(masks)
    _, result = imported(project, masks, drafts=True)
    image = image_of(project, "still")
    assert result.saved == 1
    assert not project.labels.keys()
    draft = project.drafts.load(image, 0)
    assert np.array_equal(draft.mask, TRUTH)
    assert draft.provenance.imported_from == "PNG"


def test_large_masks_are_exchanged_if_asked(project, masks):
    black_on_white(masks)
    imported(project, masks, large_masks="invert")
    check_label(project, "still")


def test_any_orientation(project, masks):
    mirrored(masks)
    imported(project, masks, any_orientation=True)
    check_label(project, "still", mask=TRUTH[:, ::-1])


def test_the_journal_tells_where_a_label_comes_from(project, masks):
    png(masks)
    imported(project, masks)
    *others, last = project.journal()
    (accepted,) = (entry for entry in others if entry.what == "accepted")
    assert accepted.details["imported_from"] == "PNG"
    assert len(accepted.details["imported_sha256"]) == 64
    assert (last.what, last.details) == ("masks_imported", {"count": 1})
    text = (project.folder / "journal.jsonl").read_text()
    assert "still" not in text


def test_names_that_occur_twice_are_told_apart_by_folders(tmp_path, masks):
    for patient in ("p1", "p2"):
        folder = tmp_path / "images" / patient
        folder.mkdir(parents=True)
        grey = FRAME if patient == "p1" else CINE[2]
        Image.fromarray(np.ascontiguousarray(grey)).save(folder / "a.png")
        (masks / patient).mkdir()
    Image.fromarray(TRUTH).save(masks / "p1" / "a.png")
    Image.fromarray(TRUTHS[2]).save(masks / "p2" / "a.png")
    with Project.create(tmp_path / "project") as made:
        made.images.add([tmp_path / "images"])
        plan, result = imported(made, masks)
        assert (plan.problems, result.saved) == ((), 2)
        check_label(made, "p2", mask=TRUTHS[2])
        plan = plan_import(made, [masks / "p1" / "a.png"], ImportOptions())
        assert "2 images of the project have this name" in plan.problems[0]


def test_a_stop_keeps_what_is_saved(project, masks):
    png(masks)
    pages(masks / "run.tif", TRUTHS)
    plan = plan_import(project, [masks], ImportOptions())
    asked = iter([False, True])
    result = run_import(project, plan, ImportOptions(), should_stop=lambda: next(asked))
    assert not result.complete
    assert result.saved == len(project.labels.keys()) > 0
    with pytest.raises(Cancelled):
        plan_import(project, [masks], ImportOptions(), should_stop=lambda: True)
