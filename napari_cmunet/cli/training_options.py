"""Options of the commands that train and measure: all but segment and export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.cli.option_types import (
    above,
    add_device_option,
    add_model_options,
    positive,
    probability,
)
from napari_cmunet.model.registry import START_MODEL

if TYPE_CHECKING:
    import argparse


def add_pretrain(commands) -> None:
    p = commands.add_parser(
        "pretrain",
        help="self-supervised pre-training on images without labels",
        description="Masked reconstruction and momentum contrast after CM-UNet. "
        "Several GPUs: torchrun --nproc-per-node N -m -- napari_cmunet pretrain ..., "
        "several machines too if DIR is one folder for all. With --resume, options "
        "left out are those of the run.",
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
        (
            "--consistency-weight",
            float,
            "with phantoms: of segmenting masked frames as whole ones (default: 0)",
        ),
        (
            "--copy-paste",
            float,
            "share of the phantoms that is drawn into real frames (default: 0)",
        ),
        ("--seed", int, "default: 0"),
    ):
        p.add_argument(option, type=above(kind), metavar="N", help=text)
    p.add_argument(
        "--start",
        metavar="NAME|DIR",
        help="go on from this model's weights instead of random ones",
    )
    add_device_option(p)
    p.add_argument(
        "--workers", type=int, metavar="N", help="processes that make phantoms"
    )
    p.add_argument("--data", default="", help="what the images are, for the card")
    p.add_argument("--licence", default="", help="of the weights, for the card")
    p.add_argument("--events", metavar="FILE|-", help="write JSON events, one a line")
    p.set_defaults(run=_pretrain)


def add_finetune(commands) -> None:
    p = commands.add_parser(
        "finetune",
        help="learn from labelled frames",
        description="Few-shot fine-tuning from the accepted labels of a project, or from "
        "folders of images and masks, paired by stem. Ctrl-C stops and keeps the best "
        "model so far.",
    )
    p.add_argument(
        "project",
        nargs="?",
        type=Path,
        metavar="PROJECT",
        help="the project's folder; the model is added to it",
    )
    p.add_argument(
        "--images",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="without PROJECT: frames to learn from; with it: where its images lie now",
    )
    p.add_argument(
        "--masks",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="without PROJECT: their masks, by the same names",
    )
    p.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="new model, without PROJECT"
    )
    p.add_argument(
        "--name", default="", metavar="NAME", help="of the new model, with PROJECT"
    )
    p.add_argument(
        "--start",
        metavar="NAME|DIR|random|current",
        help=f"weights to start from (default: {START_MODEL}, or as the project says)",
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
    p.add_argument("--minutes", type=positive, metavar="M", help="time budget")
    p.add_argument("--steps", type=int, metavar="N", help="default: by labels")
    p.add_argument(
        "--batch",
        type=int,
        default=0,
        metavar="N",
        help="views in a step (default: 8, or 4 where --minutes is short)",
    )
    p.add_argument(
        "--learning-rate",
        type=positive,
        metavar="R",
        help="default: 0.0005, for --start random 0.002",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--phantoms", type=int, default=0, metavar="N", help="synthetic frames to add"
    )
    p.add_argument(
        "--partial-labels",
        action="store_true",
        help="the masks leave out arteries: the start completes them",
    )
    p.add_argument("--width", type=int, metavar="N", help="for --start random")
    p.add_argument("--grid", type=int, metavar="PX", help="longer side as fed")
    add_device_option(p)
    p.add_argument(
        "--events", default="", metavar="FILE|-", help="progress as JSON lines"
    )
    p.add_argument(
        "--no-comparison",
        dest="compare",
        action="store_false",
        help="with PROJECT: do not measure the new model beside the one in use",
    )
    p.add_argument(
        "--attached",
        action="store_true",
        help="with PROJECT, for a program that starts this one: a line 'stop' on stdin "
        "stops and keeps the best, the end of stdin cancels; runs at low priority",
    )
    for name in ("description", "data", "licence"):
        p.add_argument(f"--{name}", default="", metavar="TEXT", help="for the card")
    p.set_defaults(run=_finetune, usage_error=p.error)


def add_evaluate(commands) -> None:
    p = commands.add_parser(
        "evaluate",
        help="Dice, clDice, HD95, precision, recall of a model",
        description="Compare a model's masks with the truth, each on the image's own "
        "grid; means with 95 % intervals, by patient where --patients is given.",
    )
    p.add_argument("--images", nargs="+", required=True, type=Path, metavar="DIR")
    p.add_argument("--masks", nargs="+", required=True, type=Path, metavar="DIR")
    add_model_options(p)
    p.add_argument("--threshold", type=probability, metavar="T")
    p.add_argument(
        "--patients", type=Path, metavar="CSV", help="columns 'stem' and 'patient'"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    p.add_argument("--worst", type=Path, metavar="PNG", help="picture of the worst")
    p.set_defaults(run=_evaluate)


def add_bench(commands) -> None:
    p = commands.add_parser(
        "bench",
        help="this machine's speed, beside the paper's way",
        description="Measure how fast this machine segments frames and cines and "
        "learns from labels, beside the published network run as its authors do. On "
        "synthetic angiograms; takes about a quarter of an hour on a small CPU.",
    )
    add_model_options(p)
    p.add_argument(
        "--minutes",
        type=positive,
        default=3.0,
        metavar="M",
        help="budget of each of the four trainings (default: 3)",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    p.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> int:
    from napari_cmunet.cli.bench import BenchJob, bench

    return bench(
        BenchJob(
            model=args.model,
            start=START_MODEL,
            device=args.device,
            minutes=args.minutes,
            json=args.json,
        )
    )


def _pretrain(args: argparse.Namespace) -> int:
    from napari_cmunet.cli.pretrain import PRETRAIN_OPTIONS, PretrainJob, pretrain

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
    if args.project is not None and (args.masks or args.output or args.val_masks):
        args.usage_error("with PROJECT, leave out --masks, --val-masks and -o")
    if args.project is None and not (args.images and args.masks and args.output):
        args.usage_error("give a PROJECT, or --images, --masks and -o")
    from napari_cmunet.cli.finetune import RANDOM, FinetuneJob, run
    from napari_cmunet.training.config import RANDOM_RATE, FinetuneConfig

    usual = RANDOM_RATE if args.start == RANDOM else FinetuneConfig.learning_rate
    job = FinetuneJob(
        images=tuple(args.images),
        masks=tuple(args.masks),
        output=args.output or Path(),
        start=args.start or ("" if args.project else START_MODEL),
        config=FinetuneConfig(
            steps=args.steps or 0,
            batch=args.batch,
            learning_rate=args.learning_rate or usual,
            minutes=args.minutes,
            seed=args.seed,
        ),
        val_images=tuple(args.val_images),
        val_masks=tuple(args.val_masks),
        validate=args.validate,
        patients=args.patients,
        phantoms=args.phantoms,
        partial_labels=args.partial_labels,
        device=args.device,
        events=args.events,
        width=args.width,
        grid=args.grid,
        description=args.description,
        data=args.data,
        licence=args.licence,
    )
    if args.project is None:
        return run(job)
    from napari_cmunet.cli import finetune_project as finetune_project

    return finetune_project.run(
        finetune_project.ProjectJob(
            args.project,
            job,
            args.name,
            tuple(args.images),
            attached=args.attached,
            compare=args.compare,
        )
    )


def _evaluate(args: argparse.Namespace) -> int:
    from napari_cmunet.cli.evaluate import EvaluateJob, evaluate

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
