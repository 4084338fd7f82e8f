"""Options of a fine-tuning: window, project and command line fill the same record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_cmunet.model.registry import START_MODEL

RANDOM = "random"
"""As the start: random weights."""

CURRENT = "current"
"""As the start: the model that the project uses."""


def option(default: Any, help: str, metavar: str = "N", **more: Any) -> Any:
    """A field that is an option of the command line."""
    return field(default=default, metadata={"help": help, "metavar": metavar, **more})


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune.

    Each field's metadata holds its ``help``, from which the command line makes its
    options and the window its tooltips; ``off`` is the option of what is on.
    """

    start: str = option(
        START_MODEL,
        f"weights to start from (default: {START_MODEL}, or as the project says)",
        "NAME|DIR|random|current",
    )
    minutes: float | None = option(
        None, "time budget (default: none, or as the project says)", "M", above=0
    )
    steps: int = option(0, "optimiser steps (default: by the number of labels)")
    batch: int = option(
        0,
        "views in a step (default: 4 after a quick stage or if time is short, else 8)",
    )
    learning_rate: float | None = option(
        None, "default: 0.0005, for --start random 0.002", "R", above=0
    )
    seed: int = option(0, "of the random numbers (default: 0)")
    phantoms: int = option(0, "synthetic frames to add")
    partial_labels: bool = option(
        False, "the masks leave out arteries: the start completes them"
    )
    validate: bool = option(
        True,
        "learn from every label; keep the last averaged weights",
        off="--no-validation",
    )
    train: bool = option(
        True,
        "train nothing: let the labels choose threshold, side branches and grid",
        off="--no-training",
    )
    width: int | None = option(None, "channels of the first level, for --start random")
    grid: int | None = option(
        None,
        "longer side of the frames as the network sees them (default: as the labels "
        "choose)",
        "PX",
    )
    device: str = option("auto", "default: auto, the fastest there is")
    cluster: str = option(
        "", "run on the workers of a Dask cluster: tls://HOST:PORT", "ADDRESS"
    )
    plain_tcp: bool = option(
        False, "allow a cluster without encryption: tcp://HOST:PORT"
    )
    description: str = option("", "for the model's card", "TEXT")
    data: str = option("", "what the images are, for the card", "TEXT")
    licence: str = option("", "of the weights, for the card", "TEXT")
