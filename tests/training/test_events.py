"""Training events survive the way through a pipe."""

from __future__ import annotations

import dataclasses
import json
import typing

import pytest

from napari_cmunet.training import events


def example(kind: type) -> events.Event:
    values = {
        "int": 3,
        "float": 0.12345678901234567,
        "str": 'two\nlines, "quoted", é\u2028',
        "bool": True,
        "float | None": 0.5,
    }
    return kind(**{f.name: values[f.type] for f in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", typing.get_args(events.Event))
def test_round_trip_on_one_line(kind):
    event = example(kind)
    line = events.to_line(event)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["event"] == kind.__name__.lower()
    assert events.from_line(line + "\n") == event


def test_nothing_known_stays_nothing():
    event = events.Finished("stopped", 3, 1.5, 3, None)
    assert events.from_line(events.to_line(event)) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Epoch 3/10",
        "[]",
        "3",
        "null",
        '{"event": "unknown"}',
        '{"event": ["step"]}',
        '{"step": 1}',
        '{"event": "note"}',
        '{"event": "note", "text": "a", "more": 1}',
        '{"event": "note", "text"',
    ],
)
def test_another_line_is_refused_and_shown(line):
    with pytest.raises(ValueError, match="not a training event"):
        events.from_line(line)
