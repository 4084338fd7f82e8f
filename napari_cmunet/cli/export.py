"""``export``: the accepted masks of a project as TIFF."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import UsageError, display_name
from napari_cmunet.project.errors import ExportConflictError, ProjectError
from napari_cmunet.project.export import export_masks
from napari_cmunet.project.export_formats import export_for_tools
from napari_cmunet.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ExportJob:
    """One call of the command.

    Parameters
    ----------
    project, output : Path
    original_names : bool
        Name masks as the images are named, which may name patients.
    overwrite : bool
        Write into a folder that holds files.
    ones : bool
        0 and 1 instead of 0 and 255.
    record : bool
        A JSON record beside each mask.
    stack : bool
        One file for each cine.
    images : Path, optional
        Where to look for images that are not where the project has them.
    coco, nnunet : bool
        Also write the labels and their frames for other programs.
    """

    project: Path
    output: Path
    original_names: bool = False
    overwrite: bool = False
    ones: bool = False
    record: bool = False
    stack: bool = False
    images: Path | None = None
    coco: bool = False
    nnunet: bool = False


def run(job: ExportJob) -> int:
    """Export; returns the exit code. Works while a window has the project open."""
    with Project.open(job.project, read_only=True) as project:
        for notice in project.take_notices():
            print(f"note: {notice}", file=sys.stderr)
        if job.images is not None:
            _look_for_images(project, job.images)
        progress = Progress(0)
        try:
            exported = export_masks(
                project,
                job.output,
                original_names=job.original_names,
                overwrite=job.overwrite,
                values=(0, 1) if job.ones else (0, 255),
                records=job.record,
                stacks=job.stack,
                progress=lambda done, total: progress.line(f"{done}/{total} masks"),
            )
        except ExportConflictError as error:
            if not error.may_overwrite:
                raise
            raise ProjectError(f"{error} The option --overwrite says so.") from error
        files, problems = list(exported.files), list(exported.problems)
        if job.coco or job.nnunet:
            more, wrong = export_for_tools(
                project,
                exported.folder,
                coco=job.coco,
                nnunet=job.nnunet,
                progress=lambda done, total: progress.line(f"{done}/{total} frames"),
            )
            files += more
            problems += wrong
        progress.clear()
    for name in files:
        print(exported.folder / name)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _look_for_images(project: Project, folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"--images: {display_name(folder)} is not a folder.")
    before = len(project.images.missing())
    again = project.images.relink(folder)
    if before:
        left = len(again.missing)
        print(
            f"note: {before - left} of {before} missing images found again.",
            file=sys.stderr,
        )
