"""What labels have cost their reader, and whether more of them still pay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.project.journal import Entry
    from napari_cmunet.project.label_store import FrameKey

WINDOW = 5
"""Labels of which a median is taken."""

ENOUGH_PATIENTS = 3
"""A training that was compared on fewer says nothing."""

FALLEN = 0.9
"""Seconds fall no more that are above this share of those before."""


@dataclass(frozen=True)
class AnnotationTime:
    """The first acceptance of each frame, and how trainings were judged.

    A label that is accepted again was looked at before, and is no measure of how good
    the prediction was.

    Parameters
    ----------
    labels : tuple of ((image, frame), seconds, pixels changed or None)
        Oldest first.
    gains : tuple of float
        Lower bound of the interval of what each training has gained on patients that
        it never saw, oldest first.
    """

    labels: tuple[tuple[FrameKey, float, int | None], ...] = ()
    gains: tuple[float, ...] = ()

    def with_label(
        self, key: FrameKey, seconds: float | None, pixels: int | None = None
    ) -> AnnotationTime:
        """One more label."""
        if seconds is None or any(known == key for known, *_ in self.labels):
            return self
        return replace(self, labels=(*self.labels, (key, seconds, pixels)))

    def with_training(
        self, patients: int | None, gain_low: float | None
    ) -> AnnotationTime:
        """One more training, if it could be judged."""
        if gain_low is None or (patients or 0) < ENOUGH_PATIENTS:
            return self
        return replace(self, gains=(*self.gains, gain_low))

    @property
    def seconds(self) -> float | None:
        """Median of the last five labels; None of fewer."""
        return self._median(len(self.labels))

    @property
    def first_seconds(self) -> float | None:
        """Median of the first five, once there are five more; None before."""
        return self._median(WINDOW) if len(self.labels) >= 2 * WINDOW else None

    @property
    def pixels(self) -> float | None:
        """Median of the pixels that were changed in the last five labels."""
        known = [p for *_, p in self.labels[-WINDOW:] if p is not None]
        return float(median(known)) if len(known) == WINDOW else None

    @property
    def still_pays(self) -> bool:
        """Whether more labels are likely to be worth their reader's time.

        Not any more once neither of the last two trainings was better beyond chance,
        and the last five labels took as long as the five before.
        """
        if len(self.gains) < 2 or max(self.gains[-2:]) > 0:
            return True
        before = self._median(len(self.labels) - WINDOW)
        if before is None:
            return True
        return self.seconds <= FALLEN * before

    def _median(self, end: int) -> float | None:
        if end < WINDOW:
            return None
        return float(median(s for _, s, _ in self.labels[end - WINDOW : end]))


def annotation_time_of(entries: Iterable[Entry]) -> AnnotationTime:
    """Take the effort from a project's journal."""
    effort = AnnotationTime()
    for entry in entries:
        details = entry.details
        if entry.what == "accepted" and entry.image is not None:
            key = (entry.image, entry.frame or 0)
            seconds, pixels = (
                details.get(k) if type(details.get(k)) in (int, float) else None
                for k in ("seconds", "pixels_changed")
            )
            effort = effort.with_label(key, seconds, pixels)
        elif entry.what in ("promoted", "refused"):
            patients, low = (
                details.get(k) if type(details.get(k)) in (int, float) else None
                for k in ("patients", "gain_low")
            )
            effort = effort.with_training(patients, low)
    return effort
