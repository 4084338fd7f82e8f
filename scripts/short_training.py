"""A training of a minute, as two of the programs beside this file use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_cmunet.core.finetune import FinetuneConfig, finetune
from napari_cmunet.core.labelled import prepare_labels
from napari_cmunet.core.models import load_model
from napari_cmunet.core.predict import Predictor

if TYPE_CHECKING:
    from napari_cmunet.core.labelled import Label


def train_shortly(
    labels: list[Label], start: str, device: torch.device, seed: int, steps: int = 40
) -> Predictor:
    """Train a model on labels, without validation, and make it ready.

    A batch of 4 views of 256 x 256, peak rate 5e-4: far less than the window's own
    training, so that many of them fit into an hour on one core.
    """
    loaded = load_model(start)
    config = FinetuneConfig(
        steps=steps,
        batch=4,
        grid=256,
        learning_rate=5e-4,
        validate_every=10**9,
        seed=seed,
    )
    torch.manual_seed(seed)
    frames = prepare_labels(labels, loaded.preprocessing)
    training = finetune(loaded.network, frames, config, device=device)
    while True:
        try:
            next(training)
        except StopIteration as end:
            loaded.network.load_state_dict(end.value.weights)
            break
    loaded.network.eval()
    return Predictor(loaded, device)
