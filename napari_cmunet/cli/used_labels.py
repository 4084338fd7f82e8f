"""The labels of a project that a training uses: which, of whom, and for what."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from napari_cmunet.errors import Cancelled, TrainingError
from napari_cmunet.project.split import BLOCK, TRAIN, VALIDATION
from napari_cmunet.training import events
from napari_cmunet.training.comparison import ENOUGH_PATIENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training_labels import LabelRef, ProjectLabel

FEW_FOR_A_SPLIT = ENOUGH_PATIENTS * BLOCK
"""With fewer patients, too few of them validate for a comparison of two models."""


class UsedLabels:
    """Reads a project's labels for a training and keeps count of them.

    Parameters
    ----------
    project : Project
    write : callable
        Told of labels that cannot be used.
    should_stop : callable
        Asked at each label.
    """

    def __init__(
        self,
        project: Project,
        write: Callable[[events.Event], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._project, self._write, self._should_stop = project, write, should_stop
        self.records: list[dict[str, object]] = []
        self.refs: list[LabelRef] = []  # of those, in the same order
        self.held_out: list[LabelRef] = []
        self.problems = 0

    @property
    def patients(self) -> set[str]:
        """Of all labels that were used."""
        return {ref.patient for ref in self.refs}

    @property
    def learned_patients(self) -> set[str]:
        """Those from whom the model learned."""
        return self.patients - {ref.patient for ref in self.held_out}

    def hashes(self) -> dict[str, set[str]]:
        """By patient, the hashes of the labels that were used."""
        found: dict[str, set[str]] = {}
        for ref, label in zip(self.refs, self.records, strict=True):
            found.setdefault(ref.patient, set()).add(str(label["sha256"]))
        return found

    def both(
        self, validate: bool
    ) -> tuple[Iterator[ProjectLabel], list[ProjectLabel] | Iterator[ProjectLabel]]:
        """Labels to learn from, and of other patients to validate on, if enough."""
        refs = self._project.labels.refs()
        if not refs:
            raise TrainingError(
                "The project has no accepted label yet. Accept some masks first."
            )
        if not validate or len({r.patient for r in refs}) < FEW_FOR_A_SPLIT:
            return self._some(refs), []
        held_out = self._held_out([r for r in refs if r.side == VALIDATION])
        first = next(held_out, None)
        validation = itertools.chain([first], held_out) if first else []
        return self._some([r for r in refs if r.side == TRAIN]), validation

    def _held_out(self, refs: list[LabelRef]) -> Iterator[ProjectLabel]:
        for label in self._read(refs):
            self.held_out.append(label.ref)
            yield label

    def _some(self, refs: list[LabelRef]) -> Iterator[ProjectLabel]:
        before = len(self.records)
        yield from self._read(refs)
        if len(self.records) == before:
            raise TrainingError(
                "None of the project's labels could be used. If its images were moved, "
                "open the project in the window, or give their folder with --images."
            )

    def _read(self, refs: list[LabelRef]) -> Iterator[ProjectLabel]:
        for label in self._project.labels.read(refs, self._problem):
            if self._should_stop():
                raise Cancelled("Stopped before there was a model.")
            self.records.append(label.to_json())
            self.refs.append(label.ref)
            yield label

    def _problem(self, text: str) -> None:
        self.problems += 1
        self._write(events.Note(text))
