"""What labels say besides the mask: pixel size, inversion, changes of measurements."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ReadError
from napari_cmunet.io.masks.label_file import MEASUREMENT
from napari_cmunet.io.measured_lesion import finite
from napari_cmunet.project.readers.readers import REVIEWER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.labels import LabelRef


def as_labelled(angiogram: Angiogram, labels: Iterable[Label]) -> Angiogram:
    """Return the image with the pixel size that its latest label was accepted with.

    That is the file's own, unless it was measured on a catheter.
    """
    known = [
        label
        for label in labels
        if label.pixel_size_mm and label.note.get("pixel_size_source")
    ]
    if not known:
        return angiogram
    latest = max(known, key=lambda label: label.provenance.created)
    return replace(
        angiogram,
        pixel_size_mm=latest.pixel_size_mm,
        pixel_size_source=str(latest.note["pixel_size_source"]),
        pixel_size_error=_share(latest.note.get("pixel_size_error")),
    )


def _share(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


def labelled_inverted(labels: Collection[Label]) -> bool:
    """Whether the latest label or draft is of the inverted grey values."""
    origins = [label.provenance for label in labels]
    latest = max(origins, key=lambda origin: origin.created, default=None)
    return latest is not None and latest.inverted


def known_of(
    project: Project, image: str, angiogram: Angiogram
) -> tuple[Angiogram, bool]:
    """Return an image as labelled, and whether it is to be inverted; slow.

    By its labels and drafts that the reader may see.
    """
    keys = [(project.reader, frame) for frame in project.labels.frames(image)]
    if project.reader == REVIEWER:
        for (owner, frame), readers in project.reference.readings().items():
            keys += [(reader, frame) for reader in readers if owner == image]
    labels: list[Label | None] = []
    for reader, frame in keys:
        with contextlib.suppress(ReadError):  # what is damaged says nothing
            labels.append(project.readers[reader].get(image, frame))
    drafts = [
        project.drafts.load(image, frame)
        for owner, frame in project.drafts.keys()
        if owner == image
    ]
    of_this_file = (None, angiogram.sha256)
    found, drawn = (
        [x for x in some if x and x.provenance.source_sha256 in of_this_file]
        for some in (labels, drafts)
    )
    inverted = project.is_inverted(image)
    if inverted is None:
        inverted = labelled_inverted([*found, *drawn])
    return as_labelled(angiogram, found), inverted


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
