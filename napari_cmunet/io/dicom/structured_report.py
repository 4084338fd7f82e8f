"""Write measured lesions as a DICOM Structured Report.

It follows TID 1500 (Measurement Report): a planar region (TID 1410) for each lesion,
with its numbers in the terms of SNOMED CT and DICOM and the units of UCUM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset, uid
from pydicom.valuerep import DSfloat

from napari_cmunet.errors import ReadError
from napari_cmunet.io.dicom.derived import (
    coded,
    make_object,
    read_source,
    save_derived,
)
from napari_cmunet.io.dicom.secondary_capture import write_measured_picture

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.io.dicom.derived import DicomSource
    from napari_cmunet.io.measured_lesion import MeasuredFrame, MeasuredLesion
    from napari_cmunet.vessels.qca import Calibration

    Code = tuple[str, str, str]

_CONTAINS, _MODIFIER, _CONTEXT = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT"

_DIAMETER = ("397413000", "SCT", "Vessel lumen diameter")
_DERIVATION = ("121401", "DCM", "Derivation")
_SITE = ("363698007", "SCT", "Finding Site")
_INTERPOLATED = (
    ("122430", "DCM", "Reference Method"),
    ("122490", "DCM", "Interpolated Local Reference"),
)
# Name in the row of a lesion, concept, and what modifies it.
_LENGTHS: tuple[tuple[str, Code, tuple[tuple[Code, Code], ...]], ...] = (
    (
        "minimum_diameter",
        _DIAMETER,
        ((_DERIVATION, ("255605001", "SCT", "Minimum")),),
    ),
    ("mean_diameter", _DIAMETER, ((_DERIVATION, ("373098007", "SCT", "Mean")),)),
    ("reference_diameter", _DIAMETER, (_INTERPOLATED,)),
    (
        "proximal_reference_diameter",
        _DIAMETER,
        (_INTERPOLATED, (_SITE, ("122380", "DCM", "Proximal Reference"))),
    ),
    (
        "distal_reference_diameter",
        _DIAMETER,
        (_INTERPOLATED, (_SITE, ("122381", "DCM", "Distal Reference"))),
    ),
    ("lesion_length", ("408716009", "SCT", "Stenotic Lesion Length"), ()),
)
_SHARES: tuple[tuple[str, Code], ...] = (
    ("diameter_stenosis_percent", ("408715008", "SCT", "Lumen Diameter Stenosis")),
    ("area_stenosis_percent", ("408714007", "SCT", "Lumen Area Stenosis")),
)
_MM, _PIXELS, _PERCENT = (
    ("mm", "UCUM", "mm"),
    ("{pixels}", "UCUM", "pixels"),
    ("%", "UCUM", "%"),
)
_UNCERTAINTY = ("371884006", "SCT", "+/-, range of measurement uncertainty")
_COMMENT = ("121106", "DCM", "Comment")


def write_measurements(
    folder: Path, stem: str, source_path: Path, measured: MeasuredFrame
) -> list[str]:
    """Write Structured Report and picture of a frame; returns their names.

    There is no picture where text may be in it.

    Parameters
    ----------
    source_path : Path
        The DICOM file of the image.

    Raises
    ------
    ReadError
        If nothing can refer to the source, or there is no lesion.
    WriteError
    """
    provenance = measured.provenance
    source = read_source(source_path, measured.index)
    if not measured.lesions:
        raise ReadError(source_path, "no lesion was measured or found in it.")
    made = make_object(
        source,
        provenance,
        uid.ComprehensiveSRStorage,
        "SR",
        "coronary measurements",
    )
    made.ReferencedPerformedProcedureStepSequence = []
    made.PerformedProcedureCodeSequence = []
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "UNVERIFIED"
    made.CurrentRequestedProcedureEvidenceSequence = [_evidence(source)]
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence = [
        coded("126000", "DCM", "Imaging Measurement Report")
    ]
    made.ContentTemplateSequence = [_template("1500")]
    groups = [
        _group(source, measured, number, lesion)
        for number, lesion in enumerate(measured.lesions, 1)
    ]
    made.ContentSequence = [
        _code(
            _MODIFIER,
            ("121049", "DCM", "Language of Content Item and Descendants"),
            ("en", "RFC5646", "English"),
        ),
        _code(
            _CONTEXT,
            ("121005", "DCM", "Observer Type"),
            ("121007", "DCM", "Device"),
        ),
        _uid(_CONTEXT, ("121012", "DCM", "Device Observer UID")),
        _text(_CONTEXT, ("121013", "DCM", "Device Observer Name"), provenance.program),
        _code(
            _MODIFIER,
            ("121058", "DCM", "Procedure reported"),
            ("33367005", "SCT", "Coronary angiography"),
        ),
        _container(("126010", "DCM", "Imaging Measurements"), groups),
    ]
    names = [f"{stem}_sr.dcm"]
    save_derived(folder / names[0], made)
    if not measured.has_text:
        names.append(f"{stem}_measured.dcm")
        write_measured_picture(folder / names[1], source_path, measured)
    return names


def _group(
    source: DicomSource, measured: MeasuredFrame, number: int, lesion: MeasuredLesion
) -> Dataset:
    """The measurement group of a lesion, TID 1410."""
    calibration, provenance = measured.calibration, measured.provenance
    name = ", ".join(filter(None, (f"Lesion {number}", lesion.name)))
    segment = lesion.segment
    site = ("41801008", "SCT", "Coronary artery")
    if segment is not None:
        site = (segment.code, "SCT", segment.meaning)
    items = [
        _text(_CONTEXT, ("112039", "DCM", "Tracking Identifier"), name),
        _uid(_CONTEXT, ("112040", "DCM", "Tracking Unique Identifier")),
        _code(
            _CONTAINS,
            ("121071", "DCM", "Finding"),
            ("415582006", "SCT", "Stenosis"),
        ),
        _code(_MODIFIER, _SITE, site),
        _text(
            _MODIFIER,
            ("111001", "DCM", "Algorithm Name"),
            f"{provenance.program}, quantitative coronary analysis",
        ),
        _text(_MODIFIER, ("111003", "DCM", "Algorithm Version"), provenance.version),
        *_region(source, measured.index, lesion),
    ]
    for row, concept in _SHARES:
        value = lesion.number(row)
        if value is not None:
            items.append(_number(concept, value, _PERCENT))
    for row, concept, modifiers in _LENGTHS:
        value, unit, error = lesion.number(f"{row}_mm"), _MM, None
        if value is None:
            value, unit = lesion.number(f"{row}_px"), _PIXELS
        else:
            error = lesion.number(f"{row}_mm_error")
        if value is None:
            continue
        item = _number(concept, value, unit)
        within = [_code(_MODIFIER, *modifier) for modifier in modifiers]
        if error is not None:
            spread = _number(_UNCERTAINTY, error, unit)
            spread.RelationshipType = "HAS PROPERTIES"
            within.append(spread)
        if within:
            item.ContentSequence = within
        items.append(item)
    if calibration.mm is not None:
        items.append(
            _number(
                ("111026", "DCM", "Horizontal Pixel Spacing"),
                calibration.mm,
                ("mm/{pixel}", "UCUM", "mm/pixel"),
            )
        )
    items += [
        _text(_CONTAINS, _COMMENT, text) for text in _comments(lesion, calibration)
    ]
    made = _container(("125007", "DCM", "Measurement Group"), items)
    made.ContentTemplateSequence = [_template("1410")]
    return made


def _region(source: DicomSource, index: int, lesion: MeasuredLesion) -> list[Dataset]:
    """The lumen of a lesion, or the point where it is narrowest."""
    if lesion.stretch is not None:
        inside = slice(lesion.stretch.start, lesion.stretch.end + 1)
        left, right = (curve[inside] for curve in lesion.stretch.borders.curves())
        points = np.concatenate([left, right[::-1], left[:1]])
    elif lesion.place is not None:
        points = np.array([lesion.place])
    else:
        return []
    image = Dataset()
    image.RelationshipType, image.ValueType = "SELECTED FROM", "IMAGE"
    image.ConceptNameCodeSequence = [coded("121324", "DCM", "Source Image")]
    reference = source.reference()
    if source.frames > 1:
        reference.ReferencedFrameNumber = index + 1
    image.ReferencedSOPSequence = [reference]
    made = _item(_CONTAINS, "SCOORD", ("111030", "DCM", "Image Region"))
    made.GraphicType = "POLYLINE" if len(points) > 1 else "POINT"
    # Column and row; the middle of the first pixel is at (0.5, 0.5).
    made.GraphicData = [float(x) for x in (points[:, ::-1] + 0.5).ravel()]
    made.ContentSequence = [image]
    return [made]


def _comments(lesion: MeasuredLesion, calibration: Calibration) -> list[str]:
    """What no code says of a lesion."""
    chosen = "measured by a reader" if lesion.by_reader else "found by the program"
    comments = [f"Research use only. This lesion was {chosen}."]
    if lesion.is_proposed:
        comments.append(
            "The finding site was proposed by a model; no reader has confirmed it."
        )
    former = lesion.number("diameter_stenosis_percent", of_model=True)
    if former is not None:
        comments.append(
            f"Lumen diameter stenosis in the model's own mask: {former:.1f} %."
        )
    if not lesion.is_resolved:
        comments.append(
            "Thinner than the blur of the image: the diameter cannot be measured."
        )
    if calibration.mm is None:
        comments.append("The size of a pixel is unknown; lengths are in pixels.")
    elif calibration.source:
        comments.append(f"Size of a pixel: {calibration.source}.")
    return comments


def _evidence(source: DicomSource) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.series
    series.ReferencedSOPSequence = [source.reference()]
    made = Dataset()
    made.StudyInstanceUID = source.study
    made.ReferencedSeriesSequence = [series]
    return made


def _template(number: str) -> Dataset:
    made = Dataset()
    made.MappingResource, made.TemplateIdentifier = "DCMR", number
    return made


def _item(relationship: str, value_type: str, concept: Code) -> Dataset:
    made = Dataset()
    made.RelationshipType, made.ValueType = relationship, value_type
    made.ConceptNameCodeSequence = [coded(*concept)]
    return made


def _container(concept: Code, items: list[Dataset]) -> Dataset:
    made = _item(_CONTAINS, "CONTAINER", concept)
    made.ContinuityOfContent = "SEPARATE"
    made.ContentSequence = items
    return made


def _code(relationship: str, concept: Code, value: Code) -> Dataset:
    made = _item(relationship, "CODE", concept)
    made.ConceptCodeSequence = [coded(*value)]
    return made


def _text(relationship: str, concept: Code, text: str) -> Dataset:
    made = _item(relationship, "TEXT", concept)
    made.TextValue = text
    return made


def _uid(relationship: str, concept: Code) -> Dataset:
    made = _item(relationship, "UIDREF", concept)
    made.UID = uid.generate_uid(None)
    return made


def _number(concept: Code, value: float, unit: Code) -> Dataset:
    made = _item(_CONTAINS, "NUM", concept)
    measured = Dataset()
    measured.NumericValue = DSfloat(value, auto_format=True)
    measured.MeasurementUnitsCodeSequence = [coded(*unit)]
    made.MeasuredValueSequence = [measured]
    return made
