"""The readers' labels of an image, as the reviewer sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import CMUNetError
from napari_cmunet.io.masks.label_file import Label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.readers.agreement import agreement
from napari_cmunet.project.readers.readers import REVIEWER

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.project.project import Project


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
