"""How a project is worked on; kept with it, each value free to be chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.model.card import is_model_name
from napari_cmunet.project.active_learning import LISTED, ORDERS
from napari_cmunet.project.errors import ProjectError
from napari_cmunet.project.files import read_json, write_json
from napari_cmunet.training.options import FinetuneOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The settings of a project.

    Parameters
    ----------
    title : str
        Shown in the window.
    start : str
        Where fine-tuning starts: a model's name, or ``current``.
    finetune_every : int
        Newly accepted labels after which fine-tuning starts by itself; 0: never.
    minutes : float or None
        Time budget of a training; None: as long as it takes.
    phantoms : int
        Synthetic frames mixed into a training.
    next_image : str
        One of :data:`napari_cmunet.project.active_learning.ORDERS`.
    """

    title: str = ""
    start: str = FinetuneOptions.start
    finetune_every: int = 0
    minutes: float | None = 10.0
    phantoms: int = FinetuneOptions.phantoms
    next_image: str = LISTED

    def finetune_options(self, chosen: Mapping[str, Any]) -> FinetuneOptions:
        """The options of a training: those chosen for it, else the project's."""
        own = FinetuneOptions(
            start=self.start, minutes=self.minutes, phantoms=self.phantoms
        )
        return replace(own, **chosen)


def settings_from(values: dict[str, Any]) -> Settings:
    """Take over what fits and leave out the rest, which an older program wrote."""
    chosen = Settings()
    for name in (f.name for f in fields(Settings)):
        if name in values:
            try:
                chosen = _checked(replace(chosen, **{name: values[name]}))
            except ProjectError:
                continue
    return chosen


def load_settings(path: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings, and the whole file: a newer program's values are kept."""
    values = read_json(path) or {}
    return settings_from(values), values


def save_settings(path: Path, settings: Settings, before: dict[str, Any]) -> None:
    """Write the settings; raises ProjectError if a value cannot be, WriteError."""
    write_json(path, before | {"version": 1} | asdict(_checked(settings)))


def _checked(s: Settings) -> Settings:
    def whole(n: object, most: int) -> bool:
        return type(n) is int and 0 <= n <= most

    for fits, what in (
        (isinstance(s.title, str) and len(s.title) <= 200, "The title"),
        # A name alone: a project from elsewhere must not choose what is read here.
        (isinstance(s.start, str) and is_model_name(s.start), "The start model"),
        (whole(s.finetune_every, 10_000), "The number of labels until a training"),
        (whole(s.phantoms, 10_000), "The number of phantoms"),
        (s.next_image in ORDERS, "The order of images"),
        (
            s.minutes is None
            or (type(s.minutes) in (int, float) and 0 < s.minutes < 10_000),
            "The time budget",
        ),
    ):
        if not fits:
            raise ProjectError(f"{what} is outside what is possible.")
    return s
