"""Model cards, ``card.json``: metadata of a model. Does not import torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
)

from napari_cmunet import __version__
from napari_cmunet.errors import ModelError, display_name, printable
from napari_cmunet.util.safe_files import is_device, read_plain
from napari_cmunet.util.text import validate

if TYPE_CHECKING:
    from pathlib import Path


CARD = "card.json"
CARD_VERSION = 1
MAX_CARD_BYTES = 2**20
MAX_WIDTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_model_name(name: str) -> bool:
    """Whether a model may be called so: a folder name that every system takes."""
    return (
        bool(_NAME.fullmatch(name)) and not name.endswith(".") and not is_device(name)
    )


def _check_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError("letters, digits, dots and dashes, at most 64")
    return name


_CLOSED = ConfigDict(extra="forbid")
_Margin = Annotated[StrictFloat, Field(ge=0, le=100)]


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

    __pydantic_config__: ClassVar = _CLOSED

    grid: Annotated[StrictInt, Field(ge=16, le=4096)] = 384
    radius: Annotated[StrictFloat, Field(gt=0, le=1)] = 60 / 475
    amount: Annotated[StrictFloat, Field(ge=0, le=100)] = 3.0
    border: Annotated[StrictFloat, Field(ge=0, lt=1)] = 0.04


@dataclass(frozen=True)
class Postprocessing:
    """How a prediction is cleaned up; written into the model's card.

    Margins are in log-odds above the model's threshold, that of contrast above a
    probability of 0.7. Fine-tuning sets that of twigs with the labels, and lowers that
    of contrast as the new model is less confident.

    Parameters
    ----------
    twig_margin : float
        Least mean margin along a free-ending branch that is kept.
    twig_length : float
        Longer branches are kept whatever their margin; a share of the longer side.
    core_margin : float
        Margin from which a pixel is confidently artery; a component without one is
        removed.
    contrast_margin : float
        Least sum of the margins along the centreline, divided by the longer side. A
        frame with less shows no contrast: what lies across ribs is uncertain; what one
        very long branch adds counts less, as a catheter or a lead has no branches.
    """

    __pydantic_config__: ClassVar = _CLOSED

    twig_margin: _Margin = 1.35
    twig_length: _Margin = 0.25
    core_margin: _Margin = 3.5
    contrast_margin: _Margin = 3.0


def _postprocessing(values: Any) -> Any:
    if isinstance(values, dict):
        # Cards of a development version had another measure of contrast.
        values = {k: v for k, v in values.items() if k != "contrast_length"}
    return values or None


@dataclass(frozen=True)
class ModelCard:
    """Metadata of a model.

    Parameters
    ----------
    name : str
        Letters, digits, dots, dashes; the folder's name.
    kind : str
        ``ssl`` (self-supervised, where fine-tuning starts), ``artery``, or ``names``
        (proposes SYNTAX segments).
    width : int
        Channels of the network's first level.
    preprocessing : Preprocessing
    threshold : float
        Probability from which a pixel is artery.
    postprocessing : Postprocessing or None
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

    name: Annotated[StrictStr, AfterValidator(_check_name)]
    kind: Literal["ssl", "artery", "names"]
    width: Annotated[StrictInt, Field(ge=1, le=MAX_WIDTH)]
    preprocessing: Preprocessing
    threshold: Annotated[StrictFloat, Field(gt=0, lt=1)] = 0.5
    postprocessing: Annotated[
        Postprocessing | None, BeforeValidator(_postprocessing)
    ] = None
    parameters: StrictInt = 0
    description: StrictStr = ""
    parent: StrictStr | None = None
    parent_sha256: StrictStr | None = None
    data: StrictStr = ""
    licence: StrictStr = ""
    labels: StrictInt = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    sha256: StrictStr = ""
    program: StrictStr = __version__
    created: StrictStr = ""
    card_version: StrictInt = CARD_VERSION


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
    try:
        return card_from_json(values)
    except ValueError as exc:
        why = printable(str(exc)[:200])
        raise ModelError(f"{where}: {CARD} is damaged ({why}).") from exc


def card_from_json(values: dict[str, Any]) -> ModelCard:
    """Check the values of a card; raises ValueError with a one-line reason."""
    return validate(_MODEL_CARD, values)


def card_to_json(card: ModelCard) -> dict[str, Any]:
    """Plain values of a card."""
    values = asdict(card)
    return values | {"postprocessing": values["postprocessing"] or {}}


_MODEL_CARD = TypeAdapter(ModelCard)
