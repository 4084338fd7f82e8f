"""Broken and hostile checkpoints: zip archives and rows of pickles."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from typing import TYPE_CHECKING

import torch

from napari_cmunet.model.importer import read_checkpoint
from tests.fuzzing.mutations import NAMES, number_bytes, spoil
from tests.fuzzing.targets import MEGABYTE
from tests.model.checkpoint_makers import (
    network,
    save_genesis,
    save_mmengine,
    save_spark,
    save_whole,
)

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

_EVIL = (
    b"cos\nsystem\n(S'touch canary'\ntR",
    b'cbuiltins\neval\n(S\'open("canary", "w")\'\ntR',
    b"(S'touch canary'\nios\nsystem\n",
    b"(cos\nsystem\nS'touch canary'\no",
    b"\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R",
    b"cos\nsystem\n\x8c\x0ctouch canary\x85}\x92",
    b"cposix\nsystem\n\x8c\x0ctouch canary\x85\x81",
    b"\x82\x01",
    b"\x84\xff\xff\xff\x7f",
    b"Pabc\n",
    b"}(U\x0c__setstate__cos\nsystem\nub",
    b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch canary'\ntR",
    b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)))tR",
    b"ccollections\nOrderedDict\n)R(S'__reduce__'\ncos\nsystem\nu",
    b"2" * 200,
    b"(" * 200,
    b"\x94" * 50,
    b"]" + b"2a" * 100,
)
_LIMIT_OF_PARTS = 4096


class CheckpointFile:
    """``.pth`` files as PyTorch writes them, spoiled inside and outside."""

    limit = 64 * MEGABYTE

    def __init__(self, folder: Path) -> None:
        self.path = folder / "input.pth"
        made = network()
        corpus = []
        for save in (save_genesis, save_mmengine, save_spark, save_whole):
            save(self.path, made)
            corpus.append(self.path.read_bytes())
        torch.save(made.state_dict(), self.path)
        corpus.append(self.path.read_bytes())
        for state in (made.state_dict(), {"state_dict": made.state_dict()}):
            torch.save(state, self.path, _use_new_zipfile_serialization=False)
            corpus.append(self.path.read_bytes())
        self.corpus = corpus

    def write(self, random: Random) -> None:
        data = random.choice(self.corpus)
        kind = random.random()
        if kind < 0.75:
            alter = _alter_archive if data[:2] == b"PK" else _alter_row
            data = alter(random, data)
        else:
            data = spoil(random, data, self.corpus)
        self.path.write_bytes(data)

    def read(self) -> None:
        made = read_checkpoint(self.path)
        for value in made.network.state_dict().values():
            assert torch.isfinite(value).all()

    def paths(self) -> list[Path]:
        return [self.path]


def _alter_archive(random: Random, data: bytes) -> bytes:
    """Write the archive anew, with other parts."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(random.choice((1, 1, 1, 2))):
        at = next(i for i, (name, _) in enumerate(parts) if name.endswith("data.pkl"))
        if random.random() < 0.3:
            at = random.randrange(len(parts))
        name, body = parts[at]
        kind = random.randrange(8)
        if kind == 0:
            parts.insert(at, random.choice(parts))
        elif kind == 1:
            parts[at] = (random.choice((*NAMES, name[:-1] + "9")) or "x", body)
        elif kind == 2:
            parts[at] = (name, spoil(random, body))
        else:
            parts[at] = (name, _alter_pickle(random, body))
        if not any(name.endswith("data.pkl") for name, _ in parts):
            break
    made = io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if random.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(made, "w", packed) as archive:
        for name, body in parts:
            safe = name.encode("utf-8", "replace").decode()
            archive.NameToInfo.pop(safe, None)
            archive.writestr(zipfile.ZipInfo(safe), body, packed)
    data = made.getvalue()
    return spoil(random, data) if random.random() < 0.1 else data


def _alter_row(random: Random, data: bytes) -> bytes:
    """Spoil the pickles at the beginning of an old checkpoint."""
    ends, at = [], 0
    while at < len(data) and len(ends) < 5:
        try:
            for op, _, place in pickletools.genops(data[at:]):
                if op.name == "STOP":
                    at += place + 1
                    break
        except ValueError:
            break
        ends.append(at)
    starts = [0, *ends]
    which = random.randrange(len(ends))
    one = data[starts[which] : starts[which + 1]]
    return (
        data[: starts[which]] + _alter_pickle(random, one) + data[starts[which + 1] :]
    )


def _alter_pickle(random: Random, data: bytes) -> bytes:
    """Drop, repeat, swap or replace instructions, or put hostile ones between."""
    try:
        places = [place for _, _, place in pickletools.genops(data)]
    except ValueError:
        return spoil(random, data)
    ends = [*places[1:], len(data)]
    pieces = [data[a:b] for a, b in zip(places, ends, strict=True)]
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(pieces))
        kind = random.randrange(7)
        if kind == 0 and len(pieces) > 1:
            del pieces[at]
        elif kind == 1:
            times = random.choice((1, 1, 1000))
            if len(pieces[at]) < 1000:  # itself may be made of a thousand
                pieces.insert(at, pieces[at] * times)
        elif kind == 2:
            other = random.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind < 5:
            pieces.insert(at, random.choice(_EVIL))
        elif pieces[at][:1] in b"KMJ\x8a":
            size = max(1, len(pieces[at]) - 1)
            pieces[at] = random.choice(
                (pieces[at][:1] + number_bytes(random, size), b"J\xff\xff\xff\xff")
            )
        else:
            pieces[at] = spoil(random, pieces[at])
    made = b"".join(pieces)
    return made if random.random() < 0.9 else made.rstrip(pickle.STOP)
