"""``finetune STUDY``: a new model from the labels that a reader has accepted.

It only reads the study and adds a model folder to it, so a window may have the study
open meanwhile; labels accepted during the training are for the next one.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cmunet.commands.attached import Orders, give_way
from napari_cmunet.commands.compare_models import compare, left_out_scorer
from napari_cmunet.commands.failures import told_as_event
from napari_cmunet.commands.finetune import FinetuneJob, Start, card_of, train
from napari_cmunet.commands.used_labels import FEW_FOR_A_SPLIT, UsedLabels
from napari_cmunet.commands.watching import event_writer, stop_on_signals
from napari_cmunet.core import events
from napari_cmunet.core.device import choose_device, device_or_another
from napari_cmunet.core.memory import keep_freed_memory
from napari_cmunet.core.models import save_model
from napari_cmunet.errors import CMUNetError
from napari_cmunet.study.models import ModelVersion
from napari_cmunet.study.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from napari_cmunet.core.finetune import FinetuneResult

CURRENT = "current"
"""As the start: the model that the study uses."""


@dataclass(frozen=True)
class StudyJob:
    """One call of the command on a study.

    Parameters
    ----------
    study : Path
    training : FinetuneJob
        How to train; its folders and its output mean nothing here. An empty ``start``
        is the study's own choice.
    name : str
        Of the new model; empty for the next free one.
    images : tuple of Path
        Where the images lie now, if the study does not find them.
    attached : bool
        Belongs to a window; see :mod:`napari_cmunet.commands.attached`.
    compare : bool
        Compare the new model with the one in use.
    """

    study: Path
    training: FinetuneJob
    name: str = ""
    images: tuple[Path, ...] = ()
    attached: bool = False
    compare: bool = True


def run(job: StudyJob) -> int:
    """Fine-tune, add the model to the study, compare it; returns the exit code."""
    keep_freed_memory()
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
        study = stack.enter_context(Study.open(job.study, read_only=True))
        for notice in study.take_notices():
            write(events.Note(notice))
        for folder in job.images:
            study.images.relink(folder, should_stop)
        training = _with_settings(job.training, study)
        if job.name:
            study.models.store.folder(job.name)  # raises if it is no name
        start_version = _start_version(study, training.start)
        start = Start.make(
            study.models.folder(start_version) if start_version else training.start,
            training.config.seed,
            training.width,
            training.grid,
        )
        used = UsedLabels(study, write, should_stop)
        labels, validation = used.both(training.validate)
        device = _device(job, write)
        with study.models.new_folder():
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
            score=left_out_scorer(study, used.refs, start, device),
        )
        if result is None:
            print("napari-cmunet: stopped before there was a model.", file=sys.stderr)
            return 1
        folder = _save(
            study,
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
                    study,
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
    # Where no window has the study open, its journal is brought up to date here.
    if not job.attached:
        with contextlib.suppress(CMUNetError), Study.open(job.study):
            pass
    return 1 if used.problems else 0


def _device(job: StudyJob, write: Callable[[events.Event], None]) -> torch.device:
    """The device asked for; a window's choice may be of one that is gone by now."""
    if not job.attached:
        return choose_device(job.training.device)
    device, gone = device_or_another(job.training.device)
    if gone:
        write(events.Note(gone))
    return device


def _with_settings(training: FinetuneJob, study: Study) -> FinetuneJob:
    """What was not said on the command line is as the study has it."""
    settings = study.settings
    minutes = training.config.minutes or settings.minutes
    return replace(
        training,
        start=training.start or settings.start,
        phantoms=training.phantoms or settings.phantoms,
        config=replace(training.config, minutes=minutes),
    )


def _start_version(study: Study, name: str) -> ModelVersion | None:
    """The model in use, or one of the study; None for an installed one."""
    if name == CURRENT:
        return study.models.current
    return ModelVersion(name) if name in study.models.names() else None


def _save(
    study: Study,
    name: str,
    training: FinetuneJob,
    start: Start,
    start_version: ModelVersion | None,
    used: UsedLabels,
    result: FinetuneResult,
    seconds: float,
) -> Path:
    name = name or study.models.free_name()
    before: set[str] = set()
    if start_version is not None:
        before = study.models.learned_patients(start_version)
    hashes = used.hashes()
    card = replace(card_of(training, start, len(used.records), result), name=name)
    with study.models.new_folder() as new:
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
