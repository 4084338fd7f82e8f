"""How well readers agree, by frame and over a project."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.io.masks.label_file import MEASUREMENT, Label
from napari_cmunet.io.measured_lesion import SAME_LESION
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.readers.readers import REVIEWER
from napari_cmunet.training.evaluation.metrics import (
    bootstrap_interval,
    cldice,
    dice,
    nsd,
    wrong_places,
)
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari_cmunet.project.project import Project

TOLERANCE = 2.0
"""Of the normalised surface distance, in pixels."""

MEASURES = {
    "dice": "Dice",
    "cldice": "clDice",
    "nsd": f"NSD {TOLERANCE:g} px",
    "wrong_places": "wrong places",
    "area_difference": "area diff. %",
    "stenosis_difference": "%DS diff.",
}
"""The measures and their column's title."""


@dataclass(frozen=True)
class FrameAgreement:
    """Agreement of two readers on one frame, where both reviewed it."""

    image: str
    frame: int
    patient: str
    dice: float
    cldice: float
    nsd: float
    wrong_places: int  # false and missed branches of one beside the other
    #: Artery pixels of the second reader less those of the first, in per cent of
    #: their mean; for limits of agreement (Bland and Altman).
    area_difference: float
    #: Diameter stenosis in per cent, of the second less that of the first; None unless
    #: both have measured the same lesion.
    stenosis_difference: float | None
    decided: bool  # whether the reviewer has a label of this frame

    @property
    def disagreement(self) -> float:
        """Grows with the wrong places first, then with what else differs."""
        return self.wrong_places + 1 - self.dice


@dataclass(frozen=True)
class Limits:
    """One measure over frames; None where there are too few to tell."""

    mean: float | None
    sd: float | None = None
    low: float | None = None  # limits of 95 % of frames: mean ± 1.96 SD
    high: float | None = None
    #: 95 % interval of the mean, by patient.
    interval: tuple[float, float] | None = None


def reader_pairs(project: Project) -> list[tuple[str, str]]:
    """Return the pairs of readers that have labels of the same frames."""
    return [
        (a, b)
        for a, b in combinations([r for r in project.readers if r != REVIEWER], 2)
        if project.readers[a].keys() & project.readers[b].keys()
    ]


def compare_readers(
    project: Project,
    first: str,
    second: str,
    *,
    problem: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[FrameAgreement]:
    """Compare two readers on each frame that both have labelled; slow.

    Parameters
    ----------
    first, second : str
        Codes of the readers.
    problem : callable
        Called with a sentence for each frame that cannot be compared.

    Raises
    ------
    Cancelled
    """
    a, b = project.readers[first], project.readers[second]
    order = {record.id: n for n, record in enumerate(project.images)}
    keys = [key for key in a.keys() & b.keys() if key[0] in order]
    decided = project.reference.decided()
    for image, frame in sorted(keys, key=lambda key: (order[key[0]], key[1])):
        if should_stop():
            raise Cancelled
        try:
            one, other = a.get(image, frame), b.get(image, frame)
        except CMUNetError as error:
            problem(f"Frame {image}#{frame}: {error}")
            continue
        if one is None or other is None:
            continue  # withdrawn meanwhile
        if one.provenance.source_sha256 != other.provenance.source_sha256:
            problem(f"Frame {image}#{frame}: the image changed between the readings.")
            continue
        patient = project.images[image].patient
        done = (image, frame) in decided
        yield FrameAgreement(image, frame, patient, *agreement(one, other), done)


def agreement(
    first: Label, second: Label
) -> tuple[float, float, float, int, float, float | None]:
    """Return the measures of two labels, in the order of ``MEASURES``."""
    one, other = first.mask, second.mask
    for reviewed in (first.reviewed, second.reviewed):
        if reviewed is not None:
            one, other = one & reviewed, other & reviewed
    sizes = int(one.sum()), int(other.sum())
    mean = sum(sizes) / 2
    return (
        dice(one, other),
        cldice(one, other),
        nsd(one, other, TOLERANCE),
        wrong_places(one, other),
        100 * (sizes[1] - sizes[0]) / mean if mean else 0.0,
        _stenosis_difference(first, second),
    )


def _stenosis_difference(first: Label, second: Label) -> float | None:
    found = []
    for label in (first, second):
        measured = label.note.get(MEASUREMENT)
        numbers = measured.get("corrected") if isinstance(measured, dict) else None
        if not isinstance(numbers, dict):
            return None
        names = ("row", "column", "diameter_stenosis_percent")
        values = [numbers.get(name) for name in names]
        if not all(isinstance(value, int | float) for value in values):
            return None
        found.append(np.array(values, float))
    change = found[1] - found[0]
    return float(change[2]) if np.hypot(*change[:2]) <= SAME_LESION else None


def limits_of(frames: Sequence[FrameAgreement], measure: str) -> Limits:
    """Summarise one of ``MEASURES`` over the frames where it is known."""
    frames = [f for f in frames if getattr(f, measure) is not None]
    if not frames:
        return Limits(None)
    values = np.array([getattr(f, measure) for f in frames], float)
    mean = float(values.mean())
    if len(values) < 2:
        return Limits(mean)
    sd = float(values.std(ddof=1))
    patients = [f.patient for f in frames]
    interval = None
    if len(set(patients)) > 1:
        interval = bootstrap_interval(values.tolist(), patients)
    return Limits(mean, sd, mean - 1.96 * sd, mean + 1.96 * sd, interval)


def find_disagreement(
    project: Project, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Compare all readers where they wait for a decision, to order the images; slow."""
    waiting = project.reference.waiting()
    for first, second in reader_pairs(project):
        for found in compare_readers(project, first, second, should_stop=should_stop):
            key = (found.image, found.frame)
            if key in waiting:
                before = project.disagreement.get(key, 0.0)
                project.disagreement[key] = max(before, found.disagreement)


def agreement_table(
    frames: Sequence[FrameAgreement], names: Mapping[str, str] | None = None
) -> list[str]:
    """Return the lines of a table: each frame, then the limits.

    Parameters
    ----------
    names : mapping of str to str, optional
        What images are called; their ids by default.
    """
    called = [(names or {}).get(f.image, f.image) for f in frames]
    width = max([19, *map(len, called)])
    head = " ".join(f"{title:>12}" for title in MEASURES.values())
    lines = [f"{'image':{width}} {'frame':>5} {head}"]
    for name, f in zip(called, frames, strict=True):
        decided = " decided" if f.decided else ""
        cells = _cells([getattr(f, m) for m in MEASURES])
        lines.append(f"{name:{width}} {f.frame:>5} {cells}{decided}")
    if frames:
        limits = [limits_of(frames, m) for m in MEASURES]
        for name, values in (
            ("mean", [x.mean for x in limits]),
            ("SD", [x.sd for x in limits]),
            ("95 % of frames from", [x.low for x in limits]),
            ("to", [x.high for x in limits]),
            ("95 % of means from", [x.interval and x.interval[0] for x in limits]),
            ("to", [x.interval and x.interval[1] for x in limits]),
        ):
            lines.append(f"{name:>{width}} {'':5} {_cells(values)}")
    patients = len({f.patient for f in frames})
    count = counted(len(frames), "frame")
    return [*lines, f"{count} of {counted(patients, 'patient')}"]


def _cells(values: Sequence[float | None]) -> str:
    return " ".join("-".rjust(12) if v is None else f"{v:>12.4g}" for v in values)


@dataclass(frozen=True)
class Readings:
    """The labels that readers have of one frame, for the reviewer."""

    labels: dict[str, Label]  # by the code of the reader
    #: Of the first two; see ``project.agreement.agreement``. None if there is one.
    agreement: tuple[float, float, float, int, float, float | None] | None

    @classmethod
    def of(cls, labels: dict[str, Label]) -> Readings | None:
        """Compare labels; None if there is none."""
        first, second, *_ = (*labels.values(), None, None)
        if first is None:
            return None
        return cls(labels, agreement(first, second) if second else None)

    def without(self, reader: str) -> Readings | None:
        """Leave a reader out."""
        return self.of({k: v for k, v in self.labels.items() if k != reader})

    @property
    def first(self) -> Label:
        """The label that the reviewer begins with."""
        return next(iter(self.labels.values()))

    def merged(self, *, common: bool) -> Label:
        """Merge to what all readers have, or any of them, where all have reviewed."""
        labels = self.labels.values()
        masks = [label.mask for label in labels]
        areas = [label.reviewed for label in labels if label.reviewed is not None]
        merge = np.logical_and if common else np.logical_or
        reviewed = np.logical_and.reduce(areas) if areas else None
        return Label(merge.reduce(masks), reviewed, Provenance())


def read_readings(
    project: Project,
    image: str,
    fits: Callable[[Label, int], bool],
    problems: list[str],
) -> dict[int, Readings]:
    """Read what the reviewer sees of the readers' labels."""
    if project.reader != REVIEWER:
        return {}
    found: dict[int, dict[str, Label]] = {}
    for (owner, frame), readers in project.reference.readings().items():
        for reader in readers if owner == image else ():
            try:
                label = project.readers[reader].get(image, frame)
            except CMUNetError as error:
                problems.append(f"A label of frame {frame} cannot be read: {error}")
                continue
            if label is not None and fits(label, frame):
                found.setdefault(frame, {})[reader] = label
    return {f: r for f, labels in found.items() if (r := Readings.of(labels))}
