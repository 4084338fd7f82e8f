"""How long fine-tuning takes to be as good as it gets."""

from __future__ import annotations

import itertools
import time
from typing import Any

from napari_cmunet.cli.benchmark import paper
from napari_cmunet.model.device import choose_device, tune_malloc
from napari_cmunet.model.registry import load_model
from napari_cmunet.training.config import WISE_FT_PRIOR, FinetuneConfig, default_steps
from napari_cmunet.training.dataset import phantom_labels, prepare_labels
from napari_cmunet.training.events import Step, Validated
from napari_cmunet.training.loop import finetune

VALIDATION_FRAMES, LOOKS = 8, 10
ENOUGH = 0.995
"""Share of the final validation Dice that counts as there."""


def fine_tuning(
    labels: int, start: str, device_name: str, minutes: float
) -> dict[str, Any]:
    """Fine-tune on phantoms and see when others of them are found as well as ever.

    Parameters
    ----------
    labels : int
    start : str
        Name of the model to start from.
    device_name : str
    minutes : float
        Time budget; the schedule is fitted to it.
    """
    tune_malloc()
    device = choose_device(device_name)
    model = load_model(start)
    # Some phantoms show next to no artery and are left out: draw a few more.
    drawn = phantom_labels(2 * (labels + VALIDATION_FRAMES), seed=11, workers=1)
    taken = itertools.islice(drawn, labels + VALIDATION_FRAMES)
    frames = prepare_labels(taken, model.preprocessing)
    learned = frames.subset(range(labels))
    others = frames.subset(range(labels, len(frames)))
    steps = default_steps(labels)
    config = FinetuneConfig(
        minutes=minutes,
        wise_ft_prior=WISE_FT_PRIOR,
        validate_every=max(1, steps // LOOKS),
    )
    began = time.perf_counter()
    curve: list[tuple[float, float]] = []
    last: Step | None = None
    for event in finetune(
        model.network, learned, config, validation=others, device=device
    ):
        if isinstance(event, Step):
            last = event
        elif isinstance(event, Validated):
            curve.append((time.perf_counter() - began, event.dice))
    best = max(dice for _, dice in curve)
    there = next(at for at, dice in curve if dice >= ENOUGH * best)
    published = paper.training_seconds(labels, device)
    return {
        "labels": labels,
        "start": start,
        "steps": last.step if last else 0,
        "seconds_to_99.5%": there,
        "seconds": curve[-1][0],
        "dice": best,
        "paper_s": published,  # from measured steps
        "times_faster": published / there,
    }
