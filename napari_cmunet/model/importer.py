"""Import a published CM-UNet checkpoint as a model folder, with a report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import torch

from napari_cmunet.errors import ModelError, display_name, printable
from napari_cmunet.model.card import (
    CARD,
    MAX_WIDTH,
    ModelCard,
    Preprocessing,
    is_model_name,
)
from napari_cmunet.model.checkpoint import (
    HEAD,
    Checkpoint,
    Found,
    find_tensors,
    load_checkpoint,
)
from napari_cmunet.model.network import CMUNet, parameter_count
from napari_cmunet.model.pickle_screen import RefusedError
from napari_cmunet.model.published import (
    LICENCE,
    PublishedFile,
    published_by_hash,
)
from napari_cmunet.model.registry import (
    LoadReport,
    bundled_models_folder,
    load_model,
    load_weights,
    save_model,
    user_models_folder,
)
from napari_cmunet.util.safe_files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PUBLISHED_GRID = 256
"""The published networks were trained on frames of 256 x 256 pixels."""
_SEED = 0
_FIRST = "down_conv1.double_conv.double_conv.0.weight"
_ENCODER = ("down_conv", "double_conv.")
_COUNTERS = "num_batches_tracked"


@dataclass(frozen=True)
class ImportReport:
    """What was taken from a checkpoint, what is new and what was left out."""

    loaded: LoadReport
    layout: str  # how the file was laid out
    #: ``artery`` if its last convolution segments and came with it, else ``ssl``.
    kind: Literal["ssl", "artery"]
    width: int
    #: Parts of the network that were not in the file and got random values.
    new: tuple[str, ...]
    left_out: tuple[str, ...]  # tensors of the file that CM-UNet has no use for
    notes: tuple[str, ...]  # sentences on anything else
    sha256: str  # of the file
    published: PublishedFile | None  # the authors' file that it is, if it is one

    def __str__(self) -> str:
        lines = [f"{self.loaded}.", f"Layout: {self.layout}; width {self.width}."]
        if self.new:
            lines.append(
                f"New, with random values (seed {_SEED}): {', '.join(self.new)}."
            )
        if self.left_out:
            lines.append(f"Left out: {_some(self.left_out)}.")
        lines += self.notes
        if self.published:
            lines.append(f"Known file: {self.published.file}, {self.published.folder}.")
        else:
            lines.append("The file is none of the known published ones.")
        return "\n".join(lines)


@dataclass(frozen=True)
class ReadCheckpoint:
    """A network with a checkpoint's weights, and the report."""

    network: CMUNet
    report: ImportReport


def read_checkpoint(path: Path) -> ReadCheckpoint:
    """Read a published checkpoint without running anything in it.

    Raises
    ------
    ReadError
        If the file cannot be read.
    ModelError
        If it asks for something to be run, is damaged, is another architecture, or
        holds too little of a CM-UNet.
    """
    checkpoint, name = load_checkpoint(path), display_name(path)
    try:
        return _read(checkpoint, find_tensors(checkpoint.content), name)
    except RefusedError as exc:
        raise ModelError(f"{name} is refused: {exc}. Nothing in it was run.") from exc


def import_checkpoint(
    path: Path, name: str | None = None, *, force: bool = False
) -> tuple[Path, ImportReport]:
    """Make a model folder of a published checkpoint.

    Parameters
    ----------
    path : Path
        A ``.pth``, ``.pt`` or ``.ckpt`` file.
    name : str, optional
        Of the model; otherwise the known file's, or one made of the file's name.
    force : bool
        Replace a model of that name.

    Returns
    -------
    folder : Path
    report : ImportReport

    Raises
    ------
    ReadError, ModelError, WriteError
    """
    if name is not None:
        folder_for(name, force=force)  # refused before the time is spent
    read = read_checkpoint(path)
    report = read.report
    if name is None:
        known = report.published
        name = known.name if known else _name_from(path)
    folder = folder_for(name, force=force)
    weights = read.network.state_dict()
    if report.kind == "ssl":  # fine-tuning draws its own
        weights = {n: v for n, v in weights.items() if not n.startswith(HEAD)}
    save_model(folder, weights, _card(name, read))
    text = f"# {name}\n\nImported from a checkpoint.\n\n{report}\n"
    with atomic_write(folder / "README.md", "w") as file:
        file.write(text)
    load_model(folder)  # raises if what was written is not sound
    return folder, report


def folder_for(name: str, *, force: bool = False) -> Path:
    """The user's folder for a model to be made.

    Raises
    ------
    ModelError
        If the name will not do, is a bundled model's, or is taken.
    """
    if not is_model_name(name):
        raise ModelError(
            f"'{display_name(name)}' will not do as a model's name: up to 64 letters, "
            "digits, dots and dashes, a letter or digit first. Give one with --name."
        )
    if (bundled_models_folder() / name).exists():
        raise ModelError(
            f"'{name}' is a model that came with the program. Give another name with "
            "--name."
        )
    folder = user_models_folder() / name
    if (folder / CARD).exists() and not force:
        raise ModelError(
            f"There is a model named '{name}' already. Give another name with --name, "
            "or replace it with --force."
        )
    return folder


def _read(checkpoint: Checkpoint, found: Found, source: str) -> ReadCheckpoint:
    first = found.tensors.get(_FIRST)
    if first is None:
        raise RefusedError(f"it is another architecture ({found.layout}, no {_FIRST})")
    width = first.shape[0] if first.shape else 0
    if first.shape != (width, 1, 3, 3) or not 1 <= width <= MAX_WIDTH:
        raise RefusedError(
            f"it is another architecture: its first convolution is "
            f"{tuple(first.shape)}, a CM-UNet's (width, 1, 3, 3) with width up to "
            f"{MAX_WIDTH}"
        )
    outline = CMUNet.outline(width)
    own = {name: tuple(value.shape) for name, value in outline.items()}
    chosen, notes = _choose(found, own)
    has_head = any(name.startswith(HEAD) for name in chosen)
    unknown = tuple(sorted(set(found.tensors) - set(own)))
    if unknown and has_head:
        raise RefusedError(
            f"it is another architecture: it has {printable(unknown[0][:80])}, which "
            "CM-UNet does not"
        )
    tensors = dict(chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = CMUNet(width)
    missing = set(own) - set(tensors)
    for name in missing:
        if name.endswith(_COUNTERS) and _module(name) in map(_module, tensors):
            tensors[name] = torch.zeros(own[name], dtype=torch.int64)
    lost = [n for n in own if n not in tensors and not n.startswith(HEAD)]
    loaded = load_weights(network, tensors, source, allow_missing=len(lost))
    report = ImportReport(
        loaded=loaded,
        layout=found.layout,
        kind="artery" if has_head else "ssl",
        width=width,
        new=("decoder",) if lost else (),
        left_out=tuple(sorted((set(found.tensors) - set(chosen)) | set(found.beside))),
        notes=notes,
        sha256=checkpoint.sha256,
        published=published_by_hash(checkpoint.sha256),
    )
    return ReadCheckpoint(network.eval(), report)


def _choose(
    found: Found, own: dict[str, tuple[int, ...]]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors to load: the whole encoder, and the whole decoder or none of it."""
    chosen = {n: found.tensors[n] for n in own if n in found.tensors}
    encoder = _weights(n for n in own if n.startswith(_ENCODER))
    decoder = _weights(n for n in own if n.startswith("up_conv"))
    for part, names, may_miss in (
        ("encoder", encoder, False),
        ("decoder", decoder, True),
    ):
        there = len(names & set(chosen))
        if there < len(names) and (there or not may_miss):
            raise RefusedError(
                f"it holds only {there} of {len(names)} tensors of CM-UNet's {part}; "
                "it is another architecture, or incomplete"
            )
    notes = []
    head = [n for n in own if n.startswith(HEAD)]
    if any(n in chosen for n in head):
        fits = all(n in chosen and chosen[n].shape == own[n] for n in head)
        if not found.head_segments or not fits or not decoder <= set(chosen):
            for n in head:
                chosen.pop(n, None)
            notes.append("Its conv_last is a pre-training's and was left out.")
    for name, tensor in chosen.items():
        if tensor.shape != own[name]:
            raise RefusedError(
                f"it does not fit: {name} is {tuple(tensor.shape)}, where a CM-UNet of "
                f"width {own[_FIRST][0]} has {own[name]}"
            )
    return chosen, tuple(notes)


def _weights(names: Iterable[str]) -> set[str]:
    """Without the counters of batch normalisation, which old files lack."""
    return {name for name in names if not name.endswith(_COUNTERS)}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _card(name: str, read: ReadCheckpoint) -> ModelCard:
    report, known = read.report, read.report.published
    if known:
        description = known.description
        data = f"the authors' private set; about {known.labels} labelled frames"
    else:
        description = f"Imported from a checkpoint ({report.layout})."
        data = "not stated in the file"
    return ModelCard(
        name=name,
        kind=report.kind,
        width=report.width,
        preprocessing=Preprocessing(grid=PUBLISHED_GRID),
        parameters=parameter_count(read.network),
        description=description,
        data=f"{data}; file SHA-256 {report.sha256}",
        licence=LICENCE if known else "not stated in the file",
        labels=known.labels if known else 0,
        created=datetime.now(UTC).date().isoformat(),
    )


def _name_from(path: Path) -> str:
    """A model's name made of a file's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:64].rstrip(".")
    return name or "imported"


def _some(names: tuple[str, ...]) -> str:
    text = ", ".join(printable(name[:80]) for name in names[:4])
    more = len(names) - 4
    return f"{text} and {more} more" if more > 0 else text
