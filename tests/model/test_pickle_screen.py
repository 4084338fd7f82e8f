"""Hostile pickles: nothing in them is run, and the reason says what they asked for."""

from __future__ import annotations

import io
import os
import pickle
import sys
import time
import tracemalloc
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_cmunet.errors import ModelError
from napari_cmunet.model.checkpoint import load_checkpoint
from napari_cmunet.model.importer import read_checkpoint
from napari_cmunet.model.pickle_screen import RefusedError, screen
from tests.model.checkpoint_makers import (
    add_class,
    archive,
    calling,
    foreign_module,
    named,
    program,
    whole,
)

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOLS = range(6)
CODE = "open({canary!r}, 'w').close()"
SHELL = "touch {canary}"

# module, name, arguments; {canary} is a file that must never come to be.
CALLS: list[tuple[str, str, tuple]] = [
    ("os", "system", (SHELL,)),
    ("posix", "system", (SHELL,)),
    ("nt", "system", (SHELL,)),
    ("os", "popen", (SHELL,)),
    ("os", "execv", ("/bin/touch", ["touch", "{canary}"])),
    ("os", "mkdir", ("{canary}",)),
    ("os", "remove", ("{canary}",)),
    ("subprocess", "Popen", (["touch", "{canary}"],)),
    ("subprocess", "call", (["touch", "{canary}"],)),
    ("subprocess", "run", (["touch", "{canary}"],)),
    ("subprocess", "check_output", (["touch", "{canary}"],)),
    ("subprocess", "getoutput", (SHELL,)),
    ("builtins", "eval", (CODE,)),
    ("__builtin__", "eval", (CODE,)),
    ("builtins", "exec", (CODE,)),
    ("builtins", "compile", (CODE, "x", "exec")),
    ("builtins", "open", ("{canary}", "w")),
    ("builtins", "__import__", ("antigravity",)),
    ("builtins", "breakpoint", ()),
    ("builtins", "setattr", ("a", "b", "c")),
    ("builtins", "globals", ()),
    ("builtins", "print", ("ran",)),
    ("builtins", "map", ("a", [1])),
    ("builtins", "list", ([1],)),
    ("io", "open", ("{canary}", "w")),
    ("_io", "open", ("{canary}", "w")),
    ("_io", "FileIO", ("{canary}", "w")),
    ("importlib", "import_module", ("antigravity",)),
    ("importlib._bootstrap", "_gcd_import", ("antigravity",)),
    ("runpy", "run_path", ("{canary}",)),
    ("runpy", "_run_code", (CODE, {})),
    ("code", "interact", ()),
    ("pty", "spawn", (["touch", "{canary}"],)),
    ("webbrowser", "open", ("file:{canary}",)),
    ("timeit", "timeit", (CODE,)),
    ("profile", "run", (CODE,)),
    ("cProfile", "run", (CODE,)),
    ("pdb", "run", (CODE,)),
    ("trace", "Trace.run", (CODE,)),
    ("doctest", "debug_script", (CODE,)),
    ("types", "FunctionType", (b"code", {})),
    ("types", "CodeType", (0, 0, 0, 0, 0, b"", (), (), (), "", "", 0, b"")),
    ("marshal", "loads", (b"c",)),
    ("pickle", "loads", (b"cos\nsystem\n.",)),
    ("pickle", "load", ("{canary}",)),
    ("_pickle", "loads", (b".",)),
    ("shelve", "open", ("{canary}",)),
    ("torch", "load", ("{canary}",)),
    ("torch.serialization", "load", ("{canary}",)),
    ("torch.storage", "_load_from_bytes", (b"x",)),
    ("torch.jit", "load", ("{canary}",)),
    ("torch.hub", "load", ("a/b", "c")),
    ("torch._dynamo", "run", ()),
    ("torch.utils.cpp_extension", "load_inline", ("x", "int x;")),
    ("torch.distributed.rpc", "_run_function", ()),
    ("torch._utils", "_rebuild_wrapper_subclass", ()),
    ("torch._utils", "_rebuild_device_tensor_from_numpy", ()),
    ("numpy", "load", ("{canary}",)),
    ("numpy", "fromfile", ("{canary}",)),
    ("numpy.testing._private.utils", "runstring", (CODE, {})),
    ("numpy.f2py.crackfortran", "myeval", (CODE,)),
    ("functools", "partial", ("f",)),
    ("functools", "reduce", ("f", [1])),
    ("operator", "attrgetter", ("system",)),
    ("operator", "methodcaller", ("system", SHELL)),
    ("operator", "call", ("f",)),
    ("ctypes", "CDLL", ("{canary}",)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlopen", ("file:{canary}",)),
    ("shutil", "rmtree", ("{canary}",)),
    ("pathlib", "Path", ("{canary}",)),
    ("tempfile", "NamedTemporaryFile", ()),
    ("asyncio", "run", ()),
    ("multiprocessing.util", "spawnv_passfds", (b"touch", [b"x"], ())),
    ("logging.config", "dictConfig", ({},)),
    ("site", "main", ()),
    ("sys", "exit", (3,)),
    ("os", "_exit", (3,)),
    ("os", "abort", ()),
    ("signal", "raise_signal", (9,)),
    ("time", "sleep", (60,)),
    ("collections", "namedtuple", ("a", "b")),
    ("copyreg", "add_extension", ("os", "system", 1)),
    ("model", "UNet", (2,)),
    ("napari_cmunet.cli.main", "main", ((),)),
]


def read(data: bytes) -> Any:
    return screen(io.BytesIO(data), lambda key, nbytes: None)


def refused(data: bytes, tmp_path: Path) -> str:
    """Why a pickle is refused: alone, and in an archive for the same reason."""
    with pytest.raises(RefusedError) as error:
        read(data)
    reason = str(error.value)
    for path in (tmp_path / "a.pth", archive(tmp_path / "b.pth", data)):
        if not path.exists():
            path.write_bytes(data)
        with pytest.raises(ModelError) as shown:
            read_checkpoint(path)
        assert str(shown.value) == (
            f"{path.name} is refused: {reason}. Nothing in it was run."
        )
        path.unlink()
    assert not list(tmp_path.iterdir()), "something was run"
    return reason


def filled(value: Any, canary: Path) -> Any:
    if isinstance(value, str):
        return value.format(canary=str(canary))
    if isinstance(value, list | tuple):
        return type(value)(filled(v, canary) for v in value)
    return value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("module", "name", "args"), CALLS)
def test_a_call_is_refused_by_name(
    module: str, name: str, args: tuple, protocol: int, tmp_path: Path
) -> None:
    arguments = [program(a, protocol) for a in filled(args, tmp_path / "canary")]
    attack = calling(named(module, name, protocol), *arguments)
    reason = refused(whole(attack, protocol), tmp_path)
    shown = module.replace("__builtin__", "builtins")
    assert f"it asks to run {shown}.{name}" in reason or "something strange" in reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_attacks_are_real(protocol: int, tmp_path: Path) -> None:
    # Unpickled for once, to show that what is refused elsewhere would have run.
    canary = tmp_path / "canary"
    code = program(filled(CODE, canary), protocol)
    attack = whole(calling(named("builtins", "eval", protocol), code), protocol)
    pickle.loads(attack)
    assert canary.exists()


class Reduced:
    """An object that asks for a call wherever it is saved."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.asked = function, args

    def __reduce__(self) -> tuple:
        return self.asked


def wrapped(evil: Any) -> list[Any]:
    """Places in a checkpoint where an object can be."""
    return [
        evil,
        {"down_conv1.double_conv.double_conv.0.weight": evil},
        {"state_dict": evil},
        {"state_dict": {"a": 1}, "meta": {"mmengine_version": evil}},
        {"module": {"x": [{"y": ({"z": evil},)}]}},
        {"state_dict": {}, "hyper_parameters": [[[evil]]]},
        [evil] * 3,
        (1, (2, (3, {4: evil}))),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", range(8))
def test_a_call_is_found_wherever_it_hides(
    protocol: int, place: int, tmp_path: Path
) -> None:
    command = f"touch {tmp_path / 'canary'}"
    evil = wrapped(Reduced(os.system, command))[place]
    reason = refused(pickle.dumps(evil, protocol), tmp_path)
    assert reason == f"it asks to run {os.system.__module__}.system"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_partial_is_refused(protocol: int, tmp_path: Path) -> None:
    evil = Reduced(partial(os.system, f"touch {tmp_path / 'canary'}"))
    reason = refused(pickle.dumps(evil, protocol), tmp_path)
    assert "functools.partial" in reason or f"{os.system.__module__}.system" in reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_as_the_function_of_a_call_is_refused(
    protocol: int, tmp_path: Path
) -> None:
    name, text = partial(named, protocol=protocol), partial(program, protocol=protocol)
    getattr_ = name("builtins", "getattr")
    system = calling(getattr_, name("os", "system"), text("__call__"))
    attack = calling(system, text(f"touch {tmp_path / 'canary'}"))
    assert "os.system" in refused(whole(attack, protocol), tmp_path)

    module = calling(name("builtins", "__import__"), text("os"))
    attack = calling(calling(getattr_, module, text("system")), text("ls"))
    assert "builtins.__import__" in refused(whole(attack, protocol), tmp_path)

    subclasses = calling(getattr_, text("x"), text("__class__"))
    assert "builtins.getattr" in refused(whole(subclasses, protocol), tmp_path)


def test_getattr_gives_nothing_that_can_be_called(tmp_path: Path) -> None:
    method = calling(
        named("builtins", "getattr", 2), named("log", "Buffer", 2), program("mean", 2)
    )
    assert read(whole(method, 2)) == {"log.Buffer"}
    assert "log.Buffer.mean" in refused(whole(calling(method), 2), tmp_path)


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        pytest.param(b"(S'ls'\nios\nsystem\n", "run os.system", id="INST"),
        pytest.param(b"(cos\nsystem\nS'ls'\no", "run os.system", id="OBJ"),
        pytest.param(b"\x82\x01", "EXT1", id="EXT1"),
        pytest.param(b"\x83\x01\x00", "EXT2", id="EXT2"),
        pytest.param(b"\x84\x01\x00\x00\x00", "EXT4", id="EXT4"),
        pytest.param(b"Pfile\n", "PERSID", id="PERSID"),
        pytest.param(b"X\x04\x00\x00\x00fileQ", "unknown kind of reference", id="PID"),
        pytest.param(b"\x97", "NEXT_BUFFER", id="NEXT_BUFFER"),
        pytest.param(b"N\x98", "READONLY_BUFFER", id="READONLY_BUFFER"),
        pytest.param(
            b"csubprocess\nPopen\n(S'ls'\nt\x81",
            "make subprocess.Popen from arguments",
            id="NEWOBJ",
        ),
        pytest.param(
            b"csubprocess\nPopen\n)}S'args'\nS'ls'\ns\x92",
            "make subprocess.Popen from arguments",
            id="NEWOBJ_EX",
        ),
        pytest.param(b"S'ls'\n(S'x'\ntR", "call something", id="call of text"),
        pytest.param(b"cos\nsystem\nS'ls'\nR", "os.system", id="call without tuple"),
        pytest.param(b"S'ls'\n)\x81", "object of what", id="object of text"),
        pytest.param(b"cos\nsystem\n}b", "os.system", id="BUILD of a function"),
        pytest.param(b"]}b", "change the state", id="BUILD of a list"),
        pytest.param(b"]K\x01s", "damaged", id="items of a list"),
        pytest.param(b"}K\x01a", "damaged", id="append to a dict"),
        pytest.param(b"}]Ns", "a key", id="a list as key"),
        pytest.param(b"}G\x7f\xf8\x00\x00\x00\x00\x00\x00Ns", "a key", id="NaN as key"),
        pytest.param(b"}L" + b"9" * 40 + b"L\nNs", "a key", id="a huge key"),
        pytest.param(b"h\x09", "damaged", id="memo of nothing"),
        pytest.param(b"R", "damaged", id="underflow"),
        pytest.param(b"(R", "damaged", id="underflow through a mark"),
        pytest.param(b"t", "damaged", id="no mark"),
        pytest.param(b"\xff", "damaged", id="no instruction"),
        pytest.param(b"I" + b"9" * 10_000 + b"\n", "damaged", id="a long number"),
        pytest.param(b"c\x1b[2J\nx\n", "not a checkpoint", id="terminal codes"),
        pytest.param(b"cmodel\n\n", "not a checkpoint", id="no name"),
        pytest.param(b"K\x01K\x02\x93", "no text", id="a number as a name"),
    ],
)
def test_other_instructions_are_refused(
    instructions: bytes, reason: str, tmp_path: Path
) -> None:
    assert reason in refused(whole(instructions, 4), tmp_path)


def test_a_class_with_setstate_is_replaced(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __init__(self) -> None:
            self.path = str(canary)

        def __setstate__(self, state: Any) -> None:
            canary.touch()

        def __new__(cls, *args: Any) -> Any:
            canary.touch()
            return object.__new__(cls)

    with foreign_module("model") as module:
        add_class(module, Evil)
        evil = Evil()
        canary.unlink()
        torch.save({"a": evil}, tmp_path / "x.pth")
        made = load_checkpoint(tmp_path / "x.pth").content["a"]
        assert type(made) is OrderedDict
        assert vars(made) == {"path": str(canary)}
        assert not canary.exists()


def test_what_is_named_is_not_imported(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", whole(named("antigravity", "geohash", 2), 2))
    load_checkpoint(path)
    assert "antigravity" not in sys.modules


def laughs(depth: int) -> bytes:
    """A tuple of a tuple of a tuple, each twice: 2 ** depth when walked."""
    return b")" + b"2\x86" * depth


MODULE = b"cmodel\nUNet\n)\x81q\x00"  # kept as memo 0
EMPTY = b"X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_buffers}"


@pytest.mark.parametrize(
    "instructions",
    [
        pytest.param(b"Nr\xff\xff\xff\xff", id="memo index"),
        pytest.param(b"Np99999999999999\n", id="memo index as text"),
        pytest.param(b"\x96" + b"\xff" * 7 + b"\x7f", id="BYTEARRAY8"),
        pytest.param(b"\x8e" + b"\xff" * 7 + b"\x7f", id="BINBYTES8"),
        pytest.param(b"\x8d\x00\x00\x00\x40\x00\x00\x00\x00x", id="BINUNICODE8"),
        pytest.param(b"\x8b\xff\xff\xff\x7f", id="LONG4"),
        pytest.param(b"\x95" + b"\xff" * 8 + b"N", id="FRAME"),
        pytest.param(b"}" + laughs(64) + b"Ns", id="laughing key"),
        pytest.param(b"\x8f(" + laughs(64) + b"\x90", id="laughing set"),
        pytest.param(
            b"ctorch._utils\n_rebuild_tensor_v3\n(NNNNNN" + laughs(64) + b"tR",
            id="laughing dtype",
        ),
        pytest.param(
            b"ccopyreg\n_reconstructor\n(" + laughs(64) + b"N}tR", id="laughing class"
        ),
        pytest.param(b"]" * 400_000, id="many objects"),
        pytest.param(b"(" * 290_000, id="many marks"),
        pytest.param(b"N" + b"\x85" * 100_000, id="deep"),
        pytest.param(
            b"X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x000"
            b"c_codecs\nencode\nq\x010" + b"h\x01(h\x00X\x06\x00\x00\x00latin1tR" * 900,
            id="many copies",
        ),
        pytest.param(
            MODULE + b"}(" + EMPTY + b"X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00ah"
            b"\x00X\x01\x00\x00\x00bh\x00uub",
            id="a module that contains itself twice",
        ),
    ],
)
@pytest.mark.slow
def test_no_pickle_takes_long_or_much(instructions: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", whole(instructions, 4))
    began = time.monotonic()
    if len(instructions) < 2**16:  # tracing many small objects is slow
        tracemalloc.start()
    with pytest.raises(ModelError):
        read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - began < 10  # on a busy machine
    assert peak < 350 * 2**20


@pytest.mark.parametrize("seed", range(40))
def test_altered_pickles_end_in_a_reason(seed: int, tmp_path: Path) -> None:
    import random

    chance = random.Random(seed)
    evil = {"a": [1, "b", (2.5, None)], "c": {"d": {1, 2}}, "e": b"xyz" * 20}
    for _ in range(50):
        data = bytearray(pickle.dumps(evil, chance.choice(PROTOCOLS)))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            read(bytes(data))
        except RefusedError as exc:
            assert str(exc)  # nothing else may come out
