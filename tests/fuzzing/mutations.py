"""Ways to spoil bytes and JSON, each told by a random generator and so repeatable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000)
EXTREMES += (2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**48, 2**63 - 1, 2**63)
EXTREMES += (2**64 - 1,)

NAMES = ("../../canary", "/etc/passwd", "..", ".", "", "CON", "aux.tif", "NUL.txt")
NAMES += (
    "a\\b",
    "C:/x",
    "C:x",
    "//host/share/x",
    "a/../../b",
    "a\0b",
    "a\nb",
    "\ud800",
)
NAMES += ("x" * 300, "=1+1", "\u202ename", "COM\u00b9", "com1 .tif", "~/x", "$HOME")
"""What may stand where a file is named, and must lead nowhere."""


def number_bytes(random: Random, size: int, order: str = "little") -> bytes:
    """An extreme number in that many bytes."""
    value = random.choice((*EXTREMES, random.getrandbits(8 * size)))
    return (value % 256**size).to_bytes(size, order)


def spoil(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Spoil bytes in one to five ways."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        data = random.choice(_WAYS)(random, data, others) if data else b"\0"
    return data


def _flip(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        made[_place(random, made)] ^= 1 << random.randrange(8)
    return bytes(made)


def _overwrite(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(random, data)
    size = random.choice((1, 2, 4, 8))
    order = random.choice(("little", "big"))
    return data[:at] + number_bytes(random, size, order) + data[at + size :]


def _cut(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data))]


def _drop(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at, length = _place(random, data), _length(random)
    return data[:at] + data[at + length :]


def _repeat(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at, length = _place(random, data), _length(random)
    return data[:at] + data[at : at + length] * random.choice((2, 2, 3, 50)) + data[at:]


def _swap(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    length = _length(random)
    one, other = sorted((_place(random, data), _place(random, data)))
    first, second = data[one : one + length], data[other : other + length]
    made = bytearray(data)
    made[other : other + length] = first
    made[one : one + length] = second
    return bytes(made)


def _blank(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at, length = _place(random, data), _length(random)
    value = random.choice((0, 0xFF, random.randrange(256)))
    return data[:at] + bytes([value]) * length + data[at + length :]


def _splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else data
    if not other:
        return data
    at, start, length = _place(random, data), _place(random, other), _length(random)
    keep = at if random.random() < 0.5 else at + length
    return data[:at] + other[start : start + length] + data[keep:]


_WAYS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _overwrite,
    _cut,
    _drop,
    _repeat,
    _swap,
    _blank,
    _splice,
)


def _place(random: Random, data: bytes | bytearray) -> int:
    """A place in the data, more often in its first part, where headers are."""
    end = len(data) if random.random() < 0.5 else min(len(data), 512)
    return random.randrange(end)


def _length(random: Random) -> int:
    return random.choice((1, 2, 4, 8, 16, 64, 512, 4096))


def spoil_json(random: Random, value: Any) -> bytes:
    """JSON of a value of which some parts are others, at times broken as text too."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _spoil_value(random, value)
    try:
        data = json.dumps(value, ensure_ascii=random.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
    except (ValueError, RecursionError):  # nested too deeply for Python's own writer
        data = b"[" * 50_000
    if random.random() < 0.1:
        data = spoil(random, data)
    return data


def _spoil_value(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        made = dict(value)
        kind = random.randrange(8)
        if kind == 0:
            del made[key]
        elif kind == 1:
            made[random.choice(("version", "extra", key.upper(), "__class__"))] = (
                stranger(random)
            )
        else:
            made[key] = _spoil_value(random, made[key])
        return made
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        kind = random.randrange(5)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return (
                value[:at] + value[at : at + 1] * random.choice((2, 100)) + value[at:]
            )
        return [*value[:at], _spoil_value(random, value[at]), *value[at + 1 :]]
    return stranger(random)


def stranger(random: Random) -> Any:
    """A value that is hardly what is meant."""
    kind = random.randrange(12)
    if kind < 3:
        return random.choice(NAMES)
    if kind < 5:
        return random.choice(EXTREMES) * random.choice((1, -1))
    if kind == 5:
        return random.choice((float("nan"), float("inf"), -0.0, 1e308, 1e-320, 0.5))
    if kind == 6:
        return random.choice((None, True, False, {}, [], "", [[]], {"": {}}))
    if kind == 7:
        nested: Any = random.choice(("x", 1, None))
        for _ in range(random.choice((3, 50, 900))):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        return nested
    if kind == 8:
        return random.choice(("a", "0", "\u00e9", "\0", "<b>")) * random.choice(
            (1, 64, 5000)
        )
    if kind == 9:
        return 10 ** random.choice((20, 300, 4000))
    if kind == 10:
        return [random.choice(EXTREMES) for _ in range(random.choice((1, 2, 3, 30)))]
    return random.getrandbits(random.choice((4, 16, 32))) / random.choice((1, 7))
