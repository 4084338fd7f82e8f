"""Training without validation or a project; used by two other benchmarks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_cmunet.model.device import tune_malloc
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.training.dataset import prepare_labels
from napari_cmunet.training.loop import finetune

if TYPE_CHECKING:
    from napari_cmunet.training.config import FinetuneConfig
    from napari_cmunet.training.dataset import Label


def train_plainly(
    labels: list[Label], start: str, device: torch.device, config: FinetuneConfig
) -> Predictor:
    """Train a model on all labels and make it ready."""
    tune_malloc()
    loaded = load_model(start)
    torch.manual_seed(config.seed)
    frames = prepare_labels(labels, loaded.card.preprocessing)
    config = replace(config, validate_every=10**9)
    training = finetune(loaded.network, frames, config, device=device)
    while True:
        try:
            next(training)
        except StopIteration as end:
            loaded.network.load_state_dict(end.value.weights)
            break
    loaded.network.eval()
    return Predictor(loaded, device)
