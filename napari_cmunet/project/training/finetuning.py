"""Fine-tune from the accepted labels of a project and add the model to it.

The project is only read, but for a new model folder: it may be open elsewhere
meanwhile. Labels that are accepted during the training are for the next one.
"""

from __future__ import annotations

import itertools
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import Cancelled, TrainingError
from napari_cmunet.model.device import choose_device, choose_device_or_fallback
from napari_cmunet.model.registry import DEFAULT_MODEL, list_models, save_model
from napari_cmunet.project.models.comparison import as_label, compare
from napari_cmunet.project.models.history import ModelVersion
from napari_cmunet.project.patients import TRAIN, VALIDATION
from napari_cmunet.project.project import Project
from napari_cmunet.training import events
from napari_cmunet.training.cluster import train_on_cluster
from napari_cmunet.training.config import FinetuneResult
from napari_cmunet.training.evaluation.validation import MANY_PATIENTS
from napari_cmunet.training.finetuning import StartModel, model_card
from napari_cmunet.training.options import CURRENT
from napari_cmunet.training.plan import seconds_per_view
from napari_cmunet.training.staged_finetuning import plan_stages, train_in_stages

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    import torch

    from napari_cmunet.project.models.comparison import Known
    from napari_cmunet.project.training.labels import LabelRef
    from napari_cmunet.training.dataset import Label
    from napari_cmunet.training.options import FinetuneOptions

    Write = Callable[[events.Event], None]


def load_start(
    project: Project, options: FinetuneOptions
) -> tuple[StartModel, ModelVersion | None]:
    """The model to start from, and which of the project it is; None: none of them."""
    parent: ModelVersion | None = None
    if options.start == CURRENT:
        parent = project.models.current
    elif options.start in project.models.names():
        parent = ModelVersion(options.start)
    if parent and project.models.is_trained(parent) and not options.train:
        raise TrainingError(
            f"{parent.name} has learned from labels of this project, so that they "
            f"cannot adapt it. Choose another model: --start {DEFAULT_MODEL}."
        )
    if parent and (adapted := _adapted(project, parent)):
        return StartModel.load(options, adapted), None
    folder = project.models.folder(parent) if parent else None
    return StartModel.load(options, folder), parent


def _adapted(project: Project, version: ModelVersion) -> Path | None:
    """The installed model whose weights an adapted one has; None if it has others."""
    if version.installed or project.models.is_trained(version):
        return None
    sha256 = project.models.training(version.name).get("start_sha256")
    return next(
        (folder for card, folder in list_models() if card.sha256 == sha256), None
    )


def plan_project(
    folder: Path, options: Mapping[str, Any]
) -> tuple[events.Planned, float]:
    """Plan a training of a project from a step that is timed now.

    Returns
    -------
    plan : Planned
    view_seconds : float
        See :func:`napari_cmunet.training.plan.seconds_per_view`.
    """
    with Project.open(folder, read_only=True) as project:
        chosen = project.settings.finetune_options(options)
        start, _ = load_start(project, chosen)
        device, _ = choose_device_or_fallback(chosen.device)
        view_seconds = seconds_per_view(start, device)
        refs = project.reference.refs()
        patients = len({ref.patient for ref in refs})
        plan = plan_stages(start, chosen, len(refs), patients, view_seconds)
    planned = events.Planned(plan.labels, plan.possible, str(plan), plan.seconds)
    return planned, view_seconds


def finetune_project(
    folder: Path,
    options: Mapping[str, Any],
    *,
    write: Write,
    name: str = "",
    images: Sequence[Path] = (),
    compare_models: bool = True,
    large_masks: bool = False,
    view_seconds: float | None = None,
    any_device: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    check: Callable[[], None] = lambda: None,
) -> tuple[Path | None, int]:
    """Fine-tune, add the model to the project, and compare it with the one in use.

    Parameters
    ----------
    options : mapping
        Fields of :class:`~napari_cmunet.training.options.FinetuneOptions` that were
        chosen; the others are as the project's settings have them.
    write : callable
        Takes the events.
    name : str
        Of the new model; empty for the next free one.
    images : sequence of Path
        Where the images lie now, if the project does not find them.
    large_masks : bool
        Learn also from labels that are artery for more than a third of the frame,
        although nobody was asked about them.
    view_seconds : float, optional
        See :func:`napari_cmunet.training.plan.seconds_per_view`.
    any_device : bool
        Take another device where the chosen one is missing.
    should_stop : callable
        Whether to stop and keep the best; may raise Cancelled.
    check : callable
        Raises Cancelled to give up.

    Returns
    -------
    folder : Path or None
        Of the new model; None if the training was stopped before there was one.
    problems : int
        Labels that could not be used.
    """
    began = time.monotonic()
    with Project.open(folder, read_only=True) as project:
        for notice in project.take_notices():
            write(events.Note(notice))
        for moved in images:
            project.images.relink(moved, should_stop)
        chosen = project.settings.finetune_options(options)
        if name:
            project.models.new_path(name)  # raises now, not after the training
        start, parent = load_start(project, chosen)
        device = _device(chosen.device, write, any_device)
        used = UsedLabels(project, write, should_stop, large_masks)
        labels, validation = used.split(chosen.validate and chosen.train)
        with project.models.new_folder():
            pass  # raises now, not after the training, where nothing can be written

        def read(at: Sequence[int]) -> Iterator[Label]:
            return map(as_label, project.reference.read([used.refs[i] for i in at]))

        train = train_on_cluster if chosen.cluster else train_in_stages
        stages = train(
            start,
            chosen,
            labels,
            validation,
            read=read,
            device=device,
            view_seconds=view_seconds,
            should_stop=should_stop,
        )
        saved: Path | None = None
        known: dict[str, Known] = {}
        for item in stages:
            if not isinstance(item, FinetuneResult):
                write(item)
                continue
            seconds = time.monotonic() - began
            saved = _save(project, name, chosen, start, parent, used, item, seconds)
            name = ""
            write(events.Saved(str(saved)))
            if compare_models:
                with _discarded_if_cancelled(saved, adapted=not chosen.train):
                    verdict = compare(
                        project,
                        saved.name,
                        held_out=used.held_out,
                        label_hashes=used.hashes(),
                        left_out=item.left_out,
                        parent=parent,
                        device=device,
                        write=write,
                        check=check,
                        known=known,
                    )
                write(verdict)
    return saved, used.problems


@contextmanager
def _discarded_if_cancelled(model: Path, *, adapted: bool) -> Iterator[None]:
    """Delete an adapted model whose comparison is cancelled: nobody asked for it."""
    try:
        yield
    except Cancelled:
        if adapted:
            shutil.rmtree(model, ignore_errors=True)
        raise


def _device(name: str, write: Write, any_device: bool) -> torch.device:
    if not any_device:
        return choose_device(name)
    device, missing = choose_device_or_fallback(name)
    if missing:
        write(events.Note(missing))
    return device


def _save(
    project: Project,
    name: str,
    options: FinetuneOptions,
    start: StartModel,
    parent: ModelVersion | None,
    used: UsedLabels,
    result: FinetuneResult,
    seconds: float,
) -> Path:
    name = name or project.models.free_name("tuned" if result.steps else "adapted")
    before = project.models.learned_patients(parent) if parent else set()
    hashes = used.hashes()
    card = model_card(name, start, options, len(used.records), result)
    with project.models.new_folder() as new:
        save_model(new.folder, result.weights, card)
        new.note_training(
            {
                "version": 1,
                "start": card.parent or options.start,
                "start_sha256": card.parent_sha256,
                "seed": options.seed,
                "figures": {
                    "labels": len(used.records),
                    "patients": len(used.patients),
                    "dice": result.dice,
                    "cldice": result.cldice,
                    "best_step": result.best_step,
                    "steps": result.steps,
                    "reason": result.reason,
                    "seconds": round(seconds, 1),
                },
                "labels": used.records,
                "learned_patients": sorted(before | used.learned_patients),
                "left_out": {
                    patient: {
                        "dice": dice,
                        "cldice": cldice,
                        "labels": sorted(hashes[patient]),
                    }
                    for patient, (dice, cldice) in result.left_out.items()
                    if patient not in before
                },
            }
        )
        return new.finish(name)


class UsedLabels:
    """Read a project's labels for a training and record which were used.

    Parameters
    ----------
    write : callable
        Takes a note for each label that cannot be used.
    should_stop : callable
        Asked at each label.
    large_masks : bool
        Use large labels that nobody has confirmed.
    """

    def __init__(
        self,
        project: Project,
        write: Write,
        should_stop: Callable[[], bool],
        large_masks: bool = False,
    ) -> None:
        self._project, self._write, self._should_stop = project, write, should_stop
        self._large_masks = large_masks
        self.records: list[dict[str, object]] = []
        self.refs: list[LabelRef] = []  # of the records, in the same order
        self.held_out: list[LabelRef] = []
        self.problems = 0

    @property
    def patients(self) -> set[str]:
        """Patients of all labels that were used."""
        return {ref.patient for ref in self.refs}

    @property
    def learned_patients(self) -> set[str]:
        """Patients from whom the model learned."""
        return self.patients - {ref.patient for ref in self.held_out}

    def hashes(self) -> dict[str, set[str]]:
        """By patient, the hashes of the labels that were used."""
        found: dict[str, set[str]] = {}
        for ref, label in zip(self.refs, self.records, strict=True):
            found.setdefault(ref.patient, set()).add(str(label["sha256"]))
        return found

    def split(self, validate: bool) -> tuple[Iterator[Label], Iterable[Label]]:
        """Labels to learn from, and of other patients to validate on.

        The latter are empty unless there are many patients.
        """
        refs = self._project.reference.refs()
        waiting = self._project.reference.waiting_notice()
        if not refs:
            raise TrainingError(
                waiting
                or "The project has no accepted label yet. Accept some masks first."
            )
        if waiting:
            self._write(events.Note(waiting))
        if not validate or len({r.patient for r in refs}) < MANY_PATIENTS:
            return self._learned(refs), []
        held_out = self._held_out([r for r in refs if r.side == VALIDATION])
        first = next(held_out, None)
        validation: Iterable[Label] = []
        if first is not None:
            validation = itertools.chain([first], held_out)
        return self._learned([r for r in refs if r.side == TRAIN]), validation

    def _held_out(self, refs: list[LabelRef]) -> Iterator[Label]:
        for label in self._read(refs):
            self.held_out.append(self.refs[-1])
            yield label

    def _learned(self, refs: list[LabelRef]) -> Iterator[Label]:
        before = len(self.records)
        yield from self._read(refs)
        if len(self.records) == before:
            raise TrainingError(
                "None of the project's labels could be used. If its images were moved, "
                "open the project in the window, or give their folder with --images."
            )

    def _read(self, refs: list[LabelRef]) -> Iterator[Label]:
        for label in self._project.reference.read(refs, self._problem):
            if self._should_stop():
                raise Cancelled("Stopped before the first checkpoint.")
            if label.large and not self._large_masks:
                self._problem(
                    f"Label {label.name}: {100 * label.mask.mean():.0f} % of it is "
                    "artery, more than a third of the frame; it is left out. Correct "
                    "it, or accept it again to confirm it (on the command line: "
                    "--large-masks keep)."
                )
                continue
            self.records.append(label.to_json())
            self.refs.append(label.ref)
            yield as_label(label)

    def _problem(self, text: str) -> None:
        self.problems += 1
        self._write(events.Note(text))
