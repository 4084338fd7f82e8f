"""``agreement``: how well the readers of a project agree."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.arguments import add_json, add_project
from napari_cmunet.errors import ProjectError
from napari_cmunet.project.project import Project
from napari_cmunet.project.readers.agreement import (
    MEASURES,
    TOLERANCE,
    agreement_table,
    compare_readers,
    limits_of,
    reader_pairs,
)
from napari_cmunet.project.readers.readers import known_readers
from napari_cmunet.util.safe_files import write_json

if TYPE_CHECKING:
    import argparse

    from napari_cmunet.project.readers.agreement import FrameAgreement


def add_parser(commands: Any) -> None:
    p = commands.add_parser(
        "agreement",
        help="two readers' labels compared",
        description="Compare the labels of each two readers on the frames that both "
        "have labelled, where both reviewed them: Dice, clDice, normalised surface "
        "distance, wrong places, the second's area and, where both measured the same "
        "lesion, diameter stenosis less the first's; by frame, and "
        "mean, standard deviation, the limits between which 95 %% of frames lie, and "
        "the 95 %% interval of the mean by patient.",
    )
    add_project(p)
    add_json(p)
    p.set_defaults(command="agreement")


def run(args: argparse.Namespace) -> int:
    """Print the agreement; returns the exit code."""
    problems: list[str] = []
    report = []
    with Project.open(args.project, read_only=True) as project:
        names = known_readers(project.id)
        pairs = reader_pairs(project)
        if not pairs:
            raise ProjectError(
                "No two readers have labelled the same frame yet. In the window, More "
                "> Reader begins a second reading."
            )
        for first, second in pairs:
            frames = list(
                compare_readers(project, first, second, problem=problems.append)
            )
            print(f"{names.name(first)} and {names.name(second)}:")
            print("\n".join(agreement_table(frames)))
            report.append(_as_json(first, second, frames))
        if waiting := project.reference.waiting_notice():
            print(f"note: {waiting}", file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    if args.json:
        write_json(args.json, {"version": 1, "pairs": report})
    return 1 if problems else 0


def _as_json(
    first: str, second: str, frames: list[FrameAgreement]
) -> dict[str, object]:
    # Readers by their codes: names stay at home.
    return {
        "readers": [first or "first", second],
        "nsd_tolerance_px": TOLERANCE,
        "frames": [asdict(f) for f in frames],
        "limits": {m: asdict(limits_of(frames, m)) for m in MEASURES if frames},
    }
