"""A measured lesion with its stretch of vessel, for labels and reports."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.io.measurements import lesion_row, ranked, rounded, segment_of
from napari_cmunet.vessels.borders import Borders
from napari_cmunet.vessels.naming import segment_near
from napari_cmunet.vessels.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_cmunet.io.provenance import Provenance
    from napari_cmunet.vessels.naming import SegmentName
    from napari_cmunet.vessels.qca import Analysis, Calibration, Lesion
    from napari_cmunet.vessels.segments import Segment

SAME_LESION = 20.0
"""Pixels that two narrowest places of one lesion may lie apart."""

_LONGEST = 20_000  # points of a stretch
_LARGEST = 1e9  # number


@dataclass(frozen=True)
class Stretch:
    """The diameter function around a lesion; see :class:`Analysis`, :class:`Lesion`."""

    borders: Borders
    reference: np.ndarray
    usable: np.ndarray
    start: int
    at: int
    end: int

    @classmethod
    def of(cls, analysis: Analysis, lesion: Lesion) -> Stretch:
        """Of one lesion of an analysis."""
        return cls(
            analysis.borders,
            analysis.reference,
            analysis.usable,
            lesion.start,
            lesion.at,
            lesion.end,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        borders = self.borders
        return {
            "centreline": rounded(borders.centre),
            "left_px": rounded(borders.left),
            "right_px": rounded(borders.right),
            "resolution_px": round(borders.resolution, 2),
            "reference_px": rounded(self.reference),
            "used": self.usable.astype(int).tolist(),
            "start": self.start,
            "at": self.at,
            "end": self.end,
        }

    @classmethod
    def from_json(cls, values: object) -> Stretch | None:
        """From :meth:`to_json`; None if the values are anything else."""
        if not isinstance(values, dict):
            return None
        try:
            centre = np.array(values["centreline"], float)
            left, right, reference, used = (
                np.array(values[name], float)
                for name in ("left_px", "right_px", "reference_px", "used")
            )
            start, at, end = (int(values[name]) for name in ("start", "at", "end"))
            resolution = float(values["resolution_px"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        count = len(centre)
        if (
            not 2 <= count <= _LONGEST
            or centre.shape != (count, 2)
            or {part.shape for part in (left, right, reference, used)} != {(count,)}
            or not all(np.isfinite(part).all() for part in (centre, left, right))
            or not (np.isfinite(reference) & (reference > 0)).all()
            or not 0 <= start <= at <= end < count
        ):
            return None
        borders = Borders(centre, left, right, resolution)
        return cls(borders, reference, used != 0, start, at, end)


@dataclass(frozen=True)
class MeasuredLesion:
    """What a report says of a lesion.

    Parameters
    ----------
    numbers : mapping
        A row of the table of lesions, see :data:`COLUMNS`.
    stretch : Stretch or None
        None in labels of earlier versions.
    model : mapping or None
        The row of the model's own mask, where a reader measured.
    by_reader : bool
        Whether a reader chose it; otherwise it was found in the tree.
    is_proposed : bool
        Whether its segment was proposed by a model, and no reader has confirmed it.
    """

    numbers: Mapping[str, Any]
    stretch: Stretch | None
    model: Mapping[str, Any] | None = None
    by_reader: bool = False
    is_proposed: bool = False

    def number(self, name: str, *, of_model: bool = False) -> float | None:
        """A finite number of the row, None if it has none."""
        row = self.model if of_model else self.numbers
        return finite((row or {}).get(name))

    @property
    def is_resolved(self) -> bool:
        """False if the vessel is too thin there for its width to be measured."""
        return self.numbers.get("resolved") != "no"

    @property
    def segment(self) -> Segment | None:
        """The SYNTAX segment, None if its vessel has no name."""
        number = self.numbers.get("segment")
        return SEGMENTS.get(number) if isinstance(number, str) else None

    @property
    def name(self) -> str:
        """The segment's common name and number; empty if it has none."""
        segment = self.segment
        return f"{segment.title} ({self.numbers['segment']})" if segment else ""

    @property
    def place(self) -> tuple[float, float] | None:
        """Row and column where it is narrowest."""
        row, column = self.number("row"), self.number("column")
        return None if row is None or column is None else (row, column)


@dataclass(frozen=True)
class MeasuredFrame:
    """A frame with its mask and lesions, and where they come from.

    Parameters
    ----------
    index : int
        Of the frame in its image.
    pixels : array (Y, X)
        Grey values.
    window : (low, high), optional
        Grey values to show as black and white.
    has_text : bool
        Whether text may be in the pixels, such as a name: then they are not shown.
    mask : bool array (Y, X)
    lesions : sequence of MeasuredLesion
        In the order in which they are shown.
    calibration : Calibration
    provenance : Provenance
        Of the mask.
    """

    index: int
    pixels: np.ndarray
    window: tuple[float, float] | None
    has_text: bool
    mask: np.ndarray
    lesions: Sequence[MeasuredLesion]
    calibration: Calibration
    provenance: Provenance


def finite(value: object) -> float | None:
    """A number of a label's JSON that can be calculated with, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None


def change_record(
    model: Analysis | None,
    corrected: Analysis,
    calibration: Calibration,
    names: Sequence[SegmentName] = (),
) -> dict[str, Any]:
    """What a label keeps: the tightest place in the model's mask and in the reader's.

    None for the model if its mask has no such vessel; with the SYNTAX segment where it
    is named, and with the diameter function of the reader's.
    """

    def row(analysis: Analysis) -> dict[str, object]:
        segment = segment_of(analysis, analysis.narrowest.at, names)
        known = {"segment": segment} if segment else {}
        return known | lesion_row(analysis.narrowest, analysis, calibration)

    return {
        "model": model and row(model),
        "corrected": row(corrected),
        "stretch": Stretch.of(corrected, corrected.narrowest).to_json(),
    }


def recorded_lesion(
    record: object, names: Sequence[SegmentName] = ()
) -> MeasuredLesion | None:
    """The lesion of a :func:`change_record`, None if it is none.

    Parameters
    ----------
    record : object
        JSON of a label.
    names : sequence of SegmentName
        Of the label; they tell whether a reader has confirmed the lesion's segment.
    """
    if not isinstance(record, dict):
        return None
    model, corrected = record.get("model"), record.get("corrected")
    if not isinstance(corrected, dict):
        return None
    model = model if isinstance(model, dict) else None
    stretch = Stretch.from_json(record.get("stretch"))
    lesion = MeasuredLesion(corrected, stretch, model, by_reader=True)
    return replace(lesion, is_proposed=_is_proposed(lesion, names))


def _is_proposed(lesion: MeasuredLesion, names: Sequence[SegmentName]) -> bool:
    """Whether the names that nobody has confirmed give a lesion its segment."""
    place, segment = lesion.place, lesion.numbers.get("segment")
    if not segment or place is None:
        return False
    confirmed = [name for name in names if not name.doubt]
    return segment_near(names, place) == segment != segment_near(confirmed, place)


def tree_lesions(
    segments: dict[int, Analysis],
    calibration: Calibration,
    names: Sequence[SegmentName] = (),
) -> list[MeasuredLesion]:
    """The lesions of a tree by rank; last, those too thin to be measured."""
    lesions = []
    for number, lesion in ranked(segments):
        analysis = segments[number]
        segment = segment_of(analysis, lesion.at, names)
        row = {"segment": segment} | lesion_row(lesion, analysis, calibration)
        found = MeasuredLesion(row, Stretch.of(analysis, lesion))
        lesions.append(replace(found, is_proposed=_is_proposed(found, names)))
    return lesions


def reported(
    recorded: MeasuredLesion | None, found: list[MeasuredLesion]
) -> list[MeasuredLesion]:
    """A reader's lesion first, then those found elsewhere that are resolved."""
    here = recorded.place if recorded is not None else None
    elsewhere = [
        lesion
        for lesion in found
        if lesion.is_resolved
        and (
            here is None
            or lesion.place is None
            or math.dist(here, lesion.place) > SAME_LESION
        )
    ]
    return elsewhere if recorded is None else [recorded, *elsewhere]
