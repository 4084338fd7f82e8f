"""Fine-tuning from labels: the start model, the training and the new model's card."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch

from napari_cmunet.errors import (
    Cancelled,
    CMUNetError,
    NotANumberError,
    OutOfMemoryError,
    TrainingError,
    UsageError,
    WriteError,
)
from napari_cmunet.model.card import ModelCard, Preprocessing
from napari_cmunet.model.device import is_out_of_memory
from napari_cmunet.model.network import CMUNet, parameter_count
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import (
    DEFAULT_MODEL,
    START_MODEL,
    LoadedModel,
    find_model,
    load_model,
)
from napari_cmunet.model.threshold import log_odds, mask_at
from napari_cmunet.training import events
from napari_cmunet.training.config import (
    BATCH,
    RANDOM_RATE,
    WISE_FT_PRIOR,
    FinetuneConfig,
    FinetuneResult,
)
from napari_cmunet.training.dataset import phantom_labels, prepare_labels
from napari_cmunet.training.options import RANDOM
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    from napari_cmunet.model.card import Postprocessing
    from napari_cmunet.training.dataset import Label, LabelledFrames
    from napari_cmunet.training.options import FinetuneOptions

CONFIDENT_ARTERY, CONFIDENT_BACKGROUND = 0.7, 0.3
"""Probabilities from which, and below which, the model is confident."""

NOTICEABLE_MARGIN = 0.5
"""Change of the log-odds from which twigs are kept that a new card mentions."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class StartModel:
    """The model that training starts from; makes the network anew for each fold."""

    model: LoadedModel | None
    width: int
    preprocessing: Preprocessing
    receipt: str
    seed: int

    @classmethod
    def load(cls, options: FinetuneOptions, folder: Path | None = None) -> StartModel:
        """Load the start of these options, or the model of a folder in its place.

        Raises
        ------
        ModelError
        TrainingError
            If the model is none of arteries, or of another width than asked for.
        """
        if folder is None and options.start == RANDOM:
            preprocessing = Preprocessing(grid=options.grid or Preprocessing().grid)
            width = options.width or 24
            receipt = f"random weights, width {width}, seed {options.seed}"
            return cls(None, width, preprocessing, receipt, options.seed)
        model = load_model(folder or find_model(options.start))
        if model.card.kind not in ("ssl", "artery"):
            raise TrainingError(
                f"'{model.card.name}' does not start a training: it is no model of "
                f"arteries. Start from {START_MODEL} or {DEFAULT_MODEL}."
            )
        width = model.card.width
        if options.width and options.width != width:
            raise TrainingError(
                f"--width {options.width} does not fit: '{model.card.name}' has width "
                f"{width}. Leave --width out."
            )
        preprocessing = model.card.preprocessing
        if options.grid:
            preprocessing = replace(preprocessing, grid=options.grid)
        return cls(model, width, preprocessing, str(model.report), options.seed)

    @property
    def segments(self) -> bool:
        """Whether it segments arteries as it is."""
        return self.model is not None and self.model.report.head_loaded

    def predictor(self, device: torch.device) -> Predictor:
        """Predict with the start itself; TrainingError for random weights."""
        if self.model is None:
            raise TrainingError(
                "Masks that leave arteries out are completed by the model that the "
                "training starts from, and random weights know none. Choose another "
                "--start."
            )
        return Predictor(self.model, device)

    @property
    def wise_ft_prior(self) -> float:
        """Number of labels that the start counts for in the new model."""
        return WISE_FT_PRIOR if self.segments else 0.0

    @property
    def postprocessing(self) -> Postprocessing | None:
        """How its predictions are cleaned up; None if they are not."""
        return self.model.card.postprocessing if self.model else None

    def threshold(self, alpha: float) -> float:
        """Threshold of a new model that holds a share ``alpha`` of the start."""
        own = ModelCard.threshold
        if self.model is None:
            return own
        return round(own + alpha * (self.model.card.threshold - own), 2)

    def on_grid(self, grid: int) -> StartModel:
        """The same weights, fed with frames of another longer side."""
        return replace(self, preprocessing=replace(self.preprocessing, grid=grid))

    def network(self) -> CMUNet:
        """Return a new network with the weights to start from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = CMUNet(self.width)
        if self.model is not None:
            network.load_state_dict(self.model.network.state_dict())
        return network


def prepare(
    start: StartModel,
    options: FinetuneOptions,
    labels: Iterable[Label],
    device: torch.device,
) -> Generator[events.Event, None, tuple[LabelledFrames, LabelledFrames | None]]:
    """Prepare the labels, and synthetic frames beside them if wanted."""
    pseudo_labels = None
    if options.partial_labels:
        pseudo_labels = start.predictor(device)
        labels = completed(labels, pseudo_labels)
        yield events.Note("The model to start from completes the masks.")
    frames = prepare_labels(labels, start.preprocessing)
    for notice in pseudo_labels.notices if pseudo_labels else []:
        yield events.Note(notice)
    if start.wise_ft_prior:
        yield events.Note(
            "Each stage keeps the weights that it begins with as if they were "
            f"{start.wise_ft_prior:.0f} of the labels."
        )
    if not options.phantoms:
        return frames, None
    yield events.Note(f"Drawing {options.phantoms} synthetic frames.")
    drawn = phantom_labels(options.phantoms, options.seed)
    return frames, prepare_labels(drawn, start.preprocessing)


def completed(labels: Iterable[Label], predictor: Predictor) -> Iterator[Label]:
    """Add confident predictions to masks (pseudo-labels).

    What is unlabelled in such a mask is unknown, not background. A fixed model adds the
    missing branches before training: ignoring the predictions of the network that is
    being trained would let it unlearn the branches.

    Parameters
    ----------
    labels : iterable of Label
        Whose masks are right, but leave arteries out.
    predictor : Predictor
        Of a model that segments whole trees.

    Yields
    ------
    Label
        Its mask with every pixel from :data:`CONFIDENT_ARTERY`; unlabelled pixels from
        :data:`CONFIDENT_BACKGROUND` to there are not reviewed.
    """
    for label in labels:
        probability = predictor.predict(label.frame)
        mask = label.mask.astype(bool) | mask_at(probability, CONFIDENT_ARTERY)
        reviewed = mask | ~mask_at(probability, CONFIDENT_BACKGROUND)
        if label.reviewed is not None:
            reviewed &= label.reviewed.astype(bool)
        yield replace(label, mask=mask, reviewed=reviewed)


def config_for(start: StartModel, options: FinetuneOptions) -> FinetuneConfig:
    """The configuration of a training of all layers."""
    rate = FinetuneConfig.learning_rate if start.model else RANDOM_RATE
    return FinetuneConfig(
        steps=options.steps,
        batch=options.batch or BATCH,
        learning_rate=options.learning_rate or rate,
        minutes=options.minutes,
        seed=options.seed,
        wise_ft_prior=start.wise_ft_prior,
    )


def model_card(
    name: str,
    start: StartModel,
    options: FinetuneOptions,
    labels: int,
    result: FinetuneResult,
) -> ModelCard:
    """Describe the new model: all but the hash of its weights."""
    metrics = {}
    if result.dice is not None:
        protocol = (
            "patients held out of this training, on the network's grid; used to choose "
            "the step"
        )
        if result.left_out:
            by = "network trained without it" if result.steps else "operating point"
            protocol = f"patients left out in turn, each by a {by}"
            if not result.steps:
                protocol += " that the others' labels chose"
        metrics["validation"] = {
            "dice": round(result.dice, 4),
            "cldice": round(result.cldice or 0.0, 4),
            "protocol": protocol,
        }
    point = result.operating_point
    parent = start.model.card if start.model else None
    description = f"Fine-tuned on {counted(labels, 'label')}."
    if not result.steps:
        description = f"Adapted to {counted(labels, 'label')} without a training."
    elif percent := round(100 * result.start_share):
        description += f" {percent}% of it is the model it started from."
    if point and point.postprocessing and start.postprocessing:
        own, before = start.threshold(result.wise_ft_alpha), start.postprocessing
        change = log_odds(point.threshold) + point.postprocessing.twig_margin
        change -= log_odds(own) + before.twig_margin
        chosen = point.postprocessing.twig_margin != before.twig_margin
        if chosen and abs(change) >= NOTICEABLE_MARGIN:
            kept = "fewer" if change > 0 else "more"
            description += f" Like its labels, it keeps {kept} side branches."
    preprocessing = start.on_grid(result.grid or start.preprocessing.grid).preprocessing
    return ModelCard(
        name=name,
        kind="artery",
        width=start.width,
        parameters=parameter_count(CMUNet(start.width)),
        threshold=point.threshold if point else start.threshold(result.wise_ft_alpha),
        preprocessing=preprocessing,
        postprocessing=point.postprocessing if point else start.postprocessing,
        description=options.description or description,
        parent=parent.name if parent else None,
        parent_sha256=parent.sha256 if parent else None,
        data=options.data or "the user's own labels",
        licence=options.licence,
        labels=labels,
        metrics=metrics,
        created=datetime.now(UTC).date().isoformat(),
    )


@contextmanager
def failure_events(write: Callable[[events.Event], None]) -> Iterator[None]:
    """Write an ``events.Failed`` for an error raised inside, and raise it again.

    Raises
    ------
    OutOfMemoryError
        In the place of whatever torch or Python raise then.
    """
    try:
        yield
    except (Cancelled, UsageError):
        raise
    except CMUNetError as exc:
        write(events.Failed(failure_kind(exc), str(exc)))
        raise
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        error = OutOfMemoryError(
            "Not enough memory for this training. Close other programs, or learn from "
            "fewer labels at a time."
        )
        write(events.Failed(events.OUT_OF_MEMORY, str(error)))
        raise error from exc


def failure_kind(exc: CMUNetError) -> str:
    """One of :data:`napari_cmunet.training.events.FAILURES`."""
    if isinstance(exc, OutOfMemoryError):
        return events.OUT_OF_MEMORY
    if isinstance(exc, NotANumberError):
        return events.NOT_A_NUMBER
    cause = exc.__cause__
    if isinstance(exc, WriteError) and isinstance(cause, OSError):
        if cause.errno in _DISK_FULL:
            return events.DISK_FULL
    return events.OTHER_FAILURE
