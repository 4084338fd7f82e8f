"""Model folders: ``weights.safetensors`` and ``card.json``, found, checked, loaded.

Only tensors are read, never a pickle. torch is imported inside the functions that
need it, so that the window can list models without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_data_path

from napari_cmunet import __version__
from napari_cmunet.atomic import atomic_write
from napari_cmunet.errors import ModelError

if TYPE_CHECKING:
    import torch

    from napari_cmunet.core.network import CMUNet
    from napari_cmunet.core.preprocess import Preprocessing

CARD, WEIGHTS = "card.json", "weights.safetensors"
CARD_VERSION = 1
DEFAULT_MODEL = "cmunet-artery"
"""Pre-segments on first start."""
START_MODEL = "cmunet-ssl"
"""Where fine-tuning starts."""
MAX_WEIGHTS_BYTES = 2**30
MAX_CARD_BYTES = 2**20
MAX_WIDTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    Parameters
    ----------
    name : str
        Letters, digits, dots, dashes; the folder's name.
    kind : str
        ``ssl`` (self-supervised, where fine-tuning starts) or ``artery``.
    width : int
        Channels of the network's first level.
    preprocessing : dict
        See :class:`napari_cmunet.core.preprocess.Preprocessing`.
    threshold : float
        Probability from which a pixel is artery.
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


@dataclass(frozen=True)
class Receipt:
    """What was loaded into a network, and what is new.

    Parameters
    ----------
    source : str
        Name of the model.
    loaded, total : int
        Encoder and decoder tensors found, and those that the network has.
    head_loaded : bool
        Whether the last convolution came with it.
    """

    source: str
    loaded: int
    total: int
    head_loaded: bool

    def __str__(self) -> str:
        head = "conv_last too" if self.head_loaded else "conv_last new"
        return (
            f"{self.loaded} of {self.total} encoder and decoder tensors from "
            f"{self.source}, {head}"
        )


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, in evaluation mode, its card and its receipt."""

    network: CMUNet
    card: ModelCard
    receipt: Receipt

    @property
    def preprocessing(self) -> Preprocessing:
        """How frames are made ready for it."""
        from napari_cmunet.core.preprocess import Preprocessing

        return Preprocessing.from_json(self.card.preprocessing)


def bundled_models_folder() -> Path:
    """The ``models`` folder of the wheel, or of the repository when editable."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def user_models_folder() -> Path:
    """Where imported and fine-tuned models are kept.

    ``NAPARI_CMUNET_HOME`` overrides the place that the system provides.
    """
    home = os.environ.get("NAPARI_CMUNET_HOME")
    base = Path(home) if home else user_data_path("napari-cmunet", appauthor=False)
    return base / "models"


def list_models() -> list[tuple[ModelCard, Path]]:
    """Cards and folders of all models that can be named, bundled ones first.

    Folders whose card cannot be read are left out; ``models verify`` names them.
    """
    found: dict[str, tuple[ModelCard, Path]] = {}
    for folder in model_folders():
        try:
            card = read_card(folder)
        except ModelError:
            continue
        found.setdefault(folder.name, (card, folder))
    return list(found.values())


def model_folders() -> list[Path]:
    """Every folder that holds a card, sound or not."""
    folders = []
    for base in (bundled_models_folder(), user_models_folder()):
        if base.is_dir():
            folders += sorted(p.parent for p in base.glob(f"*/{CARD}"))
    return folders


def is_model_name(name: str) -> bool:
    """Whether a model may be called so: a folder name that every system takes."""
    # These name devices on Windows, whatever follows the dot.
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE)
    return bool(_NAME.fullmatch(name)) and not name.endswith(".") and not device


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of a model, by its name or by the folder itself.

    Raises
    ------
    ModelError
        If there is none, naming those that there are.
    """
    text = str(name_or_folder)
    if _NAME.fullmatch(text):
        for base in (bundled_models_folder(), user_models_folder()):
            if (base / text / CARD).is_file():
                return base / text
    folder = Path(name_or_folder)
    if folder.is_dir():
        if (folder / CARD).is_file():
            return folder
        raise ModelError(
            f"The folder '{folder.name}' is not a model: it has no {CARD}."
        )
    known = ", ".join(card.name for card, _ in list_models()) or "none"
    raise ModelError(
        f"There is no model named '{text}'. Known models: {known}. A folder that "
        f"holds {WEIGHTS} and {CARD} can be given too."
    )


def read_card(folder: Path) -> ModelCard:
    """Read and check a model's card.

    Raises
    ------
    ModelError
        If it is missing, damaged, or written by a newer version.
    """
    path = folder / CARD
    where = f"Model '{folder.name}'"
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ModelError(f"{where}: {CARD} is too large to be a card.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ModelError(f"{where}: {CARD} cannot be read ({exc.strerror}).") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{where}: {CARD} is damaged (not JSON).") from exc
    if not isinstance(values, dict):
        raise ModelError(f"{where}: {CARD} is damaged (not a JSON object).")
    version = values.get("card_version")
    if isinstance(version, int) and version > CARD_VERSION:
        raise ModelError(
            f"{where} was written by a newer napari-cmunet (card version {version}, "
            f"this program reads up to {CARD_VERSION}). Update napari-cmunet."
        )
    known = ModelCard.__dataclass_fields__
    try:
        card = ModelCard(**{k: v for k, v in values.items() if k in known})
        _check_card(card)
    except (TypeError, ValueError) as exc:
        raise ModelError(f"{where}: {CARD} is damaged ({exc}).") from exc
    return card


def _check_card(card: ModelCard) -> None:
    from napari_cmunet.core.preprocess import Preprocessing

    if not isinstance(card.name, str) or not _NAME.fullmatch(card.name):
        raise ValueError("bad name")
    if card.kind not in ("ssl", "artery"):
        raise ValueError(f"unknown kind {card.kind!r}")
    if type(card.width) is not int or not 1 <= card.width <= MAX_WIDTH:
        raise ValueError(f"bad width {card.width!r}")
    if not isinstance(card.preprocessing, dict):
        raise ValueError("bad preprocessing")
    Preprocessing.from_json(card.preprocessing)
    if not isinstance(card.threshold, int | float) or not 0 < card.threshold < 1:
        raise ValueError(f"bad threshold {card.threshold!r}")


def load_model(name_or_folder: str | Path) -> LoadedModel:
    """Load a model by name or folder, on the CPU, in float32.

    The weights' hash is checked against the card before they are read.

    Raises
    ------
    ModelError
        If it is missing, altered, truncated, of another architecture, or holds
        values that are not numbers.
    """
    from napari_cmunet.core.network import CMUNet

    folder = find_model(name_or_folder)
    card = read_card(folder)
    tensors = _read_weights(folder, card)
    network = CMUNet(card.width)
    receipt = load_weights(network, tensors, card.name)
    return LoadedModel(network.eval(), card, receipt)


def verify_model(folder: Path) -> Receipt:
    """Check card, hash and tensors of a model folder; raises ``ModelError``."""
    return load_model(folder).receipt


def load_weights(
    network: CMUNet,
    tensors: dict[str, torch.Tensor],
    source: str,
    *,
    allow_missing: int = 0,
) -> Receipt:
    """Load tensors into a network out loud.

    Parameters
    ----------
    network : CMUNet
    tensors : dict of str to tensor
        By the network's own parameter names; others are an error.
    source : str
        Name for messages.
    allow_missing : int
        Encoder and decoder tensors that may be absent and stay as they are. The
        last convolution may always be absent, whole.

    Raises
    ------
    ModelError
        If too few match, if one has another shape, or one is not finite.
    """
    import torch

    own = network.state_dict()
    body = {name for name in own if not name.startswith("conv_last.")}
    head = set(own) - body
    unknown = sorted(set(tensors) - set(own))
    if unknown:
        raise ModelError(
            f"Model '{source}' is another architecture: it holds {unknown[0]!r}, "
            "which CM-UNet does not have."
        )
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            raise ModelError(
                f"Model '{source}' does not fit: {name} has shape "
                f"{tuple(value.shape)}, the network needs {tuple(own[name].shape)}."
            )
        if not torch.isfinite(value).all():
            raise ModelError(f"Model '{source}' is damaged: {name} is not finite.")
        if name.endswith("running_var") and (value < 0).any():
            raise ModelError(f"Model '{source}' is damaged: {name} is negative.")
    loaded = body & set(tensors)
    head_loaded = head <= set(tensors)
    if len(body) - len(loaded) > allow_missing:
        raise ModelError(
            f"Only {len(loaded)} of {len(body)} encoder and decoder tensors were found "
            f"in model '{source}'. Nothing was loaded."
        )
    kept = loaded | (head if head_loaded else set())
    network.load_state_dict(
        own | {k: tensors[k].to(own[k].dtype) for k in kept}, strict=True
    )
    return Receipt(source, len(loaded), len(body), head_loaded)


def save_model(
    folder: Path, weights: dict[str, torch.Tensor], card: ModelCard
) -> ModelCard:
    """Write a model folder: weights in half precision first, the card last.

    A folder without a card is not a model, so a crash in between leaves none; over
    an older model, the card of the old weights no longer matches and loading says
    so.

    Returns
    -------
    ModelCard
        With the hash of what was written.
    """
    import torch
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    half = {
        k: (v.to(torch.float16) if v.is_floating_point() else v).cpu().contiguous()
        for k, v in weights.items()
    }
    for name, value in half.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{name} does not fit half precision; model not saved.")
    data = save(half)
    made = ModelCard(**(asdict(card) | {"sha256": hashlib.sha256(data).hexdigest()}))
    _check_card(made)
    with atomic_write(folder / WEIGHTS) as file:
        file.write(data)
    with atomic_write(folder / CARD) as file:
        file.write((json.dumps(asdict(made), indent=1) + "\n").encode())
    return made


def _read_weights(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = f"Model '{folder.name}'"
    path = folder / WEIGHTS
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ModelError(f"{where}: {WEIGHTS} is too large to be a CM-UNet.")
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise ModelError(f"{where} is incomplete: {WEIGHTS} is missing.") from exc
    except OSError as exc:
        raise ModelError(
            f"{where}: {WEIGHTS} cannot be read ({exc.strerror})."
        ) from exc
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise ModelError(
            f"{where}: {WEIGHTS} is not what its card says (truncated or altered). "
            "Install or import the model again."
        )
    try:
        return load(data)
    except (SafetensorError, ValueError) as exc:
        raise ModelError(f"{where}: {WEIGHTS} is damaged ({exc}).") from exc
