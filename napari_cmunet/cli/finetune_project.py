"""``finetune PROJECT``: a new model from the labels that a reader has accepted.

It only reads the project and adds a model folder to it, so a window may have the project
open meanwhile; labels accepted during the training are for the next one.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cmunet.cli.compare_models import compare, left_out_scorer
from napari_cmunet.cli.error_events import told_as_event
from napari_cmunet.cli.finetune import FinetuneJob, Start, card_of, train
from napari_cmunet.cli.progress_reporter import event_writer, stop_on_signals
from napari_cmunet.cli.stdin_control import Orders, give_way
from napari_cmunet.cli.used_labels import FEW_FOR_A_SPLIT, UsedLabels
from napari_cmunet.errors import CMUNetError
from napari_cmunet.model.device import (
    choose_device,
    choose_device_or_fallback,
    tune_malloc,
)
from napari_cmunet.model.registry import save_model
from napari_cmunet.project.model_store import ModelVersion
from napari_cmunet.project.project import Project
from napari_cmunet.training import events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from napari_cmunet.training.config import FinetuneResult

CURRENT = "current"
"""As the start: the model that the project uses."""


@dataclass(frozen=True)
class ProjectJob:
    """One call of the command on a project.

    Parameters
    ----------
    project : Path
    training : FinetuneJob
        How to train; its folders and its output mean nothing here. An empty ``start``
        is the project's own choice.
    name : str
        Of the new model; empty for the next free one.
    images : tuple of Path
        Where the images lie now, if the project does not find them.
    attached : bool
        Belongs to a window; see :mod:`napari_cmunet.cli.stdin_control`.
    compare : bool
        Compare the new model with the one in use.
    """

    project: Path
    training: FinetuneJob
    name: str = ""
    images: tuple[Path, ...] = ()
    attached: bool = False
    compare: bool = True


def run(job: ProjectJob) -> int:
    """Fine-tune, add the model to the project, compare it; returns the exit code."""
    tune_malloc()
    began = time.monotonic()
    with (
        stop_on_signals() as should_stop,
        event_writer(job.training.events) as write,
        told_as_event(write),
        contextlib.ExitStack() as stack,
    ):
        check = lambda: None  # noqa: E731
        if job.attached:
            give_way()
            orders = Orders(should_stop)
            should_stop, check = orders.should_stop, orders.check
            orders.wait_for_go()
            began = time.monotonic()
        project = stack.enter_context(Project.open(job.project, read_only=True))
        for notice in project.take_notices():
            write(events.Note(notice))
        for folder in job.images:
            project.images.relink(folder, should_stop)
        training = _with_settings(job.training, project)
        if job.name:
            project.models.store.folder(job.name)  # raises if it is no name
        start_version = _start_version(project, training.start)
        start = Start.make(
            project.models.folder(start_version) if start_version else training.start,
            training.config.seed,
            training.width,
            training.grid,
        )
        used = UsedLabels(project, write, should_stop)
        labels, validation = used.both(training.validate)
        device = _device(job, write)
        with project.models.new_folder():
            pass  # raises now, not after the training, where nothing can be written
        result = train(
            training,
            start,
            labels,
            validation,
            device,
            write,
            should_stop,
            few=FEW_FOR_A_SPLIT,
            score=left_out_scorer(project, used.refs, start, device),
        )
        if result is None:
            print("napari-cmunet: stopped before there was a model.", file=sys.stderr)
            return 1
        folder = _save(
            project,
            job.name,
            training,
            start,
            start_version,
            used,
            result,
            time.monotonic() - began,
        )
        write(events.Saved(str(folder)))
        if job.compare:
            write(
                compare(
                    project,
                    folder.name,
                    used,
                    left_out=result.left_out,
                    start=start_version,
                    device=device,
                    write=write,
                    check=check,
                )
            )
    if job.training.events != "-":
        print(folder)
    # Where no window has the project open, its journal is brought up to date here.
    if not job.attached:
        with contextlib.suppress(CMUNetError), Project.open(job.project):
            pass
    return 1 if used.problems else 0


def _device(job: ProjectJob, write: Callable[[events.Event], None]) -> torch.device:
    """The device asked for; a window's choice may be of one that is gone by now."""
    if not job.attached:
        return choose_device(job.training.device)
    device, gone = choose_device_or_fallback(job.training.device)
    if gone:
        write(events.Note(gone))
    return device


def _with_settings(training: FinetuneJob, project: Project) -> FinetuneJob:
    """What was not said on the command line is as the project has it."""
    settings = project.settings
    minutes = training.config.minutes or settings.minutes
    return replace(
        training,
        start=training.start or settings.start,
        phantoms=training.phantoms or settings.phantoms,
        config=replace(training.config, minutes=minutes),
    )


def _start_version(project: Project, name: str) -> ModelVersion | None:
    """The model in use, or one of the project; None for an installed one."""
    if name == CURRENT:
        return project.models.current
    return ModelVersion(name) if name in project.models.names() else None


def _save(
    project: Project,
    name: str,
    training: FinetuneJob,
    start: Start,
    start_version: ModelVersion | None,
    used: UsedLabels,
    result: FinetuneResult,
    seconds: float,
) -> Path:
    name = name or project.models.free_name()
    before: set[str] = set()
    if start_version is not None:
        before = project.models.learned_patients(start_version)
    hashes = used.hashes()
    card = replace(card_of(training, start, len(used.records), result), name=name)
    with project.models.new_folder() as new:
        save_model(new.folder, result.weights, card)
        new.note_training(
            {
                "version": 1,
                "start": card.parent or training.start,
                "start_sha256": card.parent_sha256,
                "seed": training.config.seed,
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
