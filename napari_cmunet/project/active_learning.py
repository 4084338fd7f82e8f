"""What a model has to gain from each image, kept so that it is worked out once."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from napari_cmunet.project.errors import ProjectDamagedError
from napari_cmunet.project.files import is_image_id, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from pathlib import Path


LISTED, RANDOM, UNSURE = "listed", "random", "unsure"
ORDERS = (LISTED, RANDOM, UNSURE)

RANDOM_SHARE = 4
"""One in so many is drawn at random all the same: figures over labels that were chosen
for their difficulty alone would describe difficult images."""


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
    """The image to label next. The same question has the same answer.

    Parameters
    ----------
    order : {RANDOM, UNSURE}
        At random, or where the model has most to gain: then patients with fewer labels
        come first, and images that nobody has scored yet last.
    left : sequence of str
        Images to choose from, not empty, in the project's order.
    project : str
        The project's id: another project has another order at random.
    after : str or None
        The image that is open. Counts as labelled, since it will be.
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
    """A number that is drawn once and for all."""
    return int.from_bytes(hashlib.sha256(f"{project} {image}".encode()).digest()[:8])


_MODELS_KEPT = 3


class AcquisitionScores:
    """The scores of a project's images by model, in ``scores.json``.

    A damaged file is as good as none: the scores are worked out anew.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, float]] | None = None

    def of(self, model: str) -> dict[str, float]:
        """Gain by image, of a model by the hash of its weights. Reads the file once."""
        if self._known is None:
            try:
                self._known = _checked(read_json(self._path) or {})
            except ProjectDamagedError:
                self._known = {}
        return self._known.get(model, {})

    def note(self, model: str, found: dict[str, float]) -> None:
        """Keep what was found, in memory."""
        known = {**self.of(model), **found}
        others = {k: v for k, v in (self._known or {}).items() if k != model}
        self._known = dict([*others.items(), (model, known)][-_MODELS_KEPT:])

    def save(self) -> None:
        """Write the file; raises WriteError."""
        write_json(self._path, {"version": 1, "models": self._known or {}})


def _checked(values: dict[str, Any]) -> dict[str, dict[str, float]]:
    models = values.get("models")
    if not isinstance(models, dict):
        return {}
    return {
        model: {
            image: float(gain)
            for image, gain in scores.items()
            if is_image_id(image) and type(gain) in (int, float) and math.isfinite(gain)
        }
        for model, scores in models.items()
        if isinstance(scores, dict)
    }
