"""``finetune``: a better artery model from a few labelled frames."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch

from napari_cmunet.cli.error_events import told_as_event
from napari_cmunet.cli.label_folders import LabelFolders, read_label_folders
from napari_cmunet.cli.progress_reporter import event_writer, stop_on_signals
from napari_cmunet.errors import TrainingError
from napari_cmunet.model.card import name_for
from napari_cmunet.model.device import choose_device, tune_malloc
from napari_cmunet.model.network import CMUNet, parameter_count
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.preprocess import Preprocessing
from napari_cmunet.model.registry import (
    LoadedModel,
    ModelCard,
    find_model,
    load_model,
    save_model,
)
from napari_cmunet.training import events
from napari_cmunet.training.config import WISE_FT_PRIOR, FinetuneConfig, FinetuneResult
from napari_cmunet.training.cross_validation import (
    FEW_PATIENTS,
    cross_validated,
    split_by_patient,
)
from napari_cmunet.training.dataset import phantom_labels, prepare_labels
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.pseudo_labels import completed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from napari_cmunet.training.cross_validation import Score
    from napari_cmunet.training.dataset import Label

RANDOM = "random"


@dataclass(frozen=True)
class FinetuneJob:
    """One call of the command.

    Parameters
    ----------
    images, masks : tuples of Path
        Folders or files, paired by stem.
    output : Path
        The new model's folder.
    start : str
        Model name or folder, or ``random``.
    val_images, val_masks : tuples of Path
        Other patients' frames to validate on. Without them some of the patients
        are held out, or each in turn if they are fewer than eight.
    validate : bool
        False: learn from every label and keep the last averaged weights.
    patients : Path or None
        CSV with the columns ``stem`` and ``patient``.
    phantoms : int
        Synthetic frames to mix in.
    partial_labels : bool
        The masks leave arteries out: the start completes them first.
    device, events : str
        ``events`` is a file, ``-`` for stdout, or empty.
    width, grid : int or None
        For a random start; otherwise the start's own width, and its grid unless
        another is given.
    config : FinetuneConfig
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    output: Path
    start: str
    config: FinetuneConfig
    val_images: tuple[Path, ...] = ()
    val_masks: tuple[Path, ...] = ()
    validate: bool = True
    patients: Path | None = None
    phantoms: int = 0
    partial_labels: bool = False
    device: str = "auto"
    events: str = ""
    width: int | None = None
    grid: int | None = None
    description: str = ""
    data: str = ""
    licence: str = ""


def run(job: FinetuneJob) -> int:
    """Fine-tune and write the model; returns the exit code."""
    tune_malloc()
    if job.partial_labels and job.validate and not job.val_masks:
        raise TrainingError(
            "Masks that leave arteries out cannot tell how good a model is. Give whole "
            "masks of other patients as --val-masks, or add --no-validation."
        )
    device = choose_device(job.device)
    start = Start.make(job.start, job.config.seed, job.width, job.grid)
    with (
        stop_on_signals() as should_stop,
        event_writer(job.events) as write,
        told_as_event(write),
    ):
        told = read_label_folders(job.images, job.masks, job.patients)
        validation_labels: list[Label] = []
        _tell(told, write)
        if job.val_masks:
            others = read_label_folders(
                job.val_images or job.images, job.val_masks, job.patients
            )
            _tell(others, write)
            validation_labels = others.labels
        if not told.labels:
            raise TrainingError(
                "No label could be read: --masks needs files with the stems of "
                "--images."
            )
        result = train(
            job, start, told.labels, validation_labels, device, write, should_stop
        )
        if result is None:
            print("napari-cmunet: stopped before there was a model.", file=sys.stderr)
            return 1
        card = card_of(job, start, len(told.labels), result)
        card = save_model(job.output, result.weights, card)
        write(events.Saved(str(job.output)))
    if job.events != "-":
        print(job.output)
    if result.dice is not None:
        print(
            f"{card.name}: validation Dice {result.dice:.3f}, clDice "
            f"{result.cldice:.3f} at step {result.best_step}",
            file=sys.stderr,
        )
    return 1 if told.problems else 0


def train(
    job: FinetuneJob,
    start: Start,
    labels: Iterable[Label],
    validation_labels: Iterable[Label],
    device: torch.device,
    write: Callable[[events.Event], None],
    should_stop: Callable[[], bool],
    *,
    few: int = FEW_PATIENTS,
    score: Score | None = None,
) -> FinetuneResult | None:
    """Train from labels that are read one by one; None if stopped too early.

    Without ``validation_labels`` (an empty list) some patients are held out, or all of
    them in turn where they are fewer than ``few``. ``score`` is what
    :func:`napari_cmunet.training.cross_validation.cross_validated` takes.
    """
    completing = None
    if job.partial_labels:
        completing = start.predictor(device)
        labels = completed(labels, completing)
        write(events.Note("The model to start from completes the masks."))
    frames = prepare_labels(labels, start.preprocessing)
    for notice in completing.notices if completing else []:
        write(events.Note(notice))
    config = replace(job.config, wise_ft_prior=start.keep)
    if start.keep:
        write(
            events.Note(
                f"The start stays in the new model as if it were {start.keep:.0f} of "
                "the labels."
            )
        )
    auxiliary = None
    if job.phantoms:
        write(events.Note(f"Drawing {job.phantoms} synthetic frames."))
        auxiliary = prepare_labels(
            phantom_labels(job.phantoms, job.config.seed), start.preprocessing
        )
    validation = None
    learned = frames
    if validation_labels:
        validation = prepare_labels(validation_labels, start.preprocessing)
    elif job.validate:
        n_patients = len(set(frames.patients))
        at, held_out = split_by_patient(frames.patients)
        if n_patients < 2:
            write(
                events.Note(
                    "All labels are of one patient: how well the model does on others "
                    "cannot be known. It is trained without validation."
                )
            )
        elif n_patients < few or not held_out or not at:
            training = cross_validated(
                start.network,
                frames,
                config,
                auxiliary=auxiliary,
                device=device,
                receipt=start.receipt,
                score=score,
                should_stop=should_stop,
            )
            return yield_to(training, write)
        else:
            learned, validation = frames.subset(at), frames.subset(held_out)
    training = finetune(
        start.network(),
        learned,
        config,
        validation=validation,
        auxiliary=auxiliary,
        device=device,
        receipt=start.receipt,
        should_stop=should_stop,
    )
    return yield_to(training, write)


def yield_to(training, write):
    """Drive a training generator, passing on its events; returns its result."""
    while True:
        try:
            write(next(training))
        except StopIteration as end:
            return end.value


@dataclass(frozen=True)
class Start:
    """Where training starts: makes the network anew for each fold."""

    model: LoadedModel | None
    width: int
    preprocessing: Preprocessing
    receipt: str
    seed: int

    @classmethod
    def make(
        cls,
        name: str | Path,
        seed: int,
        width: int | None = None,
        grid: int | None = None,
    ) -> Start:
        """Load the model to start from; raises ModelError, TrainingError."""
        if name == RANDOM:
            grid = grid or Preprocessing().grid
            width = width or 24
            receipt = f"random weights, width {width}, seed {seed}"
            return cls(None, width, Preprocessing(grid=grid), receipt, seed)
        model = load_model(find_model(name))
        if width and width != model.card.width:
            raise TrainingError(
                f"--width {width} does not fit: '{model.card.name}' has width "
                f"{model.card.width}. Leave --width out."
            )
        preprocessing = model.preprocessing
        if grid:
            preprocessing = replace(preprocessing, grid=grid)
        return cls(model, model.card.width, preprocessing, str(model.report), seed)

    @property
    def segments(self) -> bool:
        """Whether it finds arteries as it is."""
        return self.model is not None and self.model.report.head_loaded

    def predictor(self, device: torch.device) -> Predictor:
        """For predicting with the start itself; TrainingError if it is random."""
        if self.model is None:
            raise TrainingError(
                "Masks that leave arteries out are completed by the model that the "
                "training starts from, and random weights know none. Choose another "
                "--start."
            )
        return Predictor(self.model, device)

    @property
    def keep(self) -> float:
        """For how many labels it counts in the new model."""
        return WISE_FT_PRIOR if self.segments else 0.0

    def threshold(self, kept: float) -> float:
        """Where to cut what holds a share of it: as much nearer to its own.

        After one label from ``cmunet-artery`` (0.7; two thirds are kept), Dice was
        0.821 at 0.5, 0.826 at 0.6 and 0.823 at 0.7.
        """
        own = ModelCard.threshold
        if self.model is None:
            return own
        return round(own + kept * (self.model.card.threshold - own), 2)

    def network(self) -> CMUNet:
        """The network with the weights to start from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = CMUNet(self.width)
        if self.model is not None:
            network.load_state_dict(self.model.network.state_dict())
        return network


def card_of(
    job: FinetuneJob, start: Start, labels: int, result: FinetuneResult
) -> ModelCard:
    """The card of the new model, but for the hash of its weights."""
    metrics = {}
    if result.dice is not None:
        metrics["validation"] = {
            "dice": round(result.dice, 4),
            "cldice": round(result.cldice or 0.0, 4),
            "protocol": "patients held out of this training, on the network's grid; "
            "used to choose the step",
        }
    parent = start.model.card if start.model else None
    description = f"Fine-tuned on {labels} labels."
    if result.wise_ft_alpha:
        description += (
            f" {result.wise_ft_alpha:.0%} of it is the model it started from."
        )
    return ModelCard(
        # Whatever the folder is called: nothing may fail after hours of training.
        name=name_for(job.output, "finetuned"),
        kind="artery",
        width=start.width,
        parameters=parameter_count(CMUNet(start.width)),
        threshold=start.threshold(result.wise_ft_alpha),
        preprocessing=asdict(start.preprocessing),
        description=job.description or description,
        parent=parent.name if parent else None,
        parent_sha256=parent.sha256 if parent else None,
        data=job.data or "the user's own labels",
        licence=job.licence,
        labels=labels,
        metrics=metrics,
        created=datetime.now(UTC).date().isoformat(),
    )


def _tell(found: LabelFolders, write: Callable[[events.Event], None]) -> None:
    for text in (*found.problems, *found.notes):
        write(events.Note(text))
