"""Which image of a study is labelled next."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

LISTED, RANDOM, UNSURE = "listed", "random", "unsure"
ORDERS = (LISTED, RANDOM, UNSURE)

RANDOM_SHARE = 4
"""One in so many is drawn at random all the same: figures over labels that were chosen
for their difficulty alone would describe difficult images."""


def choose_next(
    order: str,
    left: Sequence[str],
    *,
    study: str,
    after: str | None,
    patients: Mapping[str, str],
    labelled: Set[str],
    gains: Mapping[str, float],
) -> str:
    """The image to label next. The same question has the same answer.

    Parameters
    ----------
    order : {RANDOM, UNSURE}
        At random, or where the model has most to gain: then patients with fewer labels
        come first, and images that nobody has scored yet last.
    left : sequence of str
        Images to choose from, not empty, in the study's order.
    study : str
        The study's id: another study has another order at random.
    after : str or None
        The image that is open. Counts as labelled, since it will be.
    patients : dict of str to str
        By image.
    labelled : set of str
        Images that have a label.
    gains : dict of str to float
        By image, as far as known.
    """
    if order == RANDOM or not gains or _draw(study, after) % RANDOM_SHARE == 0:
        return min(left, key=lambda image: _draw(study, image))
    counts: dict[str, int] = {}
    for image in labelled | ({after} if after else set()):
        patient = patients.get(image, "")
        counts[patient] = counts.get(patient, 0) + 1
    return min(
        left,
        key=lambda image: (
            image not in gains,
            counts.get(patients[image], 0),
            -gains.get(image, 0.0),
        ),
    )


def _draw(study: str, image: str | None) -> int:
    """A number that is drawn once and for all."""
    return int.from_bytes(hashlib.sha256(f"{study} {image}".encode()).digest()[:8])
