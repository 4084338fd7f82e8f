"""How far readers moved the model's measurements, as their labels record it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ReadError
from napari_cmunet.io.masks.label_file import MEASUREMENT
from napari_cmunet.io.measured_lesion import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.labels import LabelRef

NUMBERS = ("diameter_stenosis_percent", "minimum_diameter_px", "minimum_diameter_mm")
"""What is compared."""

CHANGE_COLUMNS = (
    "image",
    "frame",
    "segment",
    "row",
    "column",
    *(f"{name}_{whose}" for name in NUMBERS for whose in ("model", "corrected")),
)
"""Of the table of changes."""


@dataclass(frozen=True)
class LimitsOfAgreement:
    """Bias and 95 % limits of agreement of two measurements (Bland and Altman 1986).

    Parameters
    ----------
    count : int
        Of pairs.
    bias, low, high : float
        Mean difference, and mean less and plus 1.96 SD; NaN for a single pair.
    """

    count: int
    bias: float
    low: float
    high: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> LimitsOfAgreement:
        """Of the differences of at least one pair."""
        values = np.asarray(differences, float)
        spread = 1.96 * values.std(ddof=1) if len(values) > 1 else np.nan
        bias = float(values.mean())
        return cls(len(values), bias, float(bias - spread), float(bias + spread))


def read_changes(
    project: Project,
    problem: Callable[[str], None],
    refs: Sequence[LabelRef] | None = None,
) -> list[dict[str, object]]:
    """Rows of the table of changes: one for each label with both measurements.

    Of the project's reference labels. A measurement of a vessel too thin to be
    resolved is left out.

    Parameters
    ----------
    project : Project
    problem : callable
        Called with a sentence for each label that cannot be read.
    refs : sequence of LabelRef, optional
        All by default.
    """
    rows = []
    for ref in project.reference.refs() if refs is None else refs:
        try:
            label = project.reference.get(ref.image, ref.frame)
        except ReadError as error:
            problem(f"Label {ref.name}: {error.reason}")
            continue
        note = label.note.get(MEASUREMENT) if label else None
        if not isinstance(note, dict):
            continue
        model, corrected = note.get("model"), note.get("corrected")
        if not isinstance(model, dict) or not isinstance(corrected, dict):
            continue
        if "no" in (model.get("resolved"), corrected.get("resolved")):
            continue
        row: dict[str, object] = {"image": ref.image, "frame": ref.frame}
        row |= {name: corrected.get(name) for name in ("segment", "row", "column")}
        for name in NUMBERS:
            row |= {f"{name}_model": model.get(name)}
            row |= {f"{name}_corrected": corrected.get(name)}
        rows.append(row)
    return rows


def pairs_of(rows: list[dict[str, object]], name: str) -> list[tuple[float, float]]:
    """The model's and the corrected number, of those rows that have both."""
    pairs = [
        (finite(row[f"{name}_model"]), finite(row[f"{name}_corrected"])) for row in rows
    ]
    return [
        (former, now) for former, now in pairs if former is not None and now is not None
    ]


def agreements(rows: list[dict[str, object]]) -> dict[str, LimitsOfAgreement]:
    """Corrected less model's, by number, where there are pairs."""
    return {
        name: LimitsOfAgreement.of([now - former for former, now in pairs])
        for name in NUMBERS
        if (pairs := pairs_of(rows, name))
    }
