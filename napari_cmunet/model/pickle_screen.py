"""Follow a pickle without making anything, before PyTorch unpickles it.

``torch.load(weights_only=True)`` never executes code, but a hostile pickle can still
make it hash or print nested tuples for ever, or chain codecs until memory is full.
"""

from __future__ import annotations

import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FILE_BYTES = 2**30
MAX_PICKLE_BYTES = 64 * 2**20
MAX_OPCODES = 300_000
MAX_MADE = 4 * MAX_PICKLE_BYTES
"""Most bytes and items that calls of a pickle may copy in all."""
_MAX_DIRECTORY = 4 * 2**20
_MAX_CLASSES = 100
_MAX_KEY = 2**60  # larger integers can be chosen to collide as keys
_ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4,
    "Short": 2, "Char": 1, "Byte": 1, "Bool": 1, "ComplexFloat": 8,
    "ComplexDouble": 16, "Untyped": 1,
}  # fmt: skip
_REBUILD = {
    f"torch._utils.{name}"
    for name in (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
    )
}
_COLLECTIONS = {"builtins.set", "builtins.frozenset", "collections.Counter"}
_EMPTY = {"collections.OrderedDict", "collections.defaultdict"}
# Plain values that no network needs; noted, not made.
NOTED = {
    "numpy.dtype",
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar")
    ),
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "builtins.bytes",  # empty ones
    "builtins.slice",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
}
_TORCH_OWN = {"torch.Size", "torch.device", "builtins.complex", "_codecs.encode"}


class RefusedError(Exception):
    """The file is damaged or holds what is not loaded; says what."""


class _Name(str):
    """A class or function that a pickle names."""


_OPAQUE = object()
_NAME = re.compile(r"[\w.<>]{1,200}")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)


def screen(stream: Any, storage: Callable[[str, int], None]) -> set[str]:
    """Follow a pickle without making anything; refuse what no checkpoint needs.

    Texts, numbers, tuples and lists are followed as they are, everything else is
    opaque. Other protocols than 2, which ``torch.save`` writes and PyTorch reads, are
    followed to name what they ask to run, and refused.

    Parameters
    ----------
    stream : file object
        At the beginning of the pickle; left just behind it.
    storage : callable
        Given the key and the bytes of each storage; raises if they cannot be.

    Returns
    -------
    set of str
        Classes that need a stand-in.

    Raises
    ------
    RefusedError
    """
    try:
        return _Screen(storage).run(stream)
    except (ValueError, IndexError, KeyError, OverflowError) as exc:
        raise RefusedError("it is damaged (its list of objects is broken)") from exc


class _Screen:
    def __init__(self, storage: Callable[[str, int], None]) -> None:
        self._storage = storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._classes: set[str] = set()
        self._made = self._protocol = 0

    def run(self, stream: Any) -> set[str]:
        bounded: Any = ShortReads(stream, MAX_PICKLE_BYTES)
        for step, (op, arg, _) in enumerate(pickletools.genops(bounded)):
            if step > MAX_OPCODES:
                raise RefusedError("it is not a model: it has too many objects")
            if op.name == "STOP":
                if self._protocol != 2:
                    raise RefusedError(
                        f"it uses pickle protocol {self._protocol}, which PyTorch does "
                        "not read safely; save it again with torch.save's own (2)"
                    )
                return self._classes
            self._follow(op.name, arg)
        raise RefusedError("it is damaged (its list of objects ends early)")

    def _follow(self, op: str, arg: Any) -> None:
        stack, memo = self._stack, self._memo
        match op:
            case "PROTO":
                self._protocol = arg
            case "FRAME":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "GLOBAL":
                stack.append(self._global(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise RefusedError("it is damaged (a name that is no text)")
                stack.append(self._global(module, name))
            case "EMPTY_LIST":
                stack.append([])
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "LIST":
                stack.append(self._above_mark())
            case "DICT":
                self._check_keys(self._above_mark()[::2])
                stack.append(_OPAQUE)
            case "FROZENSET":
                self._check_keys(self._above_mark())
                stack.append(_OPAQUE)
            case "EMPTY_DICT" | "EMPTY_SET":
                stack.append(_OPAQUE)
            case "TUPLE":
                stack.append(tuple(self._above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(op[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if op == "APPEND" else self._above_mark()
                if not isinstance(stack[-1], list):
                    raise RefusedError("it is damaged (items for what has none)")
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                if op == "SETITEM":
                    self._marks.append(len(stack) - 2)
                items = self._above_mark()
                if stack[-1] is not _OPAQUE:
                    raise RefusedError("it is damaged (items for what has none)")
                self._check_keys(items[::2])
            case "ADDITEMS":
                self._check_keys(self._above_mark())
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "BINPERSID":
                self._persistent(stack.pop())
                stack.append(_OPAQUE)
            case "REDUCE":
                args = stack.pop()
                stack[-1] = self._call(stack[-1], args)
            case "NEWOBJ" | "NEWOBJ_EX":
                args = stack.pop()
                if op == "NEWOBJ_EX":  # the names of arguments, of protocol 4
                    stack.pop()
                    args = None
                if not isinstance(stack[-1], _Name):
                    raise RefusedError("it asks for an object of what is no class")
                tensor = stack[-1].endswith(("Tensor", "Storage", "Parameter"))
                if args != () or stack[-1] not in self._classes or tensor:
                    raise RefusedError(f"it asks to make {stack[-1]} from arguments")
                stack[-1] = _OPAQUE
            case "BUILD":
                stack.pop()
                if stack[-1] is not _OPAQUE:
                    raise RefusedError("it asks to change the state of a plain value")
            case _ if op in _CONSTANTS:
                stack.append(_CONSTANTS[op])
            case _ if op in _LITERALS:
                stack.append(arg)
            case "INST":
                raise RefusedError(f"it asks to run {self._global(*arg.split(' ', 1))}")
            case "OBJ":
                name, *_ = self._above_mark()
                raise RefusedError(f"it asks to run {name!s:.80}")
            case _:
                raise RefusedError(f"it uses {op}, which no model needs")

    def _above_mark(self) -> list[Any]:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _global(self, module: str, name: str) -> _Name:
        """The name of a class or function, under which PyTorch looks it up."""
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        full = _Name(f"{module}.{name}")
        if not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
            raise RefusedError("it is damaged, or not a checkpoint at all")
        known = _REBUILD | _COLLECTIONS | _EMPTY | NOTED | _TORCH_OWN
        if module in ("os", "posix", "nt", "sys"):
            raise RefusedError(f"it asks to run {full}")
        if full not in known and full != "builtins.getattr" and module != "torch":
            self._classes.add(str(full))
            if len(self._classes) > _MAX_CLASSES:
                raise RefusedError("it is not a model: it has too many classes")
        return full

    def _persistent(self, identity: Any) -> None:
        """A storage: its kind, key, device and length."""
        if isinstance(identity, tuple) and identity[:1] == ("module",):
            raise RefusedError(
                "it is a whole module saved by a PyTorch before 1.6; save its "
                "state_dict instead"
            )
        if not isinstance(identity, tuple) or identity[:1] != ("storage",):
            raise RefusedError("it is damaged (an unknown kind of reference)")
        if len(identity) not in (5, 6) or identity[5:] not in ((), (None,)):
            raise RefusedError("it is damaged (an unknown kind of reference)")
        _, kind, key, _, length = identity[:5]
        item = _ITEM_BYTES.get(
            str(kind).removeprefix("torch.").removesuffix("Storage")
            if isinstance(kind, _Name)
            else ""
        )
        if item is None:
            raise RefusedError("it holds numbers of an unknown kind")
        if not isinstance(key, str):
            raise RefusedError("it is damaged (a storage without a name)")
        if type(length) is not int or not 0 <= length <= MAX_FILE_BYTES:
            raise RefusedError("it is damaged (a tensor of impossible size)")
        self._storage(key, length * item)

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, _Name):
            raise RefusedError("it asks to call something that is no function")
        if not isinstance(args, tuple):
            raise RefusedError(f"it asks to run {function} on something strange")
        strange = RefusedError(f"it asks to run {function} on something strange")
        if function == "builtins.getattr":
            if len(args) != 2 or not isinstance(args[0], _Name):
                raise strange
            return _Name(f"{args[0]}.{args[1]}"[:200])
        if function in _REBUILD:
            self._check_tensor(function, args)
        elif function == "_codecs.encode":
            if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
                raise strange
            self._charge(len(args[0]))
        elif function in _COLLECTIONS or function == "torch.Size":
            items = args[0] if len(args) == 1 else ()
            if len(args) > 1 or not isinstance(items, list | tuple):
                raise strange
            self._charge(len(items))
            self._check_keys(items)
        elif function in _EMPTY:
            if args and function != "collections.defaultdict":
                raise strange
        elif function not in NOTED and function not in _TORCH_OWN:
            raise RefusedError(f"it asks to run {printable(str(function)[:80])}")
        return _OPAQUE

    def _check_tensor(self, function: str, args: tuple[Any, ...]) -> None:
        """Sizes, strides and offset; whether they fit the storage PyTorch checks."""
        if function.endswith("_parameter"):
            return
        if not 4 <= len(args) <= 7 or any(
            not isinstance(sizes, tuple)
            or len(sizes) > 8
            or any(type(n) is not int or n < 0 for n in sizes)
            for sizes in (*args[2:4], (args[1],))
        ):
            raise RefusedError("it is damaged (a tensor of impossible size)")

    def _check_keys(self, keys: Any) -> None:
        for key in keys:
            plain = key is None or isinstance(key, str | bytes | int)
            if not plain or (isinstance(key, int) and abs(key) >= _MAX_KEY):
                raise RefusedError("it has a key that is neither text nor a number")

    def _charge(self, amount: int) -> None:
        self._made += amount
        if self._made > MAX_MADE:
            raise RefusedError("it is not a model: it would fill the memory")


class ShortReads:
    """A file that gives no more than a limit, whatever length it claims to have."""

    def __init__(self, file: Any, limit: int | None = None) -> None:
        self._file, self._left = file, limit
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        limit = _MAX_DIRECTORY if self._left is None else self._left
        if size > limit and self._left is not None:
            raise RefusedError("it is not a model: its list of objects is too long")
        data: bytes = self._file.read(limit + 1 if size < 0 else min(size, limit + 1))
        if len(data) > limit:
            raise RefusedError("it is not a model: its archive has too many parts")
        if self._left is not None:
            self._left -= len(data)
        return data

    def readline(self) -> bytes:
        line: bytes = self._file.readline(2**16)
        self._left = None if self._left is None else self._left - len(line)
        return line
