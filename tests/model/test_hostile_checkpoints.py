"""Checkpoints made to run something, or to take memory: more shapes of them.

Each of some 130 files is refused, says why, and runs nothing; what calls it would have
made is in ``test_pickle_screen.py``, here it is by which tricks a call is brought
about.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from napari_cmunet.errors import ModelError
from napari_cmunet.model.importer import read_checkpoint
from tests.model.checkpoint_makers import (
    archive,
    calling,
    named,
    program,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROTOCOLS = range(6)
SHELL = "touch canary"


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder to stand in, in which nothing may come to be."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ran: list[str] = []
    for module, name in ((os, "system"), (os, "popen"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, lambda *_, **__: ran.append("ran"))
    yield
    assert not ran
    assert not list((tmp_path / "here").iterdir())
    assert "antigravity" not in sys.modules


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def system(protocol: int) -> bytes:
    return named("os", "system", protocol)


def shell(protocol: int) -> bytes:
    return program(SHELL, protocol)


def argument(protocol: int) -> bytes:
    return b"(" + shell(protocol) + b"t"


# Instructions that bring a call about, by protocol.
TRICKS: dict[str, Callable[[int], bytes]] = {
    "a name by text, called": lambda p: b"cos\nsystem\n" + argument(p) + b"R",
    "a name from the stack, called": lambda p: (
        b"\x8c\x02os\x8c\x06system\x93" + argument(p) + b"R"
    ),
    "INST": lambda p: b"(" + shell(p) + b"ios\nsystem\n",
    "OBJ": lambda p: b"(" + system(p) + shell(p) + b"o",
    "NEWOBJ": lambda p: system(p) + argument(p) + b"\x81",
    "NEWOBJ_EX": lambda p: system(p) + argument(p) + program({"a": 1}, p) + b"\x92",
    "NEWOBJ_EX without names": lambda p: system(p) + argument(p) + b"}\x92",
    "a function from the memo": lambda p: (
        system(p) + b"p900\n0g900\n" + argument(p) + b"R"
    ),
    "arguments from the memo": lambda p: (
        argument(p) + b"r\x84\x03\0\x000" + system(p) + b"j\x84\x03\0\0R"
    ),
    "a function twice": lambda p: system(p) + b"2" + argument(p) + b"R",
    "behind a mark": lambda p: b"((" + system(p) + argument(p) + b"Rtt",
    "among what is dropped": lambda p: system(p) + argument(p) + b"R0]",
    "as a key": lambda p: b"}(" + system(p) + argument(p) + b"RK\x01u",
    "as the state of an object": lambda p: (
        named("model", "Net", p) + b")\x81" + system(p) + argument(p) + b"Rb"
    ),
    "__setstate__ by BUILD": lambda p: (
        named("model", "Net", p)
        + b")\x81}("
        + program("__setstate__", p)
        + system(p)
        + b"ub"
        + shell(p)
        + b"b"
    ),
    "BUILD on a function": lambda p: system(p) + program({"x": 1}, p) + b"b",
    "slots by BUILD": lambda p: (
        named("model", "Net", p) + b")\x81(N" + program({"f": 1}, p) + b"tb"
    ),
    "a module by its source": lambda p: (
        b"(" + program("module", p) + system(p) + program("", p) * 2 + b"tQ"
        + argument(p) + b"R"
    ),
    "getattr, then a call": lambda p: calling(
        calling(named("builtins", "getattr", p), system(p), program("__call__", p)),
        shell(p),
    ),
    "__newobj__ with arguments": lambda p: calling(
        named("copyreg", "__newobj__", p), system(p), shell(p)
    ),
    "_reconstructor with a state": lambda p: calling(
        named("copyreg", "_reconstructor", p),
        system(p),
        named("builtins", "str", p),
        shell(p),
    )
    + argument(p)
    + b"R",
    "a default factory": lambda p: (
        calling(named("collections", "defaultdict", p), system(p)) + argument(p) + b"R"
    ),
    "what a tensor is rebuilt by": lambda p: calling(
        named("torch._tensor", "_rebuild_from_type_v2", p),
        system(p),
        named("torch", "Tensor", p),
        argument(p),
        b"N",
    ),
}  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("trick", TRICKS)
def test_a_call_by_a_trick(trick: str, protocol: int, tmp_path: Path) -> None:
    data = whole(TRICKS[trick](protocol), protocol)
    (tmp_path / "row.pth").write_bytes(data)
    refused(tmp_path / "row.pth")
    refused(archive(tmp_path / "zip.pth", data))


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x82\x01",
        b"\x83\x01\x00",
        b"\x84\x01\x00\x00\x00",
        b"Pos.system\n",
        b"\x97",
        b"\x97\x98",
        b"]\x98",
        b"\x96" + struct.pack("<Q", 2**62),
        b"\x8e" + struct.pack("<Q", 2**62),
        b"\x8d" + struct.pack("<Q", 2**63),
        b"\x95" + struct.pack("<Q", 2**63),
        b"\x8b\xff\xff\xff\x7f",
        b"r\xff\xff\xff\xff",
        b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff",
        b"h\x07",
        b"0",
        b"1",
        b"R",
        b"b",
        b"u",
        b"N\x81",
        b"]}s",
        b"]}\x90",
        b"\x8f(]\x90",
        b"\x80\xff",
    ],
)
def test_registry_buffers_and_broken_stacks(
    instructions: bytes, tmp_path: Path
) -> None:
    refused(archive(tmp_path / "a.pth", b"\x80\x04" + instructions + b"."))


def storage(kind: str = "FloatStorage", length: object = 4, key: object = "0") -> bytes:
    start = b"(" + program("storage", 2) + named("torch", kind, 2)
    return start + program(key, 2) + program("cpu", 2) + program(length, 2) + b"tQ"


def tensor(
    made_of: bytes, *rest: object, function: str = "_rebuild_tensor_v2"
) -> bytes:
    arguments = [program(value, 2) for value in rest]
    return calling(named("torch._utils", function, 2), made_of, *arguments)


FIRST = "down_conv1.double_conv.double_conv.0.weight"
TENSORS = {
    "too few arguments": tensor(storage(), 0),
    "too many": tensor(storage(), 0, (4,), (1,), False, None, None, 1, 2),
    "no storage": tensor(program({}, 2), 0, (4,), (1,)),
    "a function for a storage": tensor(named("os", "system", 2), 0, (4,), (1,)),
    "a negative shape": tensor(storage(), 0, (-4,), (1,)),
    "a negative stride": tensor(storage(), 3, (4,), (-1,)),
    "a negative offset": tensor(storage(), -1, (4,), (1,)),
    "a stride too far": tensor(storage(), 0, (2, 2), (2**30, 1)),
    "a shape too large": tensor(storage(), 0, (2**39, 2**39), (0, 0)),
    "rows that overlap without end": tensor(storage(), 0, (2**39, 4), (0, 1)),
    "fractions": tensor(storage(), 0, (4.0,), (1,)),
    "truth for a size": tensor(storage(), 0, (True,), (1,)),
    "a text for a shape": tensor(storage(), 0, "4", (1,)),
    "more axes than strides": tensor(storage(), 0, (2, 2), (1,)),
    "seventy axes": tensor(storage(), 0, (1,) * 70, (1,) * 70),
    "a huge storage": tensor(storage(length=2**41), 0, (4,), (1,)),
    "terabytes that are not there": tensor(storage(length=2**40), 0, (2**40,), (1,)),
    "a negative storage": tensor(storage(length=-4), 0, (4,), (1,)),
    "a storage of text": tensor(storage(length="4"), 0, (4,), (1,)),
    "an unknown storage": tensor(storage("system"), 0, (4,), (1,)),
    "a key with folders": tensor(storage(key="../data.pkl"), 0, (4,), (1,)),
    "a key that is a number": tensor(storage(key=0), 0, (4,), (1,)),
    "a parameter of nothing": tensor(program(1, 2), function="_rebuild_parameter"),
    "a wrapper": tensor(storage(), function="_rebuild_wrapper_subclass"),
    "from numpy": tensor(storage(), function="_rebuild_device_tensor_from_numpy"),
    "sparse": tensor(storage(), 0, function="_rebuild_sparse_tensor"),
    "quantised": tensor(storage(), 0, (4,), (1,), function="_rebuild_qtensor"),
    "hooks that are functions": calling(
        named("torch._utils", "_rebuild_tensor_v2", 2),
        storage(),
        program(0, 2),
        program((4,), 2),
        program((1,), 2),
        program(False, 2),
        calling(named("os", "system", 2), program(SHELL, 2)),
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_cannot_be(name: str, tmp_path: Path) -> None:
    data = whole(b"}" + program(FIRST, 2) + TENSORS[name] + b"s", 2)
    refused(archive(tmp_path / "a.pth", data, {"0": bytes(16)}))


def _zip(path: Path, parts: list[tuple[str, bytes]], **options: object) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, body in parts:
            made.NameToInfo.pop(name, None)  # twice is what is wanted: no warning
            info = zipfile.ZipInfo(name)
            info.external_attr = options.get("mode", 0) << 16
            made.writestr(info, body)
    return path


SOUND = whole(b"}" + program(FIRST, 2) + tensor(storage(), 0, (4,), (1,)) + b"s", 2)
EVIL = whole(calling(named("os", "system", 2), program(SHELL, 2)), 2)


@pytest.mark.parametrize(
    "parts",
    [
        [("a/data.pkl", SOUND), ("a/data.pkl", EVIL)],
        [("a/data.pkl", EVIL), ("a/data.pkl", SOUND)],
        [("a/data.pkl", SOUND), ("b/data.pkl", EVIL)],
        [("../data.pkl", EVIL)],
        [("/data.pkl", EVIL)],
        [("a/../data.pkl", EVIL)],
        [("a\\data.pkl", EVIL)],
        [("data.pkl", EVIL)],
        [("a/DATA.PKL", EVIL)],
        [("a/data.pkl/", b"")],
        [("a/data.pkl", b"")],
        [("a/data.pkl", SOUND + EVIL)],
        [("a/data.pkl", SOUND), ("a/constants.pkl", EVIL)],
        [("a/data.pkl", SOUND), ("a/byteorder", b"big")],
        [("a/data.pkl", SOUND), ("a/data/0", b"short")],
        [("a/data.pkl", SOUND), ("a/data/0", bytes(16)), ("a/data/0", bytes(16))],
        [("CON/data.pkl", EVIL)],
    ],
)
def test_an_archive_that_is_not_what_it_seems(
    parts: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    refused(_zip(tmp_path / "a.pth", parts))


def test_an_archive_in_an_archive_and_links(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner.pth", EVIL).read_bytes()
    refused(_zip(tmp_path / "a.pth", [("a/data.pkl", inner)]))
    link = [("a/data.pkl", SOUND), ("a/data/0", b"/etc/passwd")]
    refused(_zip(tmp_path / "b.pth", link, mode=0o120777))
    refused(archive(tmp_path / "c.pth", pickle.dumps(inner)))


def test_names_in_a_hundred_wrappers_take_no_time(tmp_path: Path) -> None:
    names = [f"{'module.' * 140}{n}" for n in range(2000)]
    pairs = b"".join(program(n, 2) + b"h\x01" for n in names)
    made = tensor(storage(), 0, (4,), (1,)) + b"q\x010"
    refused(archive(tmp_path / "a.pth", whole(made + b"}(" + pairs + b"u", 2)))
