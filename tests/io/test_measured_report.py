"""The report of measurements, and the same as a DICOM Structured Report."""

from __future__ import annotations

import copy
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.structured_report import write_measurements
from napari_cmunet.io.measured_lesion import (
    MeasuredFrame,
    Stretch,
    change_record,
    recorded_lesion,
    reported,
    tree_lesions,
)
from napari_cmunet.io.pictures import Agreement
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.io.report import (
    agreement_section,
    frame_facts,
    frame_section,
    overview_row,
    overview_section,
    write_report,
)
from napari_cmunet.project.labels.as_labelled import pairs_of
from napari_cmunet.vessels.naming import SegmentName
from napari_cmunet.vessels.qca import Calibration, analyse, analyse_tree
from tests.io.dicom_making import IDENTITY, write_dicom
from tests.io.test_dicom_derived import complaints
from tests.vessels.test_qca import stenosed, vessel

KNOWN = Calibration(0.2, 0.03, "from a 6 F catheter")


@pytest.fixture(scope="module")
def measured():
    """A stenosis of half the diameter; the model's mask had one of 30 %."""
    frame, mask, path = vessel(stenosed(), noise=1.0)
    pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    wider = analyse(*vessel(stenosed(share=0.3), noise=1.0))
    named = [SegmentName("7", ((80, 80),))]
    record = change_record(wider, analyse(pixels, mask, path), KNOWN, named)
    lesions = reported(
        recorded_lesion(record), tree_lesions(analyse_tree(pixels, mask), KNOWN)
    )
    origin = Provenance(model="tuned-1", model_sha256="ab" * 32, threshold=0.4)
    return MeasuredFrame(1, pixels, None, False, mask, lesions, KNOWN, origin)


def cells(section, row=1):
    """Text of the cells of a row of the table of lesions."""
    table = section.partition("<table class='lesions'>")[2].partition("</table>")[0]
    found = re.findall(r"<t[dh]>(.*?)</t[dh]>", table.split("<tr>")[row + 1])
    return [re.sub("<.*?>", "", x).replace("&nbsp;", " ") for x in found]


def test_a_record_is_read_as_it_was_written(measured):
    lesion = measured.lesions[0]
    record = {
        "model": lesion.model,
        "corrected": lesion.numbers,
        "stretch": lesion.stretch.to_json(),
    }
    read = json.loads(json.dumps(record))
    again = recorded_lesion(read)
    assert again.numbers == lesion.numbers
    curves = zip(
        again.stretch.borders.curves(), lesion.stretch.borders.curves(), strict=True
    )
    assert all(np.abs(one - other).max() < 0.05 for one, other in curves)
    assert again.stretch.at == lesion.stretch.at


@pytest.mark.parametrize(
    "damage",
    [
        {"left_px": [1.0]},
        {"at": 10**9},
        {"start": "x"},
        {"reference_px": None},
        {"centreline": [[math.nan, 1.0]] * 3},
    ],
)
def test_a_damaged_stretch_is_none(measured, damage):
    good = measured.lesions[0].stretch.to_json()
    assert Stretch.from_json(copy.deepcopy(good)) is not None
    assert Stretch.from_json(good | damage) is None


def test_the_page_says_what_was_measured(measured, tmp_path):
    section = frame_section(
        measured,
        "Image <1>",
        frame_facts(measured, changed=200, added=150, reviewed=0.5),
        "one",
    )
    page = tmp_path / "report.html"
    write_report(page, "1 frame", [section])
    text = page.read_text("utf-8")
    assert len(measured.lesions) == 1  # the reader's, and nothing else there
    number, name, share, area, mld, reference, _, length, chosen = cells(section)
    assert (number, name) == ("1", "LAD mid (7)")
    assert chosen == "reader"
    model, now = map(int, re.findall(r"\d+", share))
    assert (model, now) == (pytest.approx(30, abs=5), pytest.approx(50, abs=5))
    assert re.fullmatch(r"\d+ → \d+ %", share)
    assert re.fullmatch(r"\d+ → \d+ %", area)
    before, after = re.fullmatch(r"(\d\.\d\d) → (\d\.\d\d) ± 0\.04 mm", mld).groups()
    assert float(before) == pytest.approx(0.2 * 12 * 0.7, abs=0.1)
    assert float(after) == pytest.approx(0.2 * 12 * 0.5, abs=0.1)
    assert reference.endswith("mm")
    assert float(length.split()[0]) == pytest.approx(28 * 0.2, abs=1.5)
    assert "Image &lt;1&gt;" in text
    assert "0.2 mm ± 3.0 %, from a 6 F catheter" in text
    assert "tuned-1, threshold 0.40, SHA-256 abababababababab…" in text
    assert "added 6.0 mm², removed 2.0 mm²" in text
    assert "50 % of the frame" in text
    assert "Not a medical device" in text
    # It needs nothing from elsewhere, and its pictures are well formed.
    assert "<script" not in text
    assert not re.search(r"(src|href)=.(?!data:|#)", text)
    pictures = re.findall("<svg.*?</svg>", text)
    assert len(pictures) == 2
    for picture in pictures:
        ElementTree.fromstring(re.sub("&(nbsp|minus);", " ", picture))


def test_without_a_pixel_size_there_are_no_millimetres(measured):
    tree = analyse_tree(measured.pixels, measured.mask)
    found = tree_lesions(tree, Calibration())
    plain = replace(measured, lesions=found, calibration=Calibration())
    section = frame_section(plain, "a", frame_facts(plain))
    assert "mm" not in re.sub("data:[^'\"]*", "", section)
    assert cells(section)[3].endswith(" px")
    assert cells(section)[-1] == "program"


def test_a_picture_with_text_is_not_shown(measured):
    section = frame_section(replace(measured, has_text=True), "a", [])
    assert "<image" not in section
    assert "not shown" in section


def test_lesions_of_old_records_have_numbers_without_a_profile(measured):
    old = replace(measured.lesions[0], stretch=None)
    section = frame_section(replace(measured, lesions=[old]), "a", [])
    assert section.count("<svg") == 1
    assert "→" in cells(section)[2]


def test_no_number_of_a_damaged_record_is_too_large(measured):
    numbers = {**measured.lesions[0].numbers, "minimum_diameter_mm": 10**400}
    lesion = recorded_lesion({"corrected": numbers, "model": None})
    section = frame_section(replace(measured, lesions=[lesion]), "a", [])
    assert cells(section)[4].endswith("px")
    rows = [{"x_model": 1, "x_corrected": 2}, {"x_model": 10**400, "x_corrected": 2}]
    assert pairs_of(rows, "x") == [(1.0, 2.0)]


def test_the_origin_of_a_mask_of_another_program_is_unknown(measured):
    origin = Provenance(imported_from="COCO", created="2026-01-02T03:04:05+00:00")
    facts = dict(frame_facts(replace(measured, provenance=origin)))
    assert facts["Model"] == "none: imported from COCO"
    assert "Correction" not in facts
    assert facts["Mask imported"] == "2026-01-02 03:04 UTC"


def test_the_bland_altman_plot(measured):
    pairs = [(50.0, 48.0), (60.0, 62.0), (30.0, 27.0)]
    differences = np.array([-2.0, 2.0, -3.0])
    sd = differences.std(ddof=1)
    low, bias, high = (differences.mean() + k * 1.96 * sd for k in (-1, 0, 1))
    found = Agreement("Diameter stenosis", "%", pairs, low, bias, high)
    section = agreement_section([found])
    assert "3 lesions, bias &minus;1.0&nbsp;points" in section
    assert section.count("<circle") == 3
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', section)
    ys = [float(y) for _, y in points]
    assert ys[1] < ys[0] < ys[2]  # the higher, the more the reader found
    lines = re.findall(r'd="M52 ([\d.]+)H[\d.]+" stroke="#aa5a00"', section)
    below, middle, above = map(float, lines)
    assert below - middle == pytest.approx(middle - above, abs=0.3)
    scale = (ys[0] - ys[1]) / 4  # pixels a point
    assert below - middle == pytest.approx(1.96 * sd * scale, abs=0.6)
    # A single pair tells nothing of the limits.
    alone = Agreement("MLD", "mm", [(1.0, 1.2)], math.nan, 0.2, math.nan)
    assert "1.96 SD" not in agreement_section([alone])
    assert "measure a lesion before" in agreement_section([])
    row = overview_row(measured, "a", "b")
    assert "<a href='#b'>a</a>" in overview_section([row])


@pytest.fixture
def source(measured, tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, np.stack([measured.pixels] * 3))
    return path


def test_a_proposed_segment_is_said_to_be_one(measured, source, tmp_path):
    note = "The finding site was proposed by a model; no reader has confirmed it."
    tree = analyse_tree(measured.pixels, measured.mask)
    for name, doubt in (("asked", 0.2), ("read", 0.0)):
        named = [SegmentName("7", ((80, 80),), doubt)]
        lesions = tree_lesions(tree, KNOWN, named)
        assert [lesion.segment is not None for lesion in lesions] == [True]
        page = frame_section(replace(measured, lesions=lesions), "frame", [], "one")
        assert ("(proposed)" in page) == (doubt > 0)
        write_measurements(tmp_path, name, source, replace(measured, lesions=lesions))
        found = pydicom.dcmread(tmp_path / f"{name}_sr.dcm").iterall()
        texts = [item.value for item in found if item.keyword == "TextValue"]
        assert (note in texts) == (doubt > 0)


def test_a_readers_lesion_says_whether_its_segment_was_confirmed(measured):
    lesion = measured.lesions[0]
    record = {"corrected": lesion.numbers, "model": None}
    for doubt in (0.2, 0.0):
        named = [SegmentName("7", ((80, 80),), doubt)]
        again = replace(measured, lesions=[recorded_lesion(record, named)])
        page = frame_section(again, "frame", [], "one")
        assert ("LAD mid (7) (proposed)" in page) == (doubt > 0)
    # Labels of earlier versions do not tell.
    assert not recorded_lesion(record).is_proposed


@pytest.mark.slow
def test_highdicom_reads_the_structured_report(measured, source, tmp_path):
    sr = pytest.importorskip("highdicom").sr
    assert write_measurements(tmp_path, "a", source, measured) == [
        "a_sr.dcm",
        "a_measured.dcm",
    ]
    found = sr.srread(tmp_path / "a_sr.dcm")
    (group,) = found.content.get_planar_roi_measurement_groups(
        finding_type=sr.CodedConcept("415582006", "SCT", "Stenosis")
    )
    lesion = measured.lesions[0]
    assert group.tracking_identifier == "Lesion 1, LAD mid (7)"
    (site,) = group.finding_sites
    assert site.value.value == "91748002"
    numbers = [
        (
            m.name.value,
            m.derivation.value if m.derivation else None,
            [s.value.value for s in m.finding_sites],
            float(m.value),
            m.unit.value,
        )
        for m in group.get_measurements()
    ]
    expected = [
        ("408715008", None, [], "diameter_stenosis_percent", "%"),
        ("408714007", None, [], "area_stenosis_percent", "%"),
        ("397413000", "255605001", [], "minimum_diameter_mm", "mm"),
        ("397413000", "373098007", [], "mean_diameter_mm", "mm"),
        ("397413000", None, [], "reference_diameter_mm", "mm"),
        ("397413000", None, ["122380"], "proximal_reference_diameter_mm", "mm"),
        ("397413000", None, ["122381"], "distal_reference_diameter_mm", "mm"),
        ("408716009", None, [], "lesion_length_mm", "mm"),
    ]
    assert numbers[:-1] == [
        (*head, pytest.approx(lesion.numbers[name]), unit)
        for *head, name, unit in expected
    ]
    assert numbers[-1] == ("111026", None, [], 0.2, "mm/{pixel}")
    # The lumen of the lesion, in the frame that was measured.
    region = group.roi
    assert region.graphic_type == sr.GraphicTypeValues.POLYLINE
    xs, ys = region.value.T
    centre = lesion.stretch.borders.centre[lesion.stretch.at]
    assert xs.min() < centre[1] + 0.5 < xs.max()
    at = np.abs(xs - centre[1] - 0.5) < 0.6
    assert np.ptp(ys[at]) == pytest.approx(lesion.numbers["minimum_diameter_px"], abs=1)
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    plain = pydicom.dcmread(source)
    assert reference.ReferencedSOPInstanceUID == plain.SOPInstanceUID
    assert reference.ReferencedFrameNumber == 2
    assert found.StudyInstanceUID == plain.StudyInstanceUID
    picture = pydicom.dcmread(tmp_path / "a_measured.dcm")
    assert picture.pixel_array.shape == (320, 320, 3)
    assert [float(side) for side in picture.PixelSpacing] == [0.1, 0.1]
    for name in ("a_sr.dcm", "a_measured.dcm"):
        assert complaints(tmp_path / name) == []
        content = (tmp_path / name).read_bytes().lower()
        for value in IDENTITY.values():
            assert value.split("^")[0].lower().encode() not in content


def test_pixels_and_a_point_where_no_more_is_known(measured, source, tmp_path):
    sr = pytest.importorskip("highdicom").sr
    lesion = replace(
        measured.lesions[0],
        stretch=None,
        numbers={
            name: value
            for name, value in measured.lesions[0].numbers.items()
            if "_mm" not in name
        },
    )
    plain = replace(measured, lesions=[lesion], calibration=Calibration())
    write_measurements(tmp_path, "a", source, replace(plain, has_text=True))
    assert not (tmp_path / "a_measured.dcm").exists()
    (group,) = sr.srread(
        tmp_path / "a_sr.dcm"
    ).content.get_planar_roi_measurement_groups()
    assert group.roi.graphic_type == sr.GraphicTypeValues.POINT
    units = [m.unit.value for m in group.get_measurements()]
    assert units == ["%", "%", *["{pixels}"] * 6]
    assert complaints(tmp_path / "a_sr.dcm") == []


def test_what_cannot_be_written_is_said(measured, source, tmp_path):
    with pytest.raises(ReadError, match="no lesion"):
        write_measurements(tmp_path, "b", source, replace(measured, lesions=[]))
    picture = tmp_path / "a.npy"
    np.save(picture, measured.pixels)
    with pytest.raises(ReadError, match="no DICOM file"):
        write_measurements(tmp_path, "b", picture, measured)
    assert not list(tmp_path.glob("b*"))
