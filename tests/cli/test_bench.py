"""``bench``: measures what it says, and one failure does not end it."""

from __future__ import annotations

import json

import pytest

from napari_cmunet.cli import bench as command
from napari_cmunet.cli.bench import alone, bench, measure, with_memory
from napari_cmunet.cli.bench.measure import peak_memory, seconds, timed

pytestmark = pytest.mark.slow

SMALL = {"sides": (64,), "labels": (1,), "cine_frames": 2}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A model that the measuring processes load quickly."""
    import torch

    from napari_cmunet.model.card import ModelCard, Preprocessing
    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.model.registry import save_model

    torch.manual_seed(0)
    folder = tmp_path / "tiny"
    card = ModelCard("tiny", "artery", 2, Preprocessing(grid=64))
    folder.mkdir()
    save_model(folder, CMUNet(2).state_dict(), card)
    # Small, and here: a process for each part loads torch anew.
    for name, value in (
        ("PAPER_WIDTH", 4),
        ("TIMED_SECONDS", 0.02),
        ("MATRIX_SIDE", 512),
        ("VALIDATION_FRAMES", 2),
    ):
        monkeypatch.setattr(measure, name, value)
    monkeypatch.setattr(command, "CINE_SIDE", 64)
    monkeypatch.setattr(command, "alone", lambda act, *a: with_memory(act, a))
    return str(folder)


def test_all_parts_are_measured(tiny, tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert bench(tiny, tiny, "cpu", 0.02, path, **SMALL) == 0
    figures = json.loads(path.read_text())
    frame, cine = figures["frame of 64"], figures["cine of 2"]
    assert frame["times_faster"] == pytest.approx(
        frame["paper"]["median"] / frame["warm"]["median"]
    )
    assert 0 < cine["first_s"] <= cine["all_s"]
    assert figures["machine"]["limit_gflops"] > 1
    assert 0 < figures["network at width 64"]["share_of_limit"] < 2
    trained = figures["1 label"]
    assert 0 < trained["seconds_to_99.5%"] <= trained["seconds"]
    assert trained["paper_s"] > 0
    printed = capsys.readouterr().out
    for name in figures:
        assert name in printed or name == "machine"


def test_a_part_that_fails_is_named_and_the_others_are_done(tiny, tmp_path, capsys):
    path = tmp_path / "bench.json"
    few = SMALL | {"labels": ()}
    assert bench("no-such-model", tiny, "cpu", 0.05, path, **few) == 1
    figures = json.loads(path.read_text())
    assert "no-such-model" in figures["frame of 64"]["failed"]
    assert "times_faster" in figures["network at width 64"]
    assert "frame of 64: " in capsys.readouterr().err


def _hold(megabytes: int) -> dict[str, float]:
    held = bytearray(megabytes * 10**6)
    held[::4096] = b"x" * len(held[::4096])
    return {}


def test_each_part_has_a_process_and_its_memory_of_its_own():
    if peak_memory() is None:
        pytest.skip("this system does not tell")
    assert alone(_hold, 300)["memory_gb"] == pytest.approx(0.3, abs=0.05)


def test_times():
    calls = []
    timing = timed(lambda: calls.append(1), repeats=4)
    assert len(calls) == 5  # one to warm up
    assert timing.fastest <= timing.median <= timing.slowest
    assert timing.repeats == 4
    assert (seconds(0.01234), seconds(12.34), seconds(1234)) == (
        "12.3 ms",
        "12.3 s",
        "20.6 min",
    )
