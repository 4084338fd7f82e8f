"""``export``: the accepted masks of a project, in one or several formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.arguments import add_flags, add_output, add_project
from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import ProjectError, UsageError, display_name
from napari_cmunet.project.export.formats import (
    FORMATS,
    ExportConflictError,
    export_masks,
)
from napari_cmunet.project.project import Project

if TYPE_CHECKING:
    import argparse


def add_parser(commands: Any) -> None:
    p = commands.add_parser(
        "export",
        help="write the accepted masks of a project",
        description="Write the accepted masks of a project as TIFF, COCO, nnU-Net "
        "dataset, DICOM Segmentation or DICOM Secondary Capture. As TIFF: one file for "
        "each label, named by the image's id, and index.csv, which identifies each "
        "image by the hash of its file.",
    )
    add_project(p)
    add_output(p)
    p.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="look here for images that were moved; all formats but TIFF need them",
    )
    p.add_argument(
        "--format",
        action="append",
        choices=[f.name for f in FORMATS],
        dest="formats",
        help="may be repeated; tiff by default. "
        + "; ".join(f"{f.name}: {f.title}" for f in FORMATS),
    )
    add_flags(
        p,
        (
            "--original-names",
            "name masks as the images are, with comments in index.csv; both may name "
            "patients",
        ),
        ("--overwrite", "write into a folder that already holds files"),
        ("--ones", "0 and 1 in the masks, not 0 and 255"),
        (
            "--record",
            "also write NAME.json beside each mask: its provenance, the reviewed "
            "share, how many pixels were changed",
        ),
        (
            "--segments",
            "the SYNTAX segments of the vessels, where they are named: as TIFF beside "
            "each mask NAME_segments.tif, whose values segments.csv explains; in other "
            "formats as categories, classes and coded segments",
        ),
        ("--stack", "one file for each cine, a page for each accepted frame"),
        ("--coco", "the same as --format tiff --format coco"),
        ("--nnunet", "the same as --format tiff --format nnunet"),
    )
    p.set_defaults(command="export")


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code. Works while a window has the project open."""
    with Project.open(args.project, read_only=True) as project:
        for notice in project.take_notices():
            print(f"note: {notice}", file=sys.stderr)
        if waiting := project.reference.waiting_notice():
            print(f"note: {waiting}", file=sys.stderr)
        if args.images is not None:
            _look_for_images(project, args.images)
        # --coco and --nnunet are short for further formats.
        more = [name for name in ("coco", "nnunet") if getattr(args, name)]
        progress = Progress(0)
        try:
            exported = export_masks(
                project,
                args.output,
                original_names=args.original_names,
                overwrite=args.overwrite,
                values=(0, 1) if args.ones else (0, 255),
                records=args.record,
                stacks=args.stack,
                segments=args.segments,
                formats=[*(args.formats or ["tiff"]), *more],
                progress=lambda done, total: progress.line(f"{done}/{total} labels"),
            )
        except ExportConflictError as error:
            if not error.may_overwrite:
                raise
            raise ProjectError(f"{error} Use --overwrite.") from error
        progress.clear()
        missing = exported.problems and project.images.missing()
    for name in exported.files:
        print(exported.folder / name)
    for problem in exported.problems:
        print(problem, file=sys.stderr)
    if missing:
        print("note: --images DIR finds images that were moved.", file=sys.stderr)
    return 1 if exported.problems else 0


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
