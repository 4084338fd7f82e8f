"""SYNTAX segments of the coronary tree: numbers, common names and codes."""

from __future__ import annotations

from typing import NamedTuple

RIGHT, LEFT = "right", "left"
"""Sides of the coronary tree."""


class Segment(NamedTuple):
    """A segment of the SYNTAX score (Sianos et al. 2005)."""

    title: str  # its common name
    side: str
    code: str  # SNOMED CT, of DICOM's context group 3015
    meaning: str


_CORONARY = ("41801008", "Coronary artery")
_POSTEROLATERAL = ("57823005", "Left Posterolateral Circumflex Coronary Artery")

SEGMENTS = {
    "1": Segment("RCA proximal", RIGHT, "91083009", "Proximal Right Coronary Artery"),
    "2": Segment("RCA mid", RIGHT, "450960006", "Mid Right Coronary Artery"),
    "3": Segment("RCA distal", RIGHT, "41879009", "Distal Right Coronary Artery"),
    "4": Segment(
        "PDA", RIGHT, "53655008", "Posterior Descending Right Coronary Artery"
    ),
    "16": Segment(
        "RPL", RIGHT, "17269004", "Posterolateral branch of right Coronary Artery"
    ),
    "16a": Segment(
        "RPL a", RIGHT, "91761002", "1st Right posterolateral Coronary Artery"
    ),
    "16b": Segment(
        "RPL b", RIGHT, "91762009", "2nd Right posterolateral Coronary Artery"
    ),
    "16c": Segment(
        "RPL c", RIGHT, "91763004", "3rd Right posterolateral Coronary Artery"
    ),
    "5": Segment("LM", LEFT, "3227004", "Left Main Coronary Artery"),
    "6": Segment(
        "LAD proximal",
        LEFT,
        "68787002",
        "Proximal Left Anterior Descending Coronary Artery",
    ),
    "7": Segment(
        "LAD mid", LEFT, "91748002", "Mid Left Anterior Descending Coronary Artery"
    ),
    "8": Segment(
        "LAD distal",
        LEFT,
        "36672000",
        "Distal Left Anterior Descending Coronary Artery",
    ),
    "9": Segment("D1", LEFT, "91750005", "1st Diagonal Coronary Artery"),
    "9a": Segment("D1 a", LEFT, *_CORONARY),
    "10": Segment("D2", LEFT, "91751009", "2nd Diagonal Coronary Artery"),
    "10a": Segment("D2 a", LEFT, *_CORONARY),
    "11": Segment(
        "LCx proximal", LEFT, "52433000", "Proximal Circumflex Coronary Artery"
    ),
    "12": Segment("Intermediate", LEFT, "244252004", "Intermediate Artery (Ramus)"),
    "12a": Segment("OM1", LEFT, "91754001", "1st Marginal Coronary Artery"),
    "12b": Segment("OM2", LEFT, "91755000", "2nd Marginal Coronary Artery"),
    "13": Segment("LCx distal", LEFT, "6511003", "Distal Circumflex Coronary Artery"),
    "14": Segment("LPL", LEFT, *_POSTEROLATERAL),
    "14a": Segment("LPL a", LEFT, *_POSTEROLATERAL),
    "14b": Segment("LPL b", LEFT, *_POSTEROLATERAL),
    "15": Segment(
        "PDA of LCx",
        LEFT,
        "91760001",
        "Left Posterior Descending Circumflex Coronary Artery",
    ),
}
"""All segments by SYNTAX number, those of the right coronary artery first.

Where the standard has no code for one, its code is the next more general one.
"""

VALUES = {segment: value for value, segment in enumerate(SEGMENTS, 1)}
"""Value of each segment in a map; see
:meth:`napari_cmunet.vessels.naming.NamedTree.values`."""

UNNAMED = len(SEGMENTS) + 1
"""Value of arteries without a name."""


_SEGMENT_OF = {value: segment for segment, value in VALUES.items()}


def vessel_title(value: int) -> str:
    """Number and common name of a value, for people and other programs."""
    segment = _SEGMENT_OF.get(value)
    return segment_title(segment) if segment else "coronary artery"


def vessel_code(value: int) -> tuple[str, str]:
    """SNOMED CT code of a value, and its meaning."""
    segment = _SEGMENT_OF.get(value)
    return SEGMENTS[segment][2:] if segment else _CORONARY


def segment_title(segment: str) -> str:
    """Number and common name of a segment, for people."""
    return f"{segment} {SEGMENTS[segment].title}"
