"""What a training of a project will do, told before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cmunet.model.device import choose_device_or_fallback
from napari_cmunet.project.model_history import ModelVersion
from napari_cmunet.project.patients import BLOCK
from napari_cmunet.project.project import Project
from napari_cmunet.training.comparison import ENOUGH_PATIENTS
from napari_cmunet.training.cross_validation import leave_patients_out
from napari_cmunet.training.events import Planned
from napari_cmunet.training.finetuning import StartModel
from napari_cmunet.training.options import CURRENT
from napari_cmunet.training.plan import Plan, make_plan, seconds_per_view

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_cmunet.training.options import FinetuneOptions

FEW_FOR_A_SPLIT = ENOUGH_PATIENTS * BLOCK
"""With fewer patients, too few of them validate for a comparison of two models."""


def load_start(
    project: Project, options: FinetuneOptions
) -> tuple[StartModel, ModelVersion | None]:
    """The model to start from, and which of the project it is; None: none of them."""
    parent: ModelVersion | None = None
    if options.start == CURRENT:
        parent = project.models.current
    elif options.start in project.models.names():
        parent = ModelVersion(options.start)
    folder = project.models.folder(parent) if parent else None
    return StartModel.load(options, folder), parent


def plan_training(
    project: Project, options: FinetuneOptions, start: StartModel, view_seconds: float
) -> Plan:
    """Plan a training; see :func:`napari_cmunet.training.plan.make_plan`."""
    refs = project.labels.refs()
    patients = {ref.patient for ref in refs}
    trainings = 1
    if not start.segments and options.validate and 1 < len(patients) < FEW_FOR_A_SPLIT:
        trainings += len(leave_patients_out(sorted(patients)))
    return make_plan(
        len(refs),
        view_seconds,
        minutes=options.minutes,
        steps=options.steps,
        quick=start.segments,
        trainings=trainings,
    )


def plan_project(folder: Path, options: Mapping[str, Any]) -> tuple[Planned, float]:
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
        plan = plan_training(project, chosen, start, view_seconds)
    return Planned(plan.labels, plan.possible, str(plan), plan.seconds), view_seconds
