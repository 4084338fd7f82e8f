"""``models``: list, show, verify, import and fetch models."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import ModelError, printable
from napari_cmunet.model.card import read_card
from napari_cmunet.model.published import (
    MEGABYTES,
    PUBLISHED,
    download,
    find_published,
)
from napari_cmunet.model.registry import (
    find_model,
    list_models,
    load_model,
    model_folders,
    user_models_folder,
)
from napari_cmunet.util.text import duration

if TYPE_CHECKING:
    import argparse

    from napari_cmunet.model.published import PublishedFile


def add_parser(commands: Any) -> None:
    p = commands.add_parser(
        "models", help="list, show, verify, import and fetch models"
    )
    p.set_defaults(command="models", action="list", model=None)
    actions = p.add_subparsers(title="actions", metavar="ACTION")
    actions.add_parser("list", help="names of all models").set_defaults(action="list")
    show = actions.add_parser("show", help="a model's card")
    show.add_argument("model", metavar="NAME|DIR")
    show.set_defaults(action="show")
    verify = actions.add_parser("verify", help="check the hash and tensors of models")
    verify.add_argument("model", nargs="?", metavar="NAME|DIR", help="default: all")
    verify.set_defaults(action="verify")
    add = actions.add_parser(
        "import",
        help="make a model of a published checkpoint",
        description="Make a model of a published CM-UNet checkpoint (.pth, .pt, "
        ".ckpt). Nothing in the file is run.",
    )
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--name", help="of the model (default: from the file)")
    add.set_defaults(action="import")
    fetch = actions.add_parser(
        "fetch",
        help="download one of the authors' checkpoints",
        description="Download one of the checkpoints that the authors of CM-UNet "
        "published, and make a model of it. Its SHA-256 must be the known one. "
        "Without a name: list them.",
    )
    fetch.add_argument("name", nargs="?", metavar="NAME")
    fetch.add_argument("--url", help="of a copy (default: the authors' repository)")
    fetch.add_argument("--yes", action="store_true", help="do not ask")
    fetch.set_defaults(action="fetch")
    for p in (add, fetch):
        p.add_argument(
            "--force", action="store_true", help="replace a model of that name"
        )


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code."""
    if args.action == "show":
        return show(args.model)
    if args.action == "verify":
        return verify(args.model)
    if args.action == "import":
        return import_file(args.file, args.name, force=args.force)
    if args.action == "fetch":
        if args.name is None:
            return list_published()
        return fetch(args.name, url=args.url, yes=args.yes, force=args.force)
    return list_all()


def list_all() -> int:
    """Print one line for each model: name, kind, width, description."""
    for card, folder in list_models():
        about = printable(card.description)
        print(f"{folder.name}\t{card.kind}\twidth {card.width}\t{about}")
    return 0


def show(model: str) -> int:
    """Print a model's card as JSON."""
    print(json.dumps(dataclasses.asdict(read_card(find_model(model))), indent=1))
    return 0


def verify(model: str | None) -> int:
    """Check one model, or all; returns 1 if any is not sound."""
    folders = [find_model(model)] if model else model_folders()
    failed = 0
    for folder in folders:
        try:
            report = load_model(folder).report
        except ModelError as exc:
            failed += 1
            print(exc, file=sys.stderr)
        else:
            print(f"{folder.name}\tsound: {report}")
    return 1 if failed else 0


_LIMIT = int(1.1 * MEGABYTES * 1e6)


def import_file(path: Path, name: str | None = None, *, force: bool = False) -> int:
    """Make a model of a checkpoint and print the report."""
    from napari_cmunet.model.importer import import_checkpoint

    folder, report = import_checkpoint(path, name, force=force)
    print(report)
    print(f"Imported as {folder.name} ({report.kind}).")
    return 0


def list_published() -> int:
    """Print what ``models fetch`` knows."""
    for published in PUBLISHED:
        print(f"{published.name}\t{published.description}")
    return 0


def fetch(
    name: str, *, url: str | None = None, yes: bool = False, force: bool = False
) -> int:
    """Download a published checkpoint and make a model of it.

    Returns 2 if it was not confirmed and nobody can be asked.
    """
    from napari_cmunet.model.importer import folder_for

    published = find_published(name)
    folder_for(name, force=force)  # refused before the download
    print(
        f"{published.file} ({published.folder}, {MEGABYTES:.0f} MB) is published by "
        "the authors of CM-UNet, who state no licence for it: no right to use or pass "
        "it on comes with it. It is not part of napari-cmunet.",
        file=sys.stderr,
    )
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            print("Nothing was downloaded. Add --yes to go ahead.", file=sys.stderr)
            return 2
        print("Download it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("Nothing was downloaded.", file=sys.stderr)
            return 1
    target = user_models_folder().parent / "downloads" / f"{name}.pth"
    _get(published, url or published.url, target)
    code = import_file(target, name, force=force)
    target.unlink(missing_ok=True)
    return code


def _get(published: PublishedFile, url: str, target: Path) -> None:
    line = Progress(0)
    began: tuple[float, int] | None = None  # again where a download starts anew

    def show(done: int, total: int | None) -> None:
        nonlocal began
        now = time.monotonic()
        if began is None or done < began[1]:
            began = now, done
        text = f"{done / 1e6:.1f} MB"
        if total and done > began[1] and now - began[0] > 1:
            left = (now - began[0]) / (done - began[1]) * (total - done)
            text = f"{text} of {total / 1e6:.1f} MB, {duration(left)} left"
        line.line(text)

    try:
        download(url, target, published.sha256, limit=_LIMIT, progress=show)
    finally:
        line.clear()
