"""Read ``.pth``, ``.pt`` and ``.ckpt`` files with ``torch.load(weights_only=True)``.

Classes that are not torch's own are replaced by inert stand-ins, so that whole pickled
modules and training checkpoints load without the code that made them. In what was
read, :func:`find_tensors` finds the network in the seven known layouts.

:mod:`napari_cmunet.model.pickle_screen` and the checks of the archive come first:
``weights_only`` executes nothing, but PyTorch would decompress a zip bomb and, without
a memory map, view a storage beyond its end.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from napari_cmunet.errors import ModelError, ReadError, display_name
from napari_cmunet.model.pickle_screen import (
    MAX_FILE_BYTES,
    NOTED,
    RefusedError,
    ShortReads,
    screen,
)
from napari_cmunet.util.safe_files import open_plain

if TYPE_CHECKING:
    from pathlib import Path

_LFS_POINTER = b"version https://git-lfs"
# Magic number and version of the format before PyTorch 1.6: two pickles, then three.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    #: Plain containers and tensors. An object of a class that is not torch's own is
    #: an ``OrderedDict`` of its items, with its state as attributes. Tensors may
    #: share the file's memory map.
    content: Any
    sha256: str  # of the file


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint on the CPU without running anything in it.

    Raises
    ------
    ReadError
        If the file cannot be read or is too large.
    ModelError
        If it is not a checkpoint, is damaged, or asks for something to be run.
    """
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            if size > MAX_FILE_BYTES:
                limit = MAX_FILE_BYTES // 2**20
                raise ReadError(path, f"larger than {limit} MB; no CM-UNet is.")
            file.seek(0)
            raw: Any = file
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
            file.seek(0)
            is_zip, classes = _screen_file(file, size)
        return Checkpoint(_load(path, is_zip, classes), digest)
    except OSError as exc:
        raise ReadError(path, f"cannot be read ({exc.strerror}).") from exc
    except RefusedError as exc:
        raise ModelError(
            f"{display_name(path)} is refused: {exc}. Nothing in it was run."
        ) from exc


def _load(path: Path, is_zip: bool, classes: set[str]) -> Any:
    stand_ins: list[Any] = [(_StandIn, name) for name in classes]
    stand_ins += [(_note, name) for name in NOTED]
    stand_ins += [
        (_Note, f"{__name__}._Note"),
        (_get_attribute, "builtins.getattr"),
        (_make_frozenset, "builtins.frozenset"),
        (_make_dict, "collections.defaultdict"),
    ]
    try:
        # The memory map bounds every storage by the file; its tensors cannot grow.
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as exc:
        raise RefusedError("it is damaged (PyTorch cannot load it)") from exc


class _StandIn:
    """Stands in for a class: its objects become dicts, which cannot do anything."""

    def __new__(cls) -> Any:
        return OrderedDict()


class _Note:
    """Stands in for a plain value that is not needed."""

    def __setstate__(self, state: Any) -> None:
        pass


def _note(*args: Any) -> _Note:
    return _Note()


def _get_attribute(owner: Any, name: str) -> _Note:
    return _Note()


def _make_frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(items)


def _make_dict(*args: Any) -> dict[Any, Any]:
    return {}


def _screen_file(file: BinaryIO, size: int) -> tuple[bool, set[str]]:
    """Whether the file is a zip archive, and the classes to stand in for."""
    start = file.read(64)
    file.seek(0)
    if start.startswith(_LFS_POINTER):
        raise RefusedError(
            "it is a git LFS pointer, not the file itself; download the file that "
            "it stands for, or use 'napari-cmunet models fetch'"
        )
    if start.startswith(b"PK"):
        return True, _screen_zip(file, size)
    if not start.startswith(_LEGACY):
        try:
            screen(file, lambda key, nbytes: None)
        except RefusedError as exc:
            if start[:1] == b"\x80" or "asks" in str(exc):
                raise
        raise RefusedError("it is not a PyTorch checkpoint")
    return False, _screen_legacy(file, size)


def _screen_zip(file: BinaryIO, size: int) -> set[str]:
    """``torch.save`` since PyTorch 1.6: one folder with ``data.pkl`` and ``data/N``."""
    try:
        bounded: Any = ShortReads(file)
        archive = zipfile.ZipFile(bounded)
        entries = archive.infolist()
        parts = {entry.filename: entry for entry in entries}
        if len(parts) < len(entries):
            raise RefusedError("it is damaged (two parts of one name)")
        if not all(map(_is_stored, entries)):
            raise RefusedError("it is a compressed archive; PyTorch never writes those")
        if sum(entry.file_size for entry in entries) > size:
            raise RefusedError("it is damaged (its parts overlap)")
        pickles = [name for name in parts if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1 or archive.comment:
            raise RefusedError("it is a zip archive, but not a PyTorch checkpoint")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in parts:
            raise RefusedError(
                "it is a TorchScript program; save the model's state_dict instead"
            )
        if archive.testzip() is not None:
            raise RefusedError("it is damaged (truncated or altered)")
        order = f"{root}byteorder"
        if order in parts and archive.open(order).read(16) != b"little":
            raise RefusedError("it was saved on a big-endian machine; save it again")

        def storage(key: str, nbytes: int) -> None:
            entry = parts.get(f"{root}data/{key}")
            if entry is None or entry.file_size != nbytes:
                raise RefusedError("it is damaged (a tensor's numbers are missing)")

        with archive.open(pickles[0]) as part:
            classes = screen(part, storage)
            if part.read(1):
                raise RefusedError("it is damaged (its list of objects has a tail)")
    except zipfile.BadZipFile as exc:
        raise RefusedError("it is a damaged or truncated zip archive") from exc
    except (struct.error, EOFError, ValueError, NotImplementedError) as exc:
        raise RefusedError("it is damaged (truncated or altered)") from exc
    return classes


def _is_stored(entry: zipfile.ZipInfo) -> bool:
    return (
        entry.compress_type == zipfile.ZIP_STORED
        and entry.compress_size == entry.file_size
        and not entry.flag_bits & 1  # encrypted
    )


def _screen_legacy(file: BinaryIO, size: int) -> set[str]:
    """``torch.save`` before 1.6: five pickles, then the numbers of each storage."""
    storages: dict[str, int] = {}

    def storage(key: str, nbytes: int) -> None:
        storages[key] = nbytes
        if sum(storages.values()) > size:
            raise RefusedError("it is damaged (a tensor's numbers are missing)")

    file.seek(len(_LEGACY))
    classes: set[str] = set()
    for _ in range(3):  # the system, the content, the storages' keys
        classes |= screen(file, storage)
    return classes


HEAD = "conv_last."
_MAX_MODULES = 10_000
_MAX_PARTS = 100_000
_MAX_NAME = 1000
_MOST_WRAPPERS = 4
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile


@dataclass(frozen=True)
class Found:
    """What a checkpoint holds for CM-UNet."""

    layout: str  # in words
    #: By CM-UNet's parameter names, as far as the layout tells; others too.
    tensors: dict[str, torch.Tensor]
    #: Tensors that belong to other parts of the training, by their own names.
    beside: tuple[str, ...] = ()
    #: Whether a last convolution, if there is one, can be one that segments.
    head_segments: bool = False


def find_tensors(content: Any) -> Found:
    """Recognise the layout of a checkpoint's content.

    Raises
    ------
    RefusedError
        If it is none of the known ones.
    """
    if "_modules" in getattr(content, "__dict__", ()):
        state = _module_state(content)
        return Found("a whole pickled module", _unwrapped(state), head_segments=True)
    if not isinstance(content, dict):
        raise RefusedError("it holds no network")
    content = _plain(content)
    meta, state = content.get("meta"), content.get("state_dict")
    if isinstance(content.get("module"), dict):
        return _parts(
            "a SparK pre-training",
            _tensors(content["module"]),
            ("sparse_encoder.sp_cnn.", "dense_decoder."),
        )
    if isinstance(meta, dict) and "mmengine_version" in _plain(meta):
        return _parts(
            "a CM-UNet pre-training (mmengine)",
            _tensors(state),
            ("backbone.", "pixel_decoder."),
        )
    if isinstance(state, dict):
        tensors = _tensors(state)
        if any(name.startswith("encoder_q.") for name in tensors):
            return _parts("a MoCo pre-training (Lightning)", tensors, ("encoder_q.",))
        if any(name.startswith("module.") for name in tensors):
            return _parts("a Models Genesis or MAE pre-training", tensors, ("module.",))
        return Found(
            "a state dict under 'state_dict'", _unwrapped(tensors), head_segments=True
        )
    tensors = _tensors(content)
    if any(name.startswith("module.") for name in tensors):
        layout = "a state dict with 'module.' (DataParallel)"
    else:
        layout = "a plain state dict"
    return Found(layout, _unwrapped(tensors), head_segments=True)


def _plain(made: dict) -> dict:
    """A dict whose methods are dict's own, not attributes that a file has set."""
    return dict(dict.items(made))


def _tensors(state: Any) -> dict[str, torch.Tensor]:
    """The tensors of a dict, by name; what else is in it is left out."""
    if not isinstance(state, dict):
        raise RefusedError("it holds no network")
    found = {
        name: value.detach()
        for name, value in _plain(state).items()
        if isinstance(value, torch.Tensor)
        and isinstance(name, str)
        and len(name) <= _MAX_NAME
    }
    if not found:
        raise RefusedError("it holds no network")
    return found


def _parts(
    layout: str, tensors: dict[str, torch.Tensor], prefixes: tuple[str, ...]
) -> Found:
    """Only what one of the prefixes names, which is taken away."""
    found: dict[str, torch.Tensor] = {}
    beside = []
    for name, value in tensors.items():
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        if prefix is None:
            beside.append(name)
            continue
        own = name.removeprefix(prefix)
        if own in found:
            raise RefusedError(f"it holds two tensors for {own[:80]!r}")
        found[own] = value
    return Found(layout, found, tuple(beside))


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the prefix that a wrapper gave to all of them."""
    for _ in range(_MOST_WRAPPERS):
        prefix = next(
            (p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None
        )
        if prefix is None or not tensors:
            break
        tensors = {n.removeprefix(prefix): v for n, v in tensors.items()}
    return tensors


def _module_state(module: Any) -> dict[str, torch.Tensor]:
    """The state dict of a module that was pickled whole, from its stand-in."""
    tensors: dict[str, torch.Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    modules = parts = 0
    while waiting:
        prefix, stand_in = waiting.pop()
        state = getattr(stand_in, "__dict__", {})
        groups = [_group(state, kind) for kind in ("_parameters", "_buffers")]
        children = _group(state, "_modules")
        # Modules that contain each other, or one in many places, have no end.
        modules += 1
        parts += sum(map(len, groups)) + len(children)
        if modules > _MAX_MODULES or parts > _MAX_PARTS or len(prefix) > _MAX_NAME:
            raise RefusedError("it has too many parts to be a CM-UNet")
        passing = state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        for group in groups:
            for name, value in group.items():
                if isinstance(value, torch.Tensor) and name not in passing:
                    tensors[f"{prefix}{name}"] = value.detach()
        for name, value in children.items():
            if value is not None:
                waiting.append((f"{prefix}{name}.", value))
    if not tensors:
        raise RefusedError("it holds no network")
    return tensors


def _group(state: Any, kind: str) -> dict[str, Any]:
    """The parameters, buffers or modules of one module, by name."""
    group = _plain(state[kind]) if isinstance(state.get(kind), dict) else None
    if group is None or any(
        not isinstance(name, str) or len(name) > _MAX_NAME for name in group
    ):
        raise RefusedError("it is damaged (a module without its parts)")
    return group
