"""Opens ``.pth``, ``.pt`` and ``.ckpt`` files: what is in them, and their tensors.

Two kinds: the zip archive of today, and the row of pickles from before PyTorch 1.6.
Nothing is unpickled and nothing of the file is written to disk. Tensors are read one
at a time, when asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from napari_cmunet.errors import ModelError, ReadError, display_name
from napari_cmunet.model.published.inert_pickle import Machine, RefusedError
from napari_cmunet.model.published.torch_pickle import (
    ITEM_BYTES,
    Storage,
    TensorRecord,
    torch_calls,
)
from napari_cmunet.util.safe_files import open_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_FILE_BYTES = 2**30
_MAX_READ = 4 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint.

    Parameters
    ----------
    content : object
        What its pickle describes: plain containers, ``Record``, ``TensorRecord``.
    sha256 : str
        Of the file.
    load : callable
        Reads the tensor of a ``TensorRecord``.
    """

    content: Any
    sha256: str
    load: Callable[[TensorRecord], torch.Tensor]


@contextlib.contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Open a checkpoint for as long as its tensors are needed.

    Raises
    ------
    ReadError
        If the file cannot be read or is too large.
    ModelError
        If it is no checkpoint, is damaged, or asks for something to be run.
    """
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            if size > MAX_FILE_BYTES:
                limit = MAX_FILE_BYTES // 2**20
                raise ReadError(path, f"larger than {limit} MB; no CM-UNet is.")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            content, reader = _open(file, size)
            yield Checkpoint(content, digest, _Loader(reader).load)
    except OSError as exc:
        raise ReadError(path, f"cannot be read ({exc.strerror}).") from exc
    except RefusedError as exc:
        raise ModelError(
            f"{display_name(path)} is refused: {exc}. Nothing in it was run."
        ) from exc


def _open(file: BinaryIO, size: int) -> tuple[Any, Callable[[Storage], bytearray]]:
    start = file.read(64)
    file.seek(0)
    if start.startswith(_LFS_POINTER):
        raise RefusedError(
            "it is a git LFS pointer, not the file itself; download the file that "
            "it stands for, or use 'napari-cmunet models fetch'"
        )
    if start.startswith(b"PK"):
        archive = _ZipCheckpoint(file, size)
        return archive.content, archive.read
    legacy = _LegacyCheckpoint(file, size)
    return legacy.content, legacy.read


class _ZipCheckpoint:
    """``torch.save`` since PyTorch 1.6: one folder with ``data.pkl`` and ``data/N``."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        try:
            self._archive = zipfile.ZipFile(_Bounded(file))
        except (
            zipfile.BadZipFile,
            struct.error,
            ValueError,
            NotImplementedError,
        ) as exc:
            raise RefusedError("it is a damaged or truncated zip archive") from exc
        entries = self._archive.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise RefusedError("it is damaged (two parts of one name)")
        if any(not _is_plain(entry) for entry in entries):
            raise RefusedError("it is a compressed archive; PyTorch never writes those")
        # Parts that share bytes would be more than the file holds.
        if sum(entry.file_size for entry in entries) > size:
            raise RefusedError("it is damaged (its parts overlap)")
        pickles = [n for n in self._entries if n.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise RefusedError("it is a zip archive, but not a PyTorch checkpoint")
        self._root = pickles[0].split("/")[0]
        if f"{self._root}/constants.pkl" in self._entries:
            raise RefusedError(
                "it is a TorchScript program; save the model's state_dict instead"
            )
        if self._part("byteorder", b"little") != b"little":
            raise RefusedError("it was saved on a big-endian machine; save it again")
        calls, _ = torch_calls()
        with _zip_errors(), self._part_file("data.pkl") as part:
            self.content = Machine(calls).run(part)
            if part.read(1):  # the end is where the checksum is compared
                raise RefusedError("it is damaged (its list of objects has a tail)")

    def read(self, storage: Storage) -> bytearray:
        """The bytes of a storage."""
        entry = self._entries.get(f"{self._root}/data/{storage.key}")
        if entry is None or entry.file_size != storage.nbytes:
            raise RefusedError("it is damaged (a tensor's numbers are missing)")
        with _zip_errors(), self._archive.open(entry) as part:
            return _read_exactly(part, storage.nbytes)

    def _part_file(self, name: str) -> Any:
        return self._archive.open(self._entries[f"{self._root}/{name}"])

    def _part(self, name: str, default: bytes) -> bytes:
        if f"{self._root}/{name}" not in self._entries:
            return default
        with _zip_errors(), self._part_file(name) as part:
            return part.read(16)


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    return (
        entry.compress_type == zipfile.ZIP_STORED
        and entry.compress_size == entry.file_size
        and not entry.flag_bits & 1  # encrypted
    )


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        struct.error,
        EOFError,
        ValueError,
        NotImplementedError,
    ) as exc:
        raise RefusedError("it is damaged (truncated or altered)") from exc


class _LegacyCheckpoint:
    """``torch.save`` before 1.6: five pickles, then the numbers of each storage."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        calls, self._storages = torch_calls()

        def next_pickle() -> Any:
            return Machine(calls).run(file)

        begins = file.read(1)
        file.seek(0)
        try:
            magic = next_pickle()
        except RefusedError as exc:
            if begins == b"\x80" or "asks" in str(exc):
                raise
            raise RefusedError("it is not a PyTorch checkpoint") from exc
        if magic != _LEGACY_MAGIC:
            raise RefusedError("it is not a PyTorch checkpoint")
        version, system = next_pickle(), next_pickle()
        if version != _LEGACY_VERSION or not isinstance(system, dict):
            raise RefusedError("it is of an unknown version of PyTorch's format")
        if system.get("little_endian") is not True:
            raise RefusedError("it was saved on a big-endian machine; save it again")
        self.content = next_pickle()
        self._places = self._find(next_pickle())

    def read(self, storage: Storage) -> bytearray:
        """The bytes of a storage."""
        if storage.key not in self._places:
            raise RefusedError("it is damaged (a tensor's numbers are missing)")
        self._file.seek(self._places[storage.key])
        return _read_exactly(self._file, storage.nbytes)

    def _find(self, keys: Any) -> dict[str, int]:
        """Where each storage begins; each follows its own length."""
        if not isinstance(keys, list) or any(
            not isinstance(key, str) or key not in self._storages for key in keys
        ):
            raise RefusedError("it is damaged (its list of tensors is broken)")
        places, place = {}, self._file.tell()
        for key in keys:
            self._file.seek(place)
            (length,) = struct.unpack("<q", _read_exactly(self._file, 8))
            if length != self._storages[key].length:
                raise RefusedError("it is damaged (a tensor has another size)")
            places[key] = place + 8
            place += 8 + self._storages[key].nbytes
        if place > self._size:
            raise RefusedError("it is damaged (it ends early)")
        return places


class _Loader:
    """Makes tensors from their records; the storage read last is kept."""

    def __init__(self, read: Callable[[Storage], bytearray]) -> None:
        self._read = read
        self._last: tuple[Storage, bytearray] | None = None

    def load(self, record: TensorRecord) -> torch.Tensor:
        """A tensor of its own, contiguous, on the CPU."""
        dtype = getattr(torch, record.dtype)
        numbers = math.prod(record.shape)
        if numbers * ITEM_BYTES[record.dtype] > MAX_FILE_BYTES:
            # Strides of 0 can make a tensor larger than the file.
            raise RefusedError("it is damaged (a tensor of impossible size)")
        if not numbers:
            return torch.empty(record.shape, dtype=dtype)
        if self._last is None or self._last[0] != record.storage:
            self._last = None
            self._last = record.storage, self._read(record.storage)
        row = torch.frombuffer(self._last[1], dtype=dtype)
        view = row.as_strided(record.shape, record.stride, record.offset)
        return view.clone(memory_format=torch.contiguous_format)


class _Bounded:
    """A file as zipfile needs it, for which no read of the directory is too long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_MAX_READ + 1 if size < 0 else min(size, _MAX_READ + 1))
        if len(data) > _MAX_READ:
            raise RefusedError("it is not a model: its archive has too many parts")
        return data


def _read_exactly(file: BinaryIO, size: int) -> bytearray:
    """That many bytes; memory is taken for what is there, not for what is said."""
    data = bytearray()
    while len(data) < size:
        chunk = file.read(min(_MAX_READ, size - len(data)))
        if not chunk:
            raise RefusedError("it is damaged (it ends early)")
        data += chunk
    return data
