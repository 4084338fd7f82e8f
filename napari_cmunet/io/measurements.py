"""Coronary measurements as rows of a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.vessels.naming import segment_near

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.vessels.naming import SegmentName
    from napari_cmunet.vessels.qca import Analysis, Calibration, Lesion

_PLAIN = 30.0  # per cent of stenosis that differ from an uneven border

LENGTHS = (
    "minimum_diameter",
    "reference_diameter",
    "proximal_reference_diameter",
    "distal_reference_diameter",
    "mean_diameter",
    "lesion_length",
)
"""What a lesion has in pixels, and in millimetres with an error."""

COLUMNS = (
    "rank",
    "branch",
    "segment",
    "row",
    "column",
    "diameter_stenosis_percent",
    "area_stenosis_percent",
    "resolved",
    *(f"{name}_{unit}" for name in LENGTHS for unit in ("px", "mm", "mm_error")),
)
"""Of the table of lesions."""

SEGMENT_COLUMNS = (
    "branch",
    "segment",
    "lesions",
    "worst_diameter_stenosis_percent",
    *(
        f"{name}_{unit}"
        for name in ("length", "mean_diameter", "minimum_diameter")
        for unit in ("px", "mm", "mm_error")
    ),
)
"""Of the table of segments."""


def lengths(values: dict[str, float], calibration: Calibration) -> dict[str, object]:
    """Lengths in pixels and in millimetres, where a pixel's size is known.

    The error is the calibration's own: all lengths of an image share it.
    """
    found: dict[str, object] = {}
    for name, pixels in values.items():
        found[f"{name}_px"] = round(float(pixels), 2)
        if calibration.mm is not None:
            mm = float(pixels) * calibration.mm
            found[f"{name}_mm"] = round(mm, 3)
            if calibration.error is not None:
                found[f"{name}_mm_error"] = round(mm * calibration.error, 3)
    return found


def lesion_row(
    lesion: Lesion, analysis: Analysis, calibration: Calibration
) -> dict[str, object]:
    """One row of the table of lesions, without rank, branch and segment."""
    row, column = analysis.borders.centre[lesion.at]
    return {
        "row": round(float(row), 1),
        "column": round(float(column), 1),
        "diameter_stenosis_percent": round(lesion.percent_diameter, 1),
        "area_stenosis_percent": round(lesion.percent_area, 1),
        "resolved": "yes" if lesion.is_resolved else "no",
        **lengths(
            {
                "minimum_diameter": lesion.mld,
                "reference_diameter": lesion.reference,
                "proximal_reference_diameter": lesion.proximal,
                "distal_reference_diameter": lesion.distal,
                "mean_diameter": lesion.mean_diameter,
                "lesion_length": lesion.length,
            },
            calibration,
        ),
    }


def segment_of(analysis: Analysis, at: int, names: Sequence[SegmentName]) -> str:
    """SYNTAX number of a point of the centreline, empty where no name is near."""
    row, column = analysis.borders.centre[at]
    return segment_near(names, (float(row), float(column)))


def segment_row(analysis: Analysis, calibration: Calibration) -> dict[str, object]:
    """One row of the table of segments, without its number."""
    lesions = analysis.lesions
    return {
        "lesions": len(lesions),
        "worst_diameter_stenosis_percent": round(
            max(0.0, analysis.narrowest.percent_diameter), 1
        ),
        **lengths(
            {
                "length": analysis.length,
                "mean_diameter": analysis.mean_diameter,
                "minimum_diameter": analysis.narrowest.mld,
            },
            calibration,
        ),
    }


def ranked(segments: dict[int, Analysis]) -> list[tuple[int, Lesion]]:
    """Segments and lesions by :func:`lesion_score`; last, those too thin to measure."""
    found = [
        (number, lesion)
        for number, analysis in segments.items()
        for lesion in analysis.lesions
    ]
    return sorted(found, key=_rank)


def _rank(item: tuple[int, Lesion]) -> tuple[bool, float]:
    return not item[1].is_resolved, -lesion_score(item[1])


def lesion_score(lesion: Lesion) -> float:
    """How much a lesion matters and how likely it is one; for the order alone.

    Its share of stenosis times the reference diameter. More than 30 % make no
    difference: what seems to be tightest is mostly an edge that was not found.
    """
    return min(lesion.percent_diameter, _PLAIN) * lesion.reference


def tables(
    segments: dict[int, Analysis],
    calibration: Calibration,
    names: Sequence[SegmentName] = (),
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Rows of the table of branches, and of the table of lesions by rank.

    Each has the number of its branch and, where ``names`` tell it, its SYNTAX segment.
    """
    rows = [
        {
            "branch": number,
            "segment": segment_of(analysis, len(analysis.borders.centre) // 2, names),
        }
        | segment_row(analysis, calibration)
        for number, analysis in segments.items()
    ]
    lesions = [
        {
            "rank": rank,
            "branch": number,
            "segment": segment_of(segments[number], lesion.at, names),
        }
        | lesion_row(lesion, segments[number], calibration)
        for rank, (number, lesion) in enumerate(ranked(segments), 1)
    ]
    return rows, lesions


def as_json(
    segments: dict[int, Analysis],
    calibration: Calibration,
    rows: Sequence[dict[str, object]],
    lesions: Sequence[dict[str, object]],
) -> dict[str, Any]:
    """All measurements with centrelines and diameter functions, as plain JSON types.

    Parameters
    ----------
    rows, lesions : sequences of dict
        From :func:`tables`.
    """
    whole = [
        row
        | {
            "centreline": rounded(analysis.borders.centre),
            "diameter_px": rounded(analysis.borders.diameter),
            "reference_px": rounded(analysis.reference),
            "used": analysis.usable.tolist(),
        }
        for row, analysis in zip(rows, segments.values(), strict=True)
    ]
    return {
        "content": "coronary measurements",
        "pixel_size_mm": calibration.mm,
        "pixel_size_relative_error": calibration.error,
        "pixel_size_source": calibration.source,
        "segments": whole,
        "lesions": lesions,
    }


def rounded(values: np.ndarray) -> list[Any]:
    """Pixels as JSON values, to a hundredth."""
    return np.round(values, 2).tolist()
