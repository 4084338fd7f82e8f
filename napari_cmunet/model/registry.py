"""Model folders: find, verify, load and save ``weights.safetensors`` and ``card.json``.

Pickles are never read. torch is imported inside the functions that need it, so that
the window lists models without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from napari_cmunet.errors import (
    ModelError,
    UnknownModelError,
    display_name,
    printable,
)
from napari_cmunet.model.card import (
    CARD,
    ModelCard,
    card_from_json,
    card_to_json,
    is_model_name,
    read_card,
)
from napari_cmunet.util.safe_files import atomic_write, make_folder, read_plain
from napari_cmunet.vessels.segments import SEGMENTS

if TYPE_CHECKING:
    import torch

    from napari_cmunet.model.network import CMUNet

WEIGHTS = "weights.safetensors"
DEFAULT_MODEL = "cmunet-artery"
"""Pre-segments on first start."""
START_MODEL = "cmunet-ssl"
"""Where fine-tuning starts."""
MAX_WEIGHTS_BYTES = 2**30
# 8-bit floats and the like are in no CM-UNet, and torch can do little with them.
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_COUNTS = ("int64", "int32", *_FLOATS)


@dataclass(frozen=True)
class LoadReport:
    """Which tensors were loaded into a network.

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
        head = "with conv_last" if self.head_loaded else "conv_last new"
        return (
            f"{self.loaded} of {self.total} encoder and decoder tensors from "
            f"{self.source}, {head}"
        )


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, in evaluation mode, its card and its load report."""

    network: CMUNet
    card: ModelCard
    report: LoadReport


def bundled_models_folder() -> Path:
    """The ``models`` folder of the wheel, or of the repository when editable."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def user_folder() -> Path:
    """The folder of the user's own data.

    ``NAPARI_CMUNET_HOME`` overrides the place that the system provides.
    """
    home = os.environ.get("NAPARI_CMUNET_HOME")
    return Path(home) if home else user_data_path("napari-cmunet", appauthor=False)


def user_models_folder() -> Path:
    """Where imported models are kept."""
    return user_folder() / "models"


def list_models() -> list[tuple[ModelCard, Path]]:
    """Cards and folders of all models that can be named, bundled ones first.

    A model is called as its folder is. Folders whose card cannot be read are left
    out; ``models verify`` names them.
    """
    found: dict[str, tuple[ModelCard, Path]] = {}
    for folder in model_folders():
        if not is_model_name(folder.name):
            continue
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


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of a model, by its name or by the folder itself.

    Raises
    ------
    ModelError
        If there is none, naming those that there are.
    """
    text = str(name_or_folder)
    if is_model_name(text):
        for base in (bundled_models_folder(), user_models_folder()):
            if (base / text / CARD).is_file():
                return base / text
    folder = Path(name_or_folder)
    try:
        is_folder, is_model = folder.is_dir(), (folder / CARD).is_file()
    except OSError:  # a name too long for any file, a folder that may not be entered
        is_folder = is_model = False
    if is_model:
        return folder
    if is_folder:
        raise UnknownModelError(
            f"The folder '{display_name(folder.resolve())}' is not a model: it has no "
            f"{CARD}."
        )
    known = ", ".join(folder.name for _, folder in list_models()) or "none"
    raise UnknownModelError(
        f"There is no model named '{display_name(text)}'. Known models: {known}. A "
        f"folder that holds {WEIGHTS} and {CARD} can be given too."
    )


def load_model(name_or_folder: str | Path) -> LoadedModel:
    """Load a model by name or folder, on the CPU, in float32.

    The weights' hash is checked against the card before they are read.

    Raises
    ------
    ModelError
        If it is missing, altered, truncated, of another architecture, or holds
        values that are not numbers.
    """
    import torch

    from napari_cmunet.model.network import CMUNet

    folder = find_model(name_or_folder)
    card = read_card(folder)
    tensors = _read_weights(folder, card)
    source = folder.resolve().name
    # Without memory, for the card may name any width, and without random weights.
    with torch.device("meta"):
        network = CMUNet(card.width, len(SEGMENTS) + 1 if card.kind == "names" else 2)
    report = load_weights(network, tensors, source)
    if not report.head_loaded:
        network.conv_last.to_empty(device="cpu").reset_parameters()
    if card.kind != "ssl" and not report.head_loaded:
        raise ModelError(
            f"Model '{report.source}' is incomplete: it has no conv_last, without "
            "which nothing is found."
        )
    return LoadedModel(network.eval(), card, report)


def load_weights(
    network: CMUNet,
    tensors: dict[str, torch.Tensor],
    source: str,
    *,
    allow_missing: int = 0,
) -> LoadReport:
    """Load weights strictly; raise on any mismatch.

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
            f"Model '{source}' is another architecture: it holds {unknown[0]!r:.80}, "
            "which CM-UNet does not have."
        )
    for name, value in tensors.items():
        kind = str(value.dtype).removeprefix("torch.")
        if kind not in (_FLOATS if own[name].is_floating_point() else _COUNTS):
            raise ModelError(f"Model '{source}' is damaged: {name} is {kind}.")
        if value.shape != own[name].shape:
            raise ModelError(
                f"Model '{source}' does not fit: {name} has shape "
                f"{tuple(value.shape)}, the network needs {tuple(own[name].shape)}."
            )
    loaded = body & set(tensors)
    if head & set(tensors) and not head <= set(tensors):
        raise ModelError(f"Model '{source}' is damaged: half of conv_last is missing.")
    if len(body) - len(loaded) > allow_missing:
        raise ModelError(
            f"Only {len(loaded)} of {len(body)} encoder and decoder tensors were found "
            f"in model '{source}'. Nothing was loaded."
        )
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"Model '{source}' is damaged: {name} is not finite.")
        if name.endswith("running_var") and (value < 0).any():
            raise ModelError(f"Model '{source}' is damaged: {name} is negative.")
    head_loaded = head <= set(tensors)
    kept = loaded | (head if head_loaded else set())
    network.load_state_dict(
        own | {k: tensors[k].to(own[k].dtype, copy=True) for k in kept},
        strict=True,
        assign=True,
    )
    return LoadReport(source, len(loaded), len(body), head_loaded)


_OPERATING_POINT = ("threshold", "preprocessing", "postprocessing")


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

    half = {
        k: (v.to(torch.float16) if v.is_floating_point() else v).cpu().contiguous()
        for k, v in weights.items()
    }
    for name, value in half.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{name} does not fit half precision; model not saved.")
    values = card_to_json(card)
    # So that the hash tells models of the same weights apart.
    used = {name: values[name] for name in _OPERATING_POINT}
    data = save(half, {"operating_point": json.dumps(used, sort_keys=True)})
    values |= {"sha256": hashlib.sha256(data).hexdigest()}
    # Whatever may fail comes before the first byte is written.
    try:
        made = card_from_json(values)
    except ValueError as exc:
        raise ModelError(f"The model cannot be saved: {exc}.") from exc
    text = json.dumps(values, indent=1) + "\n"
    make_folder(folder)
    with atomic_write(folder / WEIGHTS) as file:
        file.write(data)
    with atomic_write(folder / CARD) as file:
        file.write(text.encode())
    return made


def _read_weights(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = f"Model '{display_name(folder.resolve())}'"
    path = folder / WEIGHTS
    try:
        data = read_plain(path, MAX_WEIGHTS_BYTES)
        if data is None:
            raise ModelError(f"{where}: {WEIGHTS} is too large to be a CM-UNet.")
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
    except (SafetensorError, ValueError, KeyError) as exc:
        why = printable(str(exc)[:200])
        raise ModelError(f"{where}: {WEIGHTS} is damaged ({why}).") from exc
