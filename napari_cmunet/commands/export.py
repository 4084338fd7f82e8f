"""``export``: the accepted masks of a study as TIFF."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.commands.progress import Progress
from napari_cmunet.study.export import export_masks
from napari_cmunet.study.export_for_tools import export_for_tools
from napari_cmunet.study.study import Study

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ExportJob:
    """One call of the command.

    Parameters
    ----------
    study, output : Path
    original_names : bool
        Name masks as the images are named, which may name patients.
    overwrite : bool
        Write into a folder that holds files.
    ones : bool
        0 and 1 instead of 0 and 255.
    coco, nnunet : bool
        Also write the labels and their frames for other programs.
    """

    study: Path
    output: Path
    original_names: bool = False
    overwrite: bool = False
    ones: bool = False
    coco: bool = False
    nnunet: bool = False


def run(job: ExportJob) -> int:
    """Export; returns the exit code. Works while a window has the study open."""
    with Study.open(job.study, read_only=True) as study:
        for notice in study.take_notices():
            print(f"note: {notice}", file=sys.stderr)
        progress = Progress(0)
        exported = export_masks(
            study,
            job.output,
            original_names=job.original_names,
            overwrite=job.overwrite,
            values=(0, 1) if job.ones else (0, 255),
            progress=lambda done, total: progress.line(f"{done}/{total} masks"),
        )
        files, problems = list(exported.files), list(exported.problems)
        if job.coco or job.nnunet:
            more, wrong = export_for_tools(
                study,
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
