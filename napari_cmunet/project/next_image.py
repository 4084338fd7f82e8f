"""Choose the image to label next (active learning), and store acquisition scores."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from napari_cmunet.errors import ProjectDamagedError
from napari_cmunet.project.files import is_image_id, read_valid
from napari_cmunet.util.safe_files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from pathlib import Path


Order = Literal["listed", "random", "unsure"]
LISTED: Order = "listed"
RANDOM: Order = "random"
UNSURE: Order = "unsure"

RANDOM_SHARE = 4
"""One image in this many is chosen at random, so that labels are not all of difficult
images."""


def choose_next(
    order: str,
    left: Sequence[str],
    *,
    project: str,
    after: str | None,
    patients: Mapping[str, str],
    labelled: Set[str],
    scores: Mapping[str, float],
) -> str:
    """Choose the image to label next; deterministic.

    Parameters
    ----------
    order : {RANDOM, UNSURE}
        At random, or by acquisition score: then patients with fewer labels come first,
        and images without a score last.
    left : sequence of str
        Images to choose from, not empty, in the project's order.
    project : str
        The project's id; seeds the random order.
    after : str or None
        The image that is open; counts as labelled.
    patients : dict of str to str
        By image.
    labelled : set of str
        Images that have a label.
    scores : dict of str to float
        By image, as far as known.
    """
    if order == RANDOM or not scores or _draw(project, after) % RANDOM_SHARE == 0:
        return min(left, key=lambda image: _draw(project, image))
    counts: dict[str, int] = {}
    for image in labelled | ({after} if after else set()):
        patient = patients.get(image, "")
        counts[patient] = counts.get(patient, 0) + 1
    return min(
        left,
        key=lambda image: (
            image not in scores,
            counts.get(patients[image], 0),
            -scores.get(image, 0.0),
        ),
    )


def _draw(project: str, image: str | None) -> int:
    """Return a fixed pseudo-random number for an image of a project."""
    return int.from_bytes(hashlib.sha256(f"{project} {image}".encode()).digest()[:8])


_MODELS_KEPT = 3


_SCORES = TypeAdapter(dict[str, dict[str, Any]])


class AcquisitionScores:
    """The acquisition scores of images by model, in ``acquisition_scores.json``.

    A damaged file counts as empty: the scores are computed anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, float]] | None = None

    def of(self, model: str) -> dict[str, float]:
        """Return the scores by image of the model with these weights' hash."""
        if self._known is None:
            try:
                models = read_valid(self._path, "models", _SCORES)
                self._known = {m: _valid(scores) for m, scores in models.items()}
            except ProjectDamagedError:
                self._known = {}
        return self._known.get(model, {})

    def add(self, model: str, scores: dict[str, float]) -> None:
        """Add scores of a model, in memory."""
        known = {**self.of(model), **scores}
        others = {k: v for k, v in (self._known or {}).items() if k != model}
        self._known = dict([*others.items(), (model, known)][-_MODELS_KEPT:])

    def save(self) -> None:
        """Write the file; raises WriteError."""
        write_json(self._path, {"version": 1, "models": self._known or {}})


def _valid(scores: dict[str, Any]) -> dict[str, float]:
    return {
        image: float(score)
        for image, score in scores.items()
        if is_image_id(image) and type(score) in (int, float) and math.isfinite(score)
    }
