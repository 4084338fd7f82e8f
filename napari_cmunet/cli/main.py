"""The command line: ``napari-cmunet`` and ``python -m napari_cmunet``.

Exit 0: all done. 1: some input failed, every other was done, each failure named on
stderr. 2: bad usage, an unknown model among it. Nothing but results goes to stdout.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet import __version__
from napari_cmunet.cli.option_types import add_model_options, probability
from napari_cmunet.cli.training_options import (
    add_bench,
    add_evaluate,
    add_finetune,
    add_pretrain,
)
from napari_cmunet.errors import CMUNetError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _take_any_file_name()
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except (UsageError, UnknownModelError) as exc:
        print(f"napari-cmunet: {exc}", file=sys.stderr)
        return 2
    except CMUNetError as exc:
        print(f"napari-cmunet: {exc}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as exc:
        if not _is_out_of_memory(exc):
            raise
        print(
            "napari-cmunet: not enough memory. Close other programs and start again; "
            "finished files are whole.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("napari-cmunet: stopped; finished files are whole.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head`
        # Python writes what is left once more as it exits: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _is_out_of_memory(exc: Exception) -> bool:
    if isinstance(exc, MemoryError):
        return True
    if "torch" not in sys.modules:
        return False
    from napari_cmunet.model.device import is_out_of_memory

    return is_out_of_memory(exc)


def _take_any_file_name() -> None:
    """Let stdout print names that are no text in the system's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Elsewhere than on Windows the very bytes come out again.
        sys.stdout.reconfigure(
            errors="backslashreplace" if sys.platform == "win32" else "surrogateescape"
        )


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="napari-cmunet",
        description="Coronary artery segmentation with CM-UNet. Research use only: "
        "not a medical device.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_segment(commands)
    add_pretrain(commands)
    add_finetune(commands)
    add_evaluate(commands)
    _add_export(commands)
    _add_models(commands)
    add_bench(commands)
    return parser


def _add_demo(commands) -> None:
    p = commands.add_parser(
        "demo", help="open napari on a synthetic cine, pre-segmented"
    )
    p.add_argument(
        "--screenshot",
        type=Path,
        metavar="FILE",
        help="save the window's picture (PNG) and exit",
    )
    p.set_defaults(run=_demo)


def _add_segment(commands) -> None:
    p = commands.add_parser(
        "segment",
        help="write an artery mask (TIFF) for each image",
        description="Write one mask TIFF for each image: uint8, 0 background, 255 "
        "artery, on the image's own grid. Folders are walked, and the masks lie in "
        "folders of the same names; where an input is a folder, summary.csv tells what "
        "became of each file. A run that was stopped goes on where it was.",
    )
    p.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="image files (DICOM, TIFF, PNG, WebP, JPEG, BMP, NPY), DICOMDIR, and "
        "folders of them",
    )
    p.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for the masks; what an earlier run has made of the same image in "
        "the same way is kept, other masks are replaced",
    )
    add_model_options(p)
    p.add_argument(
        "--threshold",
        type=probability,
        metavar="T",
        help="artery from this probability on (default: the model's own)",
    )
    p.add_argument(
        "--probability",
        action="store_true",
        help="also write NAME_probability.tif (uint8, 255 is certain)",
    )
    p.add_argument(
        "--probability-float32",
        action="store_true",
        help="also write NAME_probability_float32.tif (0 to 1, not rounded)",
    )
    p.add_argument(
        "--record",
        action="store_true",
        help="also write NAME.json: where the mask comes from, and what it holds",
    )
    p.add_argument(
        "--overlay",
        action="store_true",
        help="also write NAME_overlay.png: the mask over the frame best filled",
    )
    p.add_argument(
        "--dicom-seg",
        action="store_true",
        help="also write NAME_seg.dcm, a DICOM segmentation, for single DICOM frames; "
        "needs highdicom",
    )
    p.set_defaults(run=_segment)


def _add_export(commands) -> None:
    p = commands.add_parser(
        "export",
        help="write the accepted masks of a project (TIFF)",
        description="Write one mask TIFF for each accepted label, named by the image's "
        "id, and index.csv, which tells each image by the hash of its file.",
    )
    p.add_argument("project", type=Path, metavar="PROJECT")
    p.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    p.add_argument(
        "--original-names",
        action="store_true",
        help="name masks as the images are named; such names may name patients",
    )
    p.add_argument(
        "--overwrite",
        action="store_true",
        help="write into a folder that already holds files",
    )
    p.add_argument(
        "--ones", action="store_true", help="0 and 1 in the masks, not 0 and 255"
    )
    p.add_argument(
        "--record",
        action="store_true",
        help="also write NAME.json beside each mask: where it comes from, which part "
        "was reviewed, how much the reader changed",
    )
    p.add_argument(
        "--stack",
        action="store_true",
        help="one file for each cine, a page for each accepted frame",
    )
    p.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="look here for images that are not where the project has them; --coco and "
        "--nnunet need them",
    )
    p.add_argument(
        "--coco",
        action="store_true",
        help="also write coco.json and its pictures: frames with their arteries",
    )
    p.add_argument(
        "--nnunet",
        action="store_true",
        help="also write a dataset for nnU-Net, split by patients as the project is",
    )
    p.set_defaults(run=_export)


def _add_models(commands) -> None:
    p = commands.add_parser(
        "models", help="list, show, verify, import and fetch models"
    )
    p.set_defaults(run=_models, action="list", model=None)
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


# The commands' modules load torch or napari, so each is imported when it runs.


def _demo(args: argparse.Namespace) -> int:
    from napari_cmunet.cli.demo import demo

    return demo(args.screenshot)


def _segment(args: argparse.Namespace) -> int:
    from napari_cmunet.cli.segment import SegmentJob, segment
    from napari_cmunet.cli.segment_output import EXTRAS

    return segment(
        SegmentJob(
            inputs=tuple(args.inputs),
            output=args.output,
            model=args.model,
            device=args.device,
            threshold=args.threshold,
            extras=tuple(extra for extra in EXTRAS if getattr(args, extra)),
        )
    )


def _export(args: argparse.Namespace) -> int:
    from napari_cmunet.cli import export

    return export.run(
        export.ExportJob(
            project=args.project,
            output=args.output,
            original_names=args.original_names,
            overwrite=args.overwrite,
            ones=args.ones,
            record=args.record,
            stack=args.stack,
            images=args.images,
            coco=args.coco,
            nnunet=args.nnunet,
        )
    )


def _models(args: argparse.Namespace) -> int:
    from napari_cmunet.cli import models

    if args.action == "show":
        return models.show(args.model)
    if args.action == "verify":
        return models.verify(args.model)
    if args.action in ("import", "fetch"):
        return _get_model(args)
    return models.list_all()


def _get_model(args: argparse.Namespace) -> int:
    from napari_cmunet.cli import models as get_models

    if args.action == "import":
        return get_models.import_file(args.file, args.name, force=args.force)
    if args.name is None:
        return get_models.list_published()
    return get_models.fetch(args.name, url=args.url, yes=args.yes, force=args.force)
