"""Adaptation of a model to labels without a training.

The labels choose its threshold, how many side branches it keeps, and its grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.errors import Cancelled, TrainingError
from napari_cmunet.model.registry import DEFAULT_MODEL
from napari_cmunet.training.config import FinetuneResult
from napari_cmunet.training.dataset import prepare_labels
from napari_cmunet.training.evaluation.operating_point import adapt
from napari_cmunet.training.evaluation.validation import (
    folds_of,
    labels_of_whole_patients,
    mean_scores,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch

    from napari_cmunet.training.dataset import Label
    from napari_cmunet.training.evaluation.operating_point import ReadLabels
    from napari_cmunet.training.finetuning import StartModel
    from napari_cmunet.training.options import FinetuneOptions

ADAPTING_LABELS = 36
"""Labels that choose without a training; more would take long."""


def adapt_only(
    start: StartModel,
    options: FinetuneOptions,
    labels: Iterable[Label],
    read: ReadLabels,
    device: torch.device,
    should_stop: Callable[[], bool],
) -> FinetuneResult:
    """The start, with the grid and the operating point that labels choose.

    Parameters
    ----------
    start, options, labels, read, device, should_stop
        See :func:`napari_cmunet.training.staged_finetuning.train_in_stages`.

    Raises
    ------
    TrainingError
        If the start does not segment arteries, or the masks leave some out.
    Cancelled
        If stopped.
    """
    if options.partial_labels:
        raise TrainingError(
            "Masks that leave arteries out cannot choose a threshold. Leave "
            "--no-training out, or give whole masks."
        )
    if not start.segments:
        raise TrainingError(
            "Without a training, labels choose the threshold, the side branches and "
            f"the grid of a model that segments arteries: --start {DEFAULT_MODEL}."
        )
    frames = prepare_labels(labels, start.preprocessing)
    folds = [held_out for _, held_out in folds_of(frames)]
    if not options.validate or len(folds) < 2:
        folds = [list(range(len(frames)))]
    count = ADAPTING_LABELS // len(folds)
    sample = [labels_of_whole_patients(x, frames.patients, count) for x in folds]
    found = adapt(
        start,
        sample,
        _until_stopped(read, should_stop),
        device,
        keep_grid=bool(options.grid),
    )
    return FinetuneResult(
        start.network().state_dict(),
        0,
        0,
        *mean_scores(found.scores),
        "done",
        1.0,
        found.scores,
        found.operating_point,
        found.start.preprocessing.grid,
    )


def _until_stopped(read: ReadLabels, should_stop: Callable[[], bool]) -> ReadLabels:
    """Reads labels; raises Cancelled once a stop is asked for."""

    def read_on(at: Sequence[int]) -> Iterator[Label]:
        for label in read(at):
            if should_stop():
                raise Cancelled("Stopped before the model was adapted.")
            yield label

    return read_on
