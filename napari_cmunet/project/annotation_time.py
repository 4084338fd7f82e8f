"""Annotation time per label, and whether further labels still pay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from napari_cmunet.training.events import ENOUGH_PATIENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.journal import Entry

WINDOW = 5
"""Number of labels a median is taken over."""

FALLEN = 0.9
"""Seconds above this share of the earlier ones have stopped falling."""


@dataclass(frozen=True)
class AnnotationTime:
    """Seconds of each frame's first acceptance, and the gains of trainings.

    Only first acceptances measure how good the prediction was.
    """

    labels: tuple[tuple[FrameKey, float], ...] = ()  # oldest first
    #: Lower bound of the interval of each training's gain on unseen patients,
    #: oldest first.
    gains: tuple[float, ...] = ()

    def with_label(self, key: FrameKey, seconds: float | None) -> AnnotationTime:
        """Return this with one more label."""
        if seconds is None or any(known == key for known, _ in self.labels):
            return self
        return replace(self, labels=(*self.labels, (key, seconds)))

    def with_training(
        self, patients: int | None, gain_low: float | None
    ) -> AnnotationTime:
        """Return this with one more training, if it could be judged."""
        if gain_low is None or (patients or 0) < ENOUGH_PATIENTS:
            return self
        return replace(self, gains=(*self.gains, gain_low))

    @property
    def seconds(self) -> float | None:
        """Median of the last five labels; None for fewer."""
        return self._median(len(self.labels))

    @property
    def first_seconds(self) -> float | None:
        """Median of the first five, once there are five more; None before."""
        return self._median(WINDOW) if len(self.labels) >= 2 * WINDOW else None

    @property
    def still_pays(self) -> bool:
        """Whether more labels are likely to be worth their time.

        False once neither of the last two trainings gained significantly and the last
        five labels took as long as the five before.
        """
        if len(self.gains) < 2 or max(self.gains[-2:]) > 0:
            return True
        before = self._median(len(self.labels) - WINDOW)
        if before is None:
            return True
        seconds = self.seconds
        return seconds is not None and seconds <= FALLEN * before

    def _median(self, end: int) -> float | None:
        if end < WINDOW:
            return None
        return float(median(s for _, s in self.labels[end - WINDOW : end]))


def annotation_time_of(entries: Iterable[Entry], reader: str = "") -> AnnotationTime:
    """Compute the annotation time of a reader from the entries of a journal."""
    time = AnnotationTime()
    for entry in entries:
        if entry.what == "accepted" and entry.image is not None:
            if entry.reader != reader:
                continue
            key = (entry.image, entry.frame or 0)
            time = time.with_label(key, _number(entry, "seconds"))
        elif entry.what in ("promoted", "refused"):
            patients = _number(entry, "patients")
            time = time.with_training(
                None if patients is None else int(patients), _number(entry, "gain_low")
            )
    return time


def _number(entry: Entry, name: str) -> float | None:
    value = entry.details.get(name)
    return value if type(value) in (int, float) else None
