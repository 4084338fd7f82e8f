"""Model cards, ``card.json``: metadata of a model. Does not import torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_cmunet import __version__
from napari_cmunet.errors import ModelError, display_name, printable
from napari_cmunet.util.safe_files import is_device, read_plain

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing parameters of a model; stored in its card.

    Parameters
    ----------
    grid : int
        Pixels of the frame's longer side as the network sees it.
    radius : float
        Standard deviation of the background blur, as a share of the longer
        side. The paper: 60 px on a frame of 475 px.
    amount : float
        Strength of the unsharp mask, ``x + amount * (x - blur(x))``. The paper: 3.
    border : float
        Share of the grey range, above its minimum, under which pixels that touch
        the frame's edge count as collimated away. They take no part in the
        statistics and become 0, the mean.
    """

    grid: int = 384
    radius: float = 60 / 475
    amount: float = 3.0
    border: float = 0.04

    def to_json(self) -> dict[str, Any]:
        """Plain values for the card."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """Read from a card.

        Raises
        ------
        ValueError
            If a value is unknown or out of range.
        """
        _check_fields(cls, values, whole=("grid",))
        made = cls(**values)
        if not (
            16 <= made.grid <= 4096
            and 0 < made.radius <= 1
            and 0 <= made.amount <= 100
            and 0 <= made.border < 1
        ):
            raise ValueError(f"preprocessing out of range: {values!r:.120}")
        return made


@dataclass(frozen=True)
class Postprocessing:
    """How a prediction is cleaned up; written into the model's card.

    Margins are in log-odds above the model's threshold, so that they keep their meaning
    when fine-tuning moves the threshold.

    Parameters
    ----------
    twig_margin : float
        Least mean margin along a free-ending branch that is kept.
    twig_length : float
        Longer branches are kept whatever their margin; a share of the longer side.
    core_margin : float
        Margin from which a pixel is confidently artery; a component without one is
        removed.
    contrast_length : float
        Least length of the confident centreline, as a share of the longer side. A
        frame with less shows no contrast.
    """

    twig_margin: float = 1.35
    twig_length: float = 0.18
    core_margin: float = 2.63
    contrast_length: float = 0.52

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Postprocessing:
        """Read from a card.

        Raises
        ------
        ValueError
            If a value is unknown or out of range.
        """
        _check_fields(cls, values)
        made = cls(**values)
        if not all(0 <= value <= 100 for value in values.values()):
            raise ValueError(f"postprocessing out of range: {values!r:.120}")
        return made


def _check_fields(
    kind: type[Preprocessing | Postprocessing],
    values: dict[str, Any],
    whole: tuple[str, ...] = (),
) -> None:
    what = kind.__name__.lower()
    if unknown := set(values) - set(kind.__dataclass_fields__):
        raise ValueError(f"unknown {what} {min(unknown)!r:.40}")
    for name, value in values.items():
        # A bool is an int in Python, and a whole number may stand for a float.
        if type(value) not in ((int,) if name in whole else (int, float)):
            raise ValueError(f"{what}: {name} is {value!r:.40}")


CARD = "card.json"
CARD_VERSION = 1
MAX_CARD_BYTES = 2**20
MAX_WIDTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelCard:
    """Metadata of a model.

    Parameters
    ----------
    name : str
        Letters, digits, dots, dashes; the folder's name.
    kind : str
        ``ssl`` (self-supervised, where fine-tuning starts) or ``artery``.
    width : int
        Channels of the network's first level.
    preprocessing : dict
        See :class:`napari_cmunet.model.card.Preprocessing`.
    threshold : float
        Probability from which a pixel is artery.
    postprocessing : dict
        See :class:`napari_cmunet.model.card.Postprocessing`; empty for none.
    parameters : int
        Trainable parameters of the network.
    description : str
        One sentence for the list of models.
    parent, parent_sha256 : str or None
        The model that training started from, and the hash of its weights.
    data, licence : str
        What it learned from, and under which licence the weights are given.
    labels : int
        Labelled frames it learned from.
    metrics : dict
        Figures, each with its protocol.
    sha256 : str
        Of ``weights.safetensors``.
    program, created : str
        Version of napari-cmunet that wrote it, and the UTC date.
    card_version : int
    """

    name: str
    kind: str
    width: int
    preprocessing: dict[str, Any]
    threshold: float = 0.5
    postprocessing: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    description: str = ""
    parent: str | None = None
    parent_sha256: str | None = None
    data: str = ""
    licence: str = ""
    labels: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    program: str = __version__
    created: str = ""
    card_version: int = CARD_VERSION


def is_model_name(name: str) -> bool:
    """Whether a model may be called so: a folder name that every system takes."""
    return (
        bool(_NAME.fullmatch(name)) and not name.endswith(".") and not is_device(name)
    )


def name_for(folder: Path, otherwise: str) -> str:
    """The name of the model in a folder: the folder's, if a model may be called so."""
    name = folder.resolve().name
    return name if is_model_name(name) else otherwise


def read_card(folder: Path) -> ModelCard:
    """Read and check a model's card.

    Raises
    ------
    ModelError
        If it is missing, damaged, or written by a newer version.
    """
    path = folder / CARD
    where = f"Model '{display_name(folder.resolve())}'"
    try:
        data = read_plain(path, MAX_CARD_BYTES)
        if data is None:
            raise ModelError(f"{where}: {CARD} is too large to be a card.")
        values = json.loads(data.decode("utf-8"))
    except OSError as exc:
        raise ModelError(f"{where}: {CARD} cannot be read ({exc.strerror}).") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{where}: {CARD} is damaged (not JSON).") from exc
    if not isinstance(values, dict):
        raise ModelError(f"{where}: {CARD} is damaged (not a JSON object).")
    version = values.get("card_version", CARD_VERSION)
    if type(version) is int and version > CARD_VERSION:
        raise ModelError(
            f"{where} was written by a newer napari-cmunet (card version "
            f"{str(version)[:9]}, this program reads up to {CARD_VERSION}). Update "
            "napari-cmunet."
        )
    known = ModelCard.__dataclass_fields__
    try:
        card = ModelCard(**{k: v for k, v in values.items() if k in known})
        check_card(card)
    except (TypeError, ValueError) as exc:
        why = printable(str(exc)[:200])
        raise ModelError(f"{where}: {CARD} is damaged ({why}).") from exc
    return card


def check_card(card: ModelCard) -> None:
    """Raise ValueError, saying what is wrong, where a card holds impossible values."""
    for name, kinds in _TYPES.items():
        value = getattr(card, name)
        # A bool is an int in Python, but no number of anything here.
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"bad {name} {value!r:.40}")
    if not is_model_name(card.name):
        raise ValueError(
            f"bad name {card.name!r:.80}: letters, digits, dots and dashes, at most 64"
        )
    if card.kind not in ("ssl", "artery"):
        raise ValueError(f"unknown kind {card.kind!r:.40}")
    if not 1 <= card.width <= MAX_WIDTH:
        raise ValueError(f"bad width {str(card.width)[:9]}")
    if not 0 < card.threshold < 1:
        raise ValueError(f"bad threshold {card.threshold}")
    Preprocessing.from_json(card.preprocessing)
    Postprocessing.from_json(card.postprocessing)


_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "kind": (str,),
    "width": (int,),
    "preprocessing": (dict,),
    "postprocessing": (dict,),
    "threshold": (int, float),
    "parameters": (int,),
    "description": (str,),
    "parent": (str, type(None)),
    "parent_sha256": (str, type(None)),
    "data": (str,),
    "licence": (str,),
    "labels": (int,),
    "metrics": (dict,),
    "sha256": (str,),
    "program": (str,),
    "created": (str,),
    "card_version": (int,),
}
