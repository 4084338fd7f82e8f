"""The command line: ``napari-cmunet`` and ``python -m napari_cmunet``.

Exit 0: all done. 1: some input failed, every other was done, each failure named on
stderr. 2: bad usage, an unknown model among it. Nothing but results goes to stdout.
Modules of commands that load torch or napari are imported when they run.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet import __version__
from napari_cmunet.cli import (
    agreement,
    export,
    history,
    import_masks,
    measure,
    models,
    pacs,
)
from napari_cmunet.cli.arguments import (
    INVERT,
    POSITIVE,
    PROBABILITY,
    add_device_option,
    add_events,
    add_fields,
    add_flags,
    add_json,
    add_label_options,
    add_model_options,
    add_output,
)
from napari_cmunet.errors import CMUNetError, UnknownModelError, UsageError
from napari_cmunet.pretraining.config import PretrainConfig
from napari_cmunet.training.options import FinetuneOptions

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Without ``argv`` that of the program, which is expected to end then.
    """
    try:
        return _run(argv)
    finally:
        if argv is None:
            # Another Ctrl-C would only break off what torch does at the exit.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(argv: Sequence[str] | None) -> int:
    _take_any_file_name()
    args = build_parser().parse_args(argv)
    try:
        command = importlib.import_module(f"napari_cmunet.cli.{args.command}")
        return command.run(args)
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


# -- commands and their options ----------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """All commands; ``args.command`` is the name of the module that runs it."""
    parser = argparse.ArgumentParser(
        prog="napari-cmunet",
        description="Coronary artery segmentation with CM-UNet. Research use only: "
        "not a medical device.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        _add_demo,
        _add_segment,
        _add_pretrain,
        _add_finetune,
        _add_evaluate,
        measure.add_parser,
        export.add_parser,
        import_masks.add_parser,
        history.add_parser,
        agreement.add_parser,
        models.add_parser,
        pacs.add_parser,
        _add_bench,
    ):
        add(commands)
    return parser


def _add_demo(commands: Any) -> None:
    p = commands.add_parser(
        "demo", help="open napari on a synthetic cine, pre-segmented"
    )
    text = "save the window's picture (PNG) and exit"
    p.add_argument("--screenshot", type=Path, metavar="FILE", help=text)
    p.set_defaults(command="demo")


def _add_segment(commands: Any) -> None:
    p = commands.add_parser(
        "segment",
        help="write an artery mask (TIFF) for each image",
        description="Write one mask TIFF for each image: uint8, 0 background, 255 "
        "artery, on the image's own grid. Folders are walked, and the masks lie in "
        "folders of the same names; where an input is a folder, summary.csv lists what "
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
    add_output(
        p,
        "folder for the masks; what an earlier run has made of the same image in the "
        "same way is kept, other masks are replaced",
    )
    add_model_options(p)
    p.add_argument(
        "--threshold",
        type=PROBABILITY,
        metavar="T",
        help="artery from this probability on (default: the model's own)",
    )
    add_flags(
        p,
        INVERT,
        ("--probability", "also write NAME_probability.tif (uint8, 255 is certain)"),
        (
            "--probability-float32",
            "also write NAME_probability_float32.tif (0 to 1, not rounded)",
        ),
        (
            "--record",
            "also write NAME.json: where the mask comes from, and what it holds",
        ),
        (
            "--overlay",
            "also write NAME_overlay.png: the mask over the frame best filled",
        ),
        (
            "--dicom-seg",
            "of DICOM images, also write NAME_seg.dcm, a DICOM Segmentation",
        ),
        (
            "--dicom-sc",
            "of DICOM images, also write NAME_sc.dcm, a Secondary Capture with the "
            "contours burnt in",
        ),
    )
    add_fields(p, FinetuneOptions, only=("cluster", "plain_tcp"))
    p.set_defaults(command="segment", cluster="", plain_tcp=False)


def _add_pretrain(commands: Any) -> None:
    p = commands.add_parser(
        "pretrain",
        help="self-supervised pre-training on images without labels",
        description="Masked reconstruction and momentum contrast after CM-UNet. "
        "Several GPUs: torchrun --nproc-per-node N -m -- napari_cmunet pretrain ..., "
        "several machines too if DIR is one folder for all. With --resume, options "
        "left out are those of the run.",
    )
    p.add_argument("inputs", nargs="+", type=Path, metavar="IMAGES")
    add_output(p, "the new model's folder; DIR/run holds the checkpoint")
    text = "go on where a run in DIR was interrupted; begin if there is none"
    add_flags(p, ("--resume", text), INVERT)
    add_fields(p, PretrainConfig)
    add_device_option(p)
    p.add_argument(
        "--workers", type=int, metavar="N", help="processes that make phantoms"
    )
    p.add_argument("--data", default="", help="what the images are, for the card")
    p.add_argument("--licence", default="", help="of the weights, for the card")
    add_events(p)
    p.set_defaults(command="pretrain")


def _add_finetune(commands: Any) -> None:
    p = commands.add_parser(
        "finetune",
        help="learn from labelled frames",
        description="Few-shot fine-tuning from the accepted labels of a project, or "
        "from folders of images and masks, paired by stem. Ctrl-C stops and keeps the "
        "best model so far.",
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
    p.add_argument("--val-images", nargs="+", type=Path, default=[], metavar="DIR")
    p.add_argument("--val-masks", nargs="+", type=Path, default=[], metavar="DIR")
    add_label_options(p)
    add_fields(p, FinetuneOptions)
    add_events(p)
    p.add_argument(
        "--no-comparison",
        dest="compare",
        action="store_false",
        help="with PROJECT: do not measure the new model beside the one in use",
    )
    p.set_defaults(command="finetune", usage_error=p.error)


def _add_evaluate(commands: Any) -> None:
    p = commands.add_parser(
        "evaluate",
        help="Dice, clDice, HD95, precision, recall of a model",
        description="Compare a model's masks with the truth, each on the image's own "
        "grid; means with 95 % intervals from three patients on, by patient where "
        "--patients is given.",
    )
    p.add_argument("--images", nargs="+", required=True, type=Path, metavar="DIR")
    p.add_argument("--masks", nargs="+", required=True, type=Path, metavar="DIR")
    add_model_options(p)
    p.add_argument("--threshold", type=PROBABILITY, metavar="T")
    add_label_options(p)
    add_json(p)
    p.add_argument("--worst", type=Path, metavar="PNG", help="picture of the worst")
    p.set_defaults(command="evaluate")


def _add_bench(commands: Any) -> None:
    p = commands.add_parser(
        "bench",
        help="speed of this machine, compared with the published code",
        description="Measure how fast this machine segments frames and cines and "
        "learns from labels, beside the published network run as its authors do. On "
        "synthetic angiograms; takes about a quarter of an hour on a small CPU.",
    )
    add_model_options(p)
    p.add_argument(
        "--minutes",
        type=POSITIVE,
        default=3.0,
        metavar="M",
        help="budget of each of the four trainings (default: 3)",
    )
    add_json(p)
    p.set_defaults(command="bench")
