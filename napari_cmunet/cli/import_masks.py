"""``import``: masks of other programs as labels or drafts of a project."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.arguments import add_large_masks, add_project
from napari_cmunet.cli.progress import Progress, stop_on_signals
from napari_cmunet.project.labels.mask_import import (
    ImportOptions,
    plan_import,
    run_import,
)
from napari_cmunet.project.project import Project

if TYPE_CHECKING:
    import argparse


def add_parser(commands: Any) -> None:
    p = commands.add_parser(
        "import",
        help="masks of other programs as labels of a project",
        description="Pair masks with the images of a project by name, show the pairs, "
        "check size and orientation, and save them as labels. Masks are TIFF, PNG and "
        "other pictures, NPY, DICOM Segmentation, COCO, and datasets of nnU-Net. A run "
        "that was stopped goes on where it was.",
    )
    add_project(p)
    p.add_argument("masks", nargs="+", type=Path, metavar="MASKS")
    p.add_argument(
        "--drafts",
        action="store_true",
        help="save drafts, to be looked at and accepted in the window",
    )
    p.add_argument(
        "--dry-run", action="store_true", help="show the pairs and import nothing"
    )
    p.add_argument("-y", "--yes", action="store_true", help="do not ask before")
    p.add_argument(
        "--replace",
        action="store_true",
        help="also where a frame has another label, which is kept among the older "
        "ones, or a draft, which is lost",
    )
    add_large_masks(p)
    p.add_argument(
        "--any-orientation",
        action="store_true",
        help="also masks that seem to be mirrored or turned",
    )
    p.add_argument(
        "--artery",
        action="append",
        default=[],
        metavar="NAME",
        help="of files with several categories, segments or labels: one that is "
        "artery; may be repeated",
    )
    p.set_defaults(command="import_masks")


def run(args: argparse.Namespace) -> int:
    """Import; returns the exit code."""
    options = ImportOptions(
        drafts=args.drafts,
        replace=args.replace,
        large_masks=args.large_masks,
        any_orientation=args.any_orientation,
        artery=tuple(args.artery),
    )
    progress = Progress(0)
    with (
        stop_on_signals() as should_stop,
        Project.open(args.project, read_only=args.dry_run) as project,
    ):
        for notice in project.take_notices():
            print(f"note: {notice}", file=sys.stderr)

        def report(done: int, total: int) -> None:
            progress.line(f"{done}/{total} masks")

        plan = plan_import(project, args.masks, options, report, should_stop)
        progress.clear()
        for pair in plan.pairs:
            print(pair)
        for problem in plan.problems:
            print(problem, file=sys.stderr)
        kind = "drafts" if args.drafts else "labels"
        if args.dry_run or not plan.new:
            print(f"{plan.new} new {kind}", file=sys.stderr)
            return 1 if plan.problems else 0
        if not args.yes and not _confirmed(plan.new, kind):
            return 1
        result = run_import(project, plan, options, report, should_stop)
        progress.clear()
    for problem in result.problems[len(plan.problems) :]:
        print(problem, file=sys.stderr)
    stopped = "" if result.complete else "stopped; "
    print(f"{stopped}{result.saved} {kind} saved", file=sys.stderr)
    return 0 if result.complete and not result.problems else 1


def _confirmed(count: int, kind: str) -> bool:
    """Ask, where somebody is at a terminal to answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print(f"Save these {count} {kind}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().casefold() in ("y", "yes")
