"""Durations as text, and strict JSON."""

from __future__ import annotations

import json
from typing import Any

_MAX_DEPTH = 100


def duration(seconds: float) -> str:
    """Format seconds: ``8 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


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
