"""A short run of ``tests/fuzzing/fuzz.py``: every reader, the same inputs each time."""

from __future__ import annotations

import sys

import pytest

from tests.fuzzing.targets import NAMES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="memory is looked at in /proc"
    ),
]


@pytest.mark.parametrize("reader", NAMES)
def test_no_broken_input_is_a_fault(reader, tmp_path):
    from tests.fuzzing.run import fuzz

    outcome = fuzz(reader, inputs=60, seed=11, keep=tmp_path)
    assert not outcome.faults
    assert outcome.inputs == 60
    # Inputs that are all alike to the reader would prove nothing.
    assert outcome.read > 0
    assert sum(outcome.refused.values()) > 20


def test_what_fuzzing_looks_for_is_seen(tmp_path):
    """Each kind of fault, by a reader that has it."""
    from tests.fuzzing.run import fuzz

    outcome = fuzz("faulty", inputs=7, seed=1, keep=tmp_path)
    said = {fault["input"]: fault["what"] for fault in outcome.faults}
    for number, words in enumerate(
        (
            "ValueError: no error of this program",
            "reads outside its folder: '/etc/hostname'",
            "writes outside its folder",
            "os.system",
            "MB",
            "no one-line message",
            "died",
        )
    ):
        assert words in said[number]
    assert (tmp_path / "faulty-0" / "input").read_text() == "0"
