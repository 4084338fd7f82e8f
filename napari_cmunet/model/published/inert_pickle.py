"""Reads what a pickle says without doing what it asks.

A pickle is a program for a small stack machine; unpickling runs it, and it may
import and call anything. This machine has the stack, the numbers, the texts and the
plain containers, and it can neither import nor call. A class or a function is only
ever a name (:class:`Global`); an object is only ever a note of its class and state
(:class:`Record`). What a pickle asks to be called is looked up in a short table that
the caller provides, and whatever is not in it ends the reading.

It is not a subclass of ``pickle.Unpickler``, which leaves less in our hands: that one
allocates what a pickle declares (a memo index of four billion costs 32 GiB) and
hashes what it is told to (nested tuples as a key take for ever).
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

MAX_BYTES = 64 * 2**20
"""Largest pickle that is read. A CM-UNet's is 40 kB; the tensors are elsewhere."""
MAX_STEPS = 300_000
"""Most instructions that are followed. A CM-UNet needs 15,000."""
MAX_MADE = 4 * MAX_BYTES
"""Most bytes of text, and items of copied containers, that may be made in all."""
MAX_KEY = 2**60
"""Integers from here on can be chosen to collide as keys, which takes for ever."""

_NAME = re.compile(r"[\w.<>]{1,500}")
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class RefusedError(Exception):
    """The pickle is damaged or asks for something that is not done; says what."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:80]


class Record:
    """An object that was not made: its class and its state.

    Parameters
    ----------
    of : Global
        Its class, or the function that would have made it.
    args : tuple
        What it would have been made from.
    """

    __slots__ = ("args", "items", "of", "state")

    def __init__(self, of: Global, args: tuple = ()) -> None:
        self.of, self.args = of, args
        self.state: Any = None
        self.items: list[Any] = []


@dataclass(frozen=True)
class Calls:
    """What a pickle may ask for, done by our own stand-ins.

    Parameters
    ----------
    functions : mapping of str to callable
        By dotted name. Each gets the machine and the arguments, and gives the value.
    persistent : callable
        Gives the value for a persistent id.
    """

    functions: Mapping[str, Callable[[Machine, tuple], Any]]
    persistent: Callable[[Any], Any]


class Machine:
    """Follows one pickle.

    Parameters
    ----------
    calls : Calls
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._made = 0

    def run(self, stream: BinaryIO) -> Any:
        """Follow the pickle at the stream's position; leaves it just behind.

        Raises
        ------
        RefusedError
            If it is damaged, too large, or asks for what is not done.
        """
        try:
            for step, (op, arg, _) in enumerate(pickletools.genops(_Bounded(stream))):
                if step > MAX_STEPS:
                    raise RefusedError("it is not a model: it has too many objects")
                if op.name == "STOP":
                    return self._pop()
                act = _ACTS.get(op.name)
                if act is None:
                    raise RefusedError(f"it uses {op.name}, which no model needs")
                act(self, arg)
        except (ValueError, IndexError, OverflowError) as exc:
            # What pickletools and the stack raise for a pickle that is no pickle.
            raise RefusedError("it is damaged (its list of objects is broken)") from exc
        raise RefusedError("it is damaged (its list of objects ends early)")

    def charge(self, amount: int) -> None:
        """Count what is made; a pickle of a few bytes can ask for gigabytes."""
        self._made += amount
        if self._made > MAX_MADE:
            raise RefusedError("it is not a model: it would fill the memory")

    def make_set(self, items: Any) -> set:
        """A set of plain keys."""
        if not isinstance(items, list | tuple | set):
            raise RefusedError("it is damaged (a set of nothing)")
        self.charge(len(items))
        return {_key(item) for item in items}

    def make_dict(self, pairs: Any) -> dict:
        """A dict of plain keys from a dict or a list of pairs."""
        made: dict = {}
        if isinstance(pairs, dict):
            self.charge(len(pairs))
            return dict(pairs)
        if not isinstance(pairs, list | tuple):
            raise RefusedError("it is damaged (a dict of nothing)")
        self.charge(len(pairs))
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise RefusedError("it is damaged (a dict without pairs)")
            made[_key(pair[0])] = pair[1]
        return made

    def call(self, what: Any, args: Any) -> Any:
        """What a stand-in gives for a call; everything else is refused."""
        if not isinstance(what, Global):
            raise RefusedError("it asks to call something that is no function")
        if not isinstance(args, tuple):
            raise RefusedError(f"it asks to run {what} on something strange")
        function = self._calls.functions.get(f"{what.module}.{what.name}")
        if function is None:
            raise RefusedError(f"it asks to run {what}")
        try:
            return function(self, args)
        except (TypeError, ValueError) as exc:
            raise RefusedError(f"it asks to run {what} on something strange") from exc

    def new(self, what: Any, args: Any) -> Record:
        """The note of an object that was not made."""
        if not isinstance(what, Global):
            raise RefusedError("it asks for an object of something that is no class")
        if args != ():
            raise RefusedError(f"it asks to make {what} from arguments")
        return Record(what)

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise IndexError("stack underflow")
        return self._stack.pop()

    def _top(self) -> Any:
        return self._stack[-1]

    def _above_mark(self) -> list[Any]:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _literal(self, arg: Any) -> None:
        if isinstance(arg, str | bytes | bytearray):
            self.charge(arg.__sizeof__())
        elif isinstance(arg, int):
            self.charge(arg.bit_length() // 8)
        self._push(arg)

    def _tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)]
        self._push(tuple(reversed(items)))

    def _pairs(self, items: list[Any]) -> list[tuple[Any, Any]]:
        if len(items) % 2:
            raise RefusedError("it is damaged (a key without a value)")
        return list(zip(items[::2], items[1::2], strict=True))

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        pairs = self._pairs(items)
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in pairs)
        elif isinstance(target, Record):
            target.items.extend(pairs)
        else:
            raise RefusedError("it is damaged (items for something that has none)")

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Record):
            target.items.extend(items)
        else:
            raise RefusedError("it is damaged (items for something that has none)")

    def _add(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, set):
            raise RefusedError("it is damaged (items for something that has none)")
        target.update(_key(item) for item in items)

    def _get(self, index: Any) -> None:
        if index not in self._memo:
            raise RefusedError("it is damaged (it names an object that is not there)")
        self._push(self._memo[index])

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise RefusedError("it is damaged (a name that is no text)")
        self._push(_global(module, name))

    def _reduce(self) -> None:
        args, what = self._pop(), self._pop()
        self._push(self.call(what, args))

    def _newobj(self) -> None:
        args, what = self._pop(), self._pop()
        self._push(self.new(what, args))

    def _newobj_ex(self) -> None:
        named, args, what = self._pop(), self._pop(), self._pop()
        self._push(self.new(what, args if named == {} else (named,)))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # a state dict's version notes: not needed
            raise RefusedError("it asks to change the state of something plain")

    def _persistent(self) -> None:
        self._push(self._calls.persistent(self._pop()))

    def _inst(self, arg: str) -> NoReturn:
        raise RefusedError(f"it asks to run {_global(*arg.split(' ', 1))}")

    def _obj(self) -> NoReturn:
        items = self._above_mark()
        what = items[0] if items and isinstance(items[0], Global) else "something"
        raise RefusedError(f"it asks to run {what}")


def _global(module: str, name: str) -> Global:
    # A text file may happen to begin like a pickle.
    if not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
        raise RefusedError("it is damaged, or no checkpoint at all")
    return Global(_MODULES.get(module, module), name)


def _key(value: Any) -> Any:
    """A value that can be a key without harm; text, as a rule."""
    if value is None or isinstance(value, str | bytes | bool | Global):
        return value
    if isinstance(value, int) and abs(value) < MAX_KEY:
        return value
    raise RefusedError("it has a key that is neither text nor a small number")


class _Bounded:
    """As much of a stream as one pickle may take."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._left = stream, MAX_BYTES

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise RefusedError("it is not a model: its list of objects is too long")
        self._left -= size
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(self._left)
        self._left -= len(line)
        return line


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
).split()

# Instructions that are not here (EXT*, PERSID, NEXT_BUFFER, ...) are refused.
_ACTS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda m, arg: None,
    "FRAME": lambda m, arg: None,
    "NONE": lambda m, arg: m._push(None),
    "NEWTRUE": lambda m, arg: m._push(True),
    "NEWFALSE": lambda m, arg: m._push(False),
    "EMPTY_LIST": lambda m, arg: m._push([]),
    "EMPTY_TUPLE": lambda m, arg: m._push(()),
    "EMPTY_DICT": lambda m, arg: m._push({}),
    "EMPTY_SET": lambda m, arg: m._push(set()),
    "MARK": lambda m, arg: m._marks.append(len(m._stack)),
    "POP": lambda m, arg: m._pop(),
    "POP_MARK": lambda m, arg: m._above_mark(),
    "DUP": lambda m, arg: m._push(m._top()),
    "TUPLE": lambda m, arg: m._push(tuple(m._above_mark())),
    "TUPLE1": lambda m, arg: m._tuple(1),
    "TUPLE2": lambda m, arg: m._tuple(2),
    "TUPLE3": lambda m, arg: m._tuple(3),
    "LIST": lambda m, arg: m._push(m._above_mark()),
    "DICT": lambda m, arg: m._push(m.make_dict(m._pairs(m._above_mark()))),
    "FROZENSET": lambda m, arg: m._push(m.make_set(m._above_mark())),
    "APPEND": lambda m, arg: m._append([m._pop()]),
    "APPENDS": lambda m, arg: m._append(m._above_mark()),
    "SETITEM": lambda m, arg: m._set_items([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, arg: m._set_items(m._above_mark()),
    "ADDITEMS": lambda m, arg: m._add(m._above_mark()),
    "PUT": lambda m, arg: m._memo.__setitem__(arg, m._top()),
    "BINPUT": lambda m, arg: m._memo.__setitem__(arg, m._top()),
    "LONG_BINPUT": lambda m, arg: m._memo.__setitem__(arg, m._top()),
    "MEMOIZE": lambda m, arg: m._memoize(),
    "GET": lambda m, arg: m._get(arg),
    "BINGET": lambda m, arg: m._get(arg),
    "LONG_BINGET": lambda m, arg: m._get(arg),
    "GLOBAL": lambda m, arg: m._push(_global(*arg.split(" ", 1))),
    "STACK_GLOBAL": lambda m, arg: m._stack_global(),
    "REDUCE": lambda m, arg: m._reduce(),
    "NEWOBJ": lambda m, arg: m._newobj(),
    "NEWOBJ_EX": lambda m, arg: m._newobj_ex(),
    "BUILD": lambda m, arg: m._build(),
    "BINPERSID": lambda m, arg: m._persistent(),
    "INST": lambda m, arg: m._inst(arg),
    "OBJ": lambda m, arg: m._obj(),
    **dict.fromkeys(_LITERALS, Machine._literal),
}
