"""``history``: what was done to an image of a project, in words."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.arguments import add_project
from napari_cmunet.errors import UsageError
from napari_cmunet.project.labels.history import image_history
from napari_cmunet.project.project import Project

if TYPE_CHECKING:
    import argparse


def add_parser(commands: Any) -> None:
    p = commands.add_parser(
        "history",
        help="what was done to an image of a project, in words",
        description="Tell who accepted, withdrew and restored which version of an "
        "image's labels, when (UTC), and which models have learned from it.",
    )
    add_project(p)
    p.add_argument(
        "image", metavar="IMAGE", help="name of the image's file, or the image's id"
    )
    p.add_argument("--frame", type=int, metavar="N", help="of a cine, counted from 0")
    p.set_defaults(command="history")


def run(args: argparse.Namespace) -> int:
    """Print the history; returns the exit code."""
    with Project.open(args.project, read_only=True) as project:
        image = find_image(project, args.image)
        for event in image_history(project, image, args.frame):
            print(event)
    return 0


def find_image(project: Project, name: str) -> str:
    """Return the id of an image by its id, path, file name or stem.

    Raises
    ------
    UsageError
        If there is none, or several.
    """
    if name in project.images:
        return name
    found = []
    for record in project.images:
        path = PurePosixPath(str(record.path))
        if name in (str(path), path.name, path.stem):
            found.append(record.id)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} images are named '{name}': give the id.")
    raise UsageError(f"The project has no image named '{name}'.")
