"""``finetune``: a better artery model from a few labelled frames."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING

from napari_cmunet.cli.label_folders import (
    LabelFolders,
    number_patients,
    read_label_folders,
)
from napari_cmunet.cli.progress import event_writer, stop_on_signals
from napari_cmunet.errors import CMUNetError, TrainingError
from napari_cmunet.model.card import CARD, name_for
from napari_cmunet.model.device import choose_device, tune_malloc
from napari_cmunet.model.registry import save_model
from napari_cmunet.project.project import Project
from napari_cmunet.project.training.finetuning import finetune_project
from napari_cmunet.training import events
from napari_cmunet.training.cluster import train_on_cluster
from napari_cmunet.training.config import FinetuneResult
from napari_cmunet.training.finetuning import (
    StartModel,
    failure_events,
    model_card,
)
from napari_cmunet.training.options import FinetuneOptions
from napari_cmunet.training.staged_finetuning import train_in_stages

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from napari_cmunet.model.card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Fine-tune on folders or on a project; returns the exit code."""
    if args.project is not None and (args.masks or args.output or args.val_masks):
        args.usage_error("with PROJECT, leave out --masks, --val-masks and -o")
    if args.project is None and not (args.images and args.masks and args.output):
        args.usage_error("give a PROJECT, or --images, --masks and -o")
    if args.project is not None and args.large_masks == "invert":
        args.usage_error("with PROJECT, --large-masks is refuse or keep")
    if args.val_masks and not getattr(args, "train", True):
        args.usage_error("with --no-training, leave out --val-masks")
    tune_malloc()
    chosen = {
        f.name: getattr(args, f.name)
        for f in fields(FinetuneOptions)
        if hasattr(args, f.name)
    }
    with (
        stop_on_signals() as should_stop,
        event_writer(args.events) as write,
        failure_events(write),
    ):
        if args.project is None:
            options = FinetuneOptions(**chosen)
            code, folder = _folders(args, options, write, should_stop), args.output
        else:
            folder, problems = finetune_project(
                args.project,
                chosen,
                write=write,
                name=args.name,
                images=args.images,
                compare_models=args.compare,
                large_masks=args.large_masks == "keep",
                should_stop=should_stop,
            )
            code = 1 if problems else 0
    if code is None or folder is None:
        print(
            "napari-cmunet: stopped before the first checkpoint; no model was saved.",
            file=sys.stderr,
        )
        return 1
    if args.events != "-":
        print(folder)
    if args.project is not None:
        # Where no window has the project open, its journal is brought up to date here.
        with suppress(CMUNetError), Project.open(args.project):
            pass
    return code


def _folders(
    args: argparse.Namespace,
    options: FinetuneOptions,
    write: Callable[[events.Event], None],
    should_stop: Callable[[], bool],
) -> int | None:
    """Fine-tune on images and masks; None if stopped before there was a model."""
    if options.partial_labels and options.validate and not args.val_masks:
        raise TrainingError(
            "Masks that leave arteries out cannot tell how good a model is. Give whole "
            "masks of other patients as --val-masks, or add --no-validation."
        )
    device = choose_device(options.device)
    start = StartModel.load(options)
    large = args.large_masks
    found = read_label_folders(args.images, args.masks, args.patients, large)
    _write_notes(found, write)
    validation = []
    if args.val_masks:
        others = read_label_folders(
            args.val_images or args.images, args.val_masks, args.patients, large
        )
        _write_notes(others, write)
        validation = others.labels
    if not found.labels:
        raise TrainingError(
            "No label could be read: --masks needs files with the stems of --images."
        )
    if (args.output / CARD).exists():
        text = f"{args.output} holds a model already. The new one will replace it."
        write(events.Note(text))
    everything = number_patients([*found.labels, *validation])
    labels = everything[: len(found.labels)]
    train = train_on_cluster if options.cluster else train_in_stages
    stages = train(
        start,
        options,
        labels,
        everything[len(labels) :],
        read=lambda at: [labels[i] for i in at],
        device=device,
        should_stop=should_stop,
    )
    # Whatever the folder is called: nothing may fail after hours of training.
    name = name_for(args.output, "finetuned")
    best: FinetuneResult | None = None
    card: ModelCard | None = None
    for item in stages:
        if not isinstance(item, FinetuneResult):
            write(item)
        elif best is None or best.dice is None or (item.dice or 0.0) >= best.dice:
            best = item
            card = model_card(name, start, options, len(found.labels), best)
            save_model(args.output, best.weights, card)
            write(events.Saved(str(args.output)))
        elif item.dice is None:
            text = "Stopped before all layers could be measured; the quick model stays."
            write(events.Note(text))
        else:
            write(events.Note("All layers were not better; the quick model stays."))
    if best is None or card is None:
        return None
    if not options.train:
        print(f"{name}: {_chosen(card)}", file=sys.stderr)
    measured = "not compared on left-out patients"
    if best.dice is not None:
        measured = (
            f"Dice {best.dice:.3f}, clDice {best.cldice:.3f} on patients that were "
            "left out"
        )
    print(f"{name}: {measured}", file=sys.stderr)
    return 1 if found.problems else 0


def _chosen(card: ModelCard) -> str:
    """What labels chose without a training."""
    text = f"threshold {card.threshold:.2f}, grid {card.preprocessing.grid}"
    if card.postprocessing:
        text += f", side branches from a margin of {card.postprocessing.twig_margin:g}"
    return text


def _write_notes(found: LabelFolders, write: Callable[[events.Event], None]) -> None:
    for text in (*found.problems, *found.notes):
        write(events.Note(text))
