"""What a model has to gain from each image, kept so that it is worked out once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_cmunet.study.errors import StudyDamagedError
from napari_cmunet.study.layout import is_image_id, read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

_MODELS_KEPT = 3


class Gains:
    """The scores of a study's images by model, in ``gains.json``.

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
            except StudyDamagedError:
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
            for image, gain in gains.items()
            if is_image_id(image) and type(gain) in (int, float) and math.isfinite(gain)
        }
        for model, gains in models.items()
        if isinstance(gains, dict)
    }
