"""Durations, lists, counts and names as text; strict JSON, and checks of it."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_DEPTH = 100


def duration(seconds: float) -> str:
    """Format seconds: ``8 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Format a count: ``1 label``, ``2 labels``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def folded(name: str) -> str:
    """Return a name to compare: without case, its accents composed."""
    return unicodedata.normalize("NFC", name).casefold()


def some_of(sentences: Sequence[str], most: int = 3) -> str:
    """Join the first sentences, each with its full stop, and count the rest.

    Those that differ only before their colon are told as one: ``a.png and 2 more: …``.
    """
    alike: dict[str, list[str]] = {}
    for text in sentences:
        sentence = text.removesuffix(".") + "."
        alike.setdefault(sentence.partition(": ")[2] or sentence, []).append(sentence)
    groups = list(alike.values())
    shown = []
    for first, *others in groups[:most]:
        subject, colon, reason = first.partition(": ")
        several = colon and others
        shown.append(
            f"{subject} and {len(others)} more: {reason}" if several else first
        )
    if rest := sum(map(len, groups[most:])):
        shown.append(f"And {rest} more.")
    return " ".join(shown)


def parse_json(data: bytes | str) -> Any:
    """Parse strict JSON, without Python's NaN and Infinity; raises ValueError.

    Neither is it nested deeply: what copies it later, recursively, would fail.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        parsed = json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    level = [parsed]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return parsed
    raise ValueError("nested too deeply")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def validate(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Validate a value of a JSON file; raises ValueError with a one-line reason."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise ValueError(
            f"{where}: {first['msg']}" if where else first["msg"]
        ) from error
