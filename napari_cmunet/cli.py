"""The command line: ``napari-cmunet`` and ``python -m napari_cmunet``.

Exit 0: all done. 1: some input failed, every other was done, each failure named on
stderr. 2: bad usage, an unknown model among it. Nothing but results goes to stdout.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet import __version__
from napari_cmunet.core.models import DEFAULT_MODEL, START_MODEL
from napari_cmunet.errors import CMUNetError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES = ("auto", "cpu", "cuda", "mps")


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
    except KeyboardInterrupt:
        print("napari-cmunet: stopped; finished files are whole.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head`
        sys.stderr.close()
        return 1


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
    _add_pretrain(commands)
    _add_finetune(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_models(commands)
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
        "artery, on the image's own grid. Folders are walked.",
    )
    p.add_argument("inputs", nargs="+", type=Path, metavar="INPUT")
    p.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    _model_options(p)
    p.add_argument(
        "--threshold",
        type=_probability,
        metavar="T",
        help="artery from this probability on (default: the model's own)",
    )
    p.add_argument(
        "--probability",
        action="store_true",
        help="also write NAME_probability.tif (uint8, 255 is certain)",
    )
    p.set_defaults(run=_segment)


def _add_pretrain(commands) -> None:
    p = commands.add_parser(
        "pretrain",
        help="self-supervised pre-training on images without labels",
        description="Masked reconstruction and momentum contrast after CM-UNet. "
        "Several GPUs or machines: torchrun --nproc-per-node N -m napari_cmunet "
        "pretrain ... With --resume, options left out are those of the run.",
    )
    p.add_argument("inputs", nargs="+", type=Path, metavar="IMAGES")
    p.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="the new model's folder; DIR/run holds the checkpoint",
    )
    p.add_argument(
        "--resume",
        action="store_true",
        help="go on where a run in DIR was interrupted; begin if there is none",
    )
    for option, kind, text in (
        ("--width", int, "channels of the first level (default: 24)"),
        ("--epochs", int, "passes over the images (default: 300)"),
        ("--minutes", float, "end after this much training, schedules fitted to it"),
        ("--batch", int, "views in a step, all processes together (default: 16)"),
        ("--grid", int, "longer side of the prepared frames (default: 256)"),
        ("--crop", int, "side of the views (default: the whole grid)"),
        ("--phantoms", int, "synthetic frames with known masks to learn from too"),
        ("--learning-rate", float, "peak for batches of 16 (default: 0.001)"),
        ("--seed", int, "default: 0"),
    ):
        p.add_argument(option, type=_above(kind), metavar="N", help=text)
    p.add_argument("--device", choices=DEVICES, default="auto")
    p.add_argument(
        "--workers", type=int, metavar="N", help="processes that make phantoms"
    )
    p.add_argument("--data", default="", help="what the images are, for the card")
    p.add_argument("--licence", default="", help="of the weights, for the card")
    p.add_argument("--events", metavar="FILE|-", help="write JSON events, one a line")
    p.set_defaults(run=_pretrain)


def _add_finetune(commands) -> None:
    p = commands.add_parser(
        "finetune",
        help="learn from labelled frames",
        description="Few-shot fine-tuning from the accepted labels of a study, or from "
        "folders of images and masks, paired by stem. Ctrl-C stops and keeps the best "
        "model so far.",
    )
    p.add_argument(
        "study",
        nargs="?",
        type=Path,
        metavar="STUDY",
        help="the study's folder; the model is added to it",
    )
    p.add_argument(
        "--images",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="with STUDY: where its images lie now",
    )
    p.add_argument("--masks", nargs="+", default=[], type=Path, metavar="DIR")
    p.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="new model, without STUDY"
    )
    p.add_argument(
        "--name", default="", metavar="NAME", help="of the new model, with STUDY"
    )
    p.add_argument(
        "--start",
        metavar="NAME|DIR|random|current",
        help=f"weights to start from (default: {START_MODEL}, or as the study says)",
    )
    p.add_argument("--val-images", nargs="+", type=Path, default=[], metavar="DIR")
    p.add_argument("--val-masks", nargs="+", type=Path, default=[], metavar="DIR")
    p.add_argument(
        "--no-validation",
        dest="validate",
        action="store_false",
        help="learn from every label; keep the last averaged weights",
    )
    p.add_argument(
        "--patients", type=Path, metavar="CSV", help="columns 'stem' and 'patient'"
    )
    p.add_argument("--minutes", type=_positive, metavar="M", help="time budget")
    p.add_argument("--steps", type=int, metavar="N", help="default: by labels")
    p.add_argument("--batch", type=int, default=8, metavar="N")
    p.add_argument("--learning-rate", type=_positive, default=2e-3, metavar="R")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--phantoms", type=int, default=0, metavar="N", help="synthetic frames to add"
    )
    p.add_argument(
        "--partial-labels",
        action="store_true",
        help="the masks leave out arteries: unlabelled is unknown, not background",
    )
    p.add_argument("--width", type=int, metavar="N", help="for --start random")
    p.add_argument("--grid", type=int, metavar="PX", help="longer side as fed")
    p.add_argument("--device", choices=DEVICES, default="auto")
    p.add_argument(
        "--events", default="", metavar="FILE|-", help="progress as JSON lines"
    )
    for name in ("description", "data", "licence"):
        p.add_argument(f"--{name}", default="", metavar="TEXT", help="for the card")
    p.set_defaults(run=_finetune, usage_error=p.error)


def _add_evaluate(commands) -> None:
    p = commands.add_parser(
        "evaluate",
        help="Dice, clDice, HD95, precision, recall of a model",
        description="Compare a model's masks with the truth, each on the image's own "
        "grid; means with 95 % intervals, by patient where --patients is given.",
    )
    p.add_argument("--images", nargs="+", required=True, type=Path, metavar="DIR")
    p.add_argument("--masks", nargs="+", required=True, type=Path, metavar="DIR")
    _model_options(p)
    p.add_argument("--threshold", type=_probability, metavar="T")
    p.add_argument(
        "--patients", type=Path, metavar="CSV", help="columns 'stem' and 'patient'"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    p.add_argument("--worst", type=Path, metavar="PNG", help="picture of the worst")
    p.set_defaults(run=_evaluate)


def _add_export(commands) -> None:
    p = commands.add_parser(
        "export",
        help="write the accepted masks of a study (TIFF)",
        description="Write one mask TIFF for each accepted label, named by the image's "
        "id, and index.csv, which tells each image by the hash of its file.",
    )
    p.add_argument("study", type=Path, metavar="STUDY")
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


def _model_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help=f"default: {DEFAULT_MODEL}",
    )
    p.add_argument("--device", choices=DEVICES, default="auto")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


def _above(kind):
    """A number of this type that is not negative."""

    def parse(text: str):
        value = kind(text)
        if value < 0:
            raise argparse.ArgumentTypeError(f"{text!r} is negative")
        return value

    parse.__name__ = kind.__name__
    return parse


# The commands' modules load torch or napari, so each is imported when it runs.


def _demo(args: argparse.Namespace) -> int:
    from napari_cmunet.commands.demo import demo

    return demo(args.screenshot)


def _segment(args: argparse.Namespace) -> int:
    from napari_cmunet.commands.segment import SegmentJob, segment

    return segment(
        SegmentJob(
            inputs=tuple(args.inputs),
            output=args.output,
            model=args.model,
            device=args.device,
            threshold=args.threshold,
            probability=args.probability,
        )
    )


def _pretrain(args: argparse.Namespace) -> int:
    from napari_cmunet.commands.pretrain import PRETRAIN_OPTIONS, PretrainJob, pretrain

    options = {name: getattr(args, name) for name in PRETRAIN_OPTIONS}
    return pretrain(
        PretrainJob(
            inputs=tuple(args.inputs),
            output=args.output,
            options={k: v for k, v in options.items() if v is not None},
            resume=args.resume,
            device=args.device,
            workers=args.workers,
            about=args.data,
            licence=args.licence,
            events=args.events,
        )
    )


def _finetune(args: argparse.Namespace) -> int:
    if args.study is not None and (args.masks or args.output or args.val_masks):
        args.usage_error("with STUDY, leave out --masks, --val-masks and -o")
    if args.study is None and not (args.images and args.masks and args.output):
        args.usage_error("give a STUDY, or --images, --masks and -o")
    from napari_cmunet.commands.finetune import FinetuneJob, run
    from napari_cmunet.core.finetune import FinetuneConfig

    job = FinetuneJob(
        images=tuple(args.images),
        masks=tuple(args.masks),
        output=args.output or Path(),
        start=args.start or ("" if args.study else START_MODEL),
        config=FinetuneConfig(
            steps=args.steps or 0,
            batch=args.batch,
            learning_rate=args.learning_rate,
            partial_labels=args.partial_labels,
            minutes=args.minutes,
            seed=args.seed,
        ),
        val_images=tuple(args.val_images),
        val_masks=tuple(args.val_masks),
        validate=args.validate,
        patients=args.patients,
        phantoms=args.phantoms,
        device=args.device,
        events=args.events,
        width=args.width,
        grid=args.grid,
        description=args.description,
        data=args.data,
        licence=args.licence,
    )
    if args.study is None:
        return run(job)
    from napari_cmunet.commands import finetune_study

    return finetune_study.run(
        finetune_study.StudyJob(args.study, job, args.name, tuple(args.images))
    )


def _export(args: argparse.Namespace) -> int:
    from napari_cmunet.commands import export

    return export.run(
        export.ExportJob(
            study=args.study,
            output=args.output,
            original_names=args.original_names,
            overwrite=args.overwrite,
            ones=args.ones,
        )
    )


def _evaluate(args: argparse.Namespace) -> int:
    from napari_cmunet.commands.evaluate import EvaluateJob, evaluate

    return evaluate(
        EvaluateJob(
            images=tuple(args.images),
            masks=tuple(args.masks),
            model=args.model,
            device=args.device,
            threshold=args.threshold,
            patients=args.patients,
            json=args.json,
            worst=args.worst,
        )
    )


def _models(args: argparse.Namespace) -> int:
    from napari_cmunet.commands import models

    if args.action == "show":
        return models.show(args.model)
    if args.action == "verify":
        return models.verify(args.model)
    if args.action in ("import", "fetch"):
        return _get_model(args)
    return models.list_all()


def _get_model(args: argparse.Namespace) -> int:
    from napari_cmunet.commands import get_models

    if args.action == "import":
        return get_models.import_file(args.file, args.name, force=args.force)
    if args.name is None:
        return get_models.list_published()
    return get_models.fetch(args.name, url=args.url, yes=args.yes, force=args.force)
