"""``models``: what there is, what is known of it, whether it is whole."""

from __future__ import annotations

import dataclasses
import json
import sys

from napari_cmunet.core.models import (
    find_model,
    list_models,
    model_folders,
    read_card,
    verify_model,
)
from napari_cmunet.errors import ModelError, printable


def list_all() -> int:
    """Print one line for each model: name, kind, width, description."""
    for card, folder in list_models():
        about = printable(card.description)
        print(f"{folder.name}\t{card.kind}\twidth {card.width}\t{about}")
    return 0


def show(model: str) -> int:
    """Print a model's card as JSON."""
    print(json.dumps(dataclasses.asdict(read_card(find_model(model))), indent=1))
    return 0


def verify(model: str | None) -> int:
    """Check one model, or all; returns 1 if any is not sound."""
    folders = [find_model(model)] if model else model_folders()
    failed = 0
    for folder in folders:
        try:
            receipt = verify_model(folder)
        except ModelError as exc:
            failed += 1
            print(exc, file=sys.stderr)
        else:
            print(f"{folder.name}\tsound: {receipt}")
    return 1 if failed else 0
