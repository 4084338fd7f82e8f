"""A training that is followed leaves the pool's threads to others."""

from __future__ import annotations

import time

import pytest
from napari.qt.threading import create_worker
from qtpy.QtCore import QThreadPool

from napari_cmunet.gui.training import promotion as settling
from napari_cmunet.gui.training.outcome import Outcome
from napari_cmunet.training.events import OTHER_FAILURE


@pytest.fixture
def one_thread(qapp):
    """A machine with a single core."""
    pool = QThreadPool.globalInstance()
    pool.waitForDone(60_000)
    before = pool.maxThreadCount()
    pool.setMaxThreadCount(1)
    yield pool
    pool.setMaxThreadCount(before)


def test_others_work_while_a_training_is_followed(one_thread, qtbot, monkeypatch):
    others: list[str] = []

    def follow(trainer):
        while not others:
            time.sleep(0.01)
            yield None
        return Outcome(OTHER_FAILURE, "over")

    monkeypatch.setattr(settling, "follow", follow)
    ended = []
    training = create_worker(settling.train, None, None)
    training.returned.connect(ended.append)
    training.start()
    other = create_worker(lambda: "the next image")
    other.returned.connect(others.append)
    other.start()
    try:
        qtbot.waitUntil(lambda: bool(ended), timeout=10_000)
    finally:
        others.append("enough")
        one_thread.waitForDone(10_000)
    assert others[0] == "the next image"
    assert ended[0].outcome.text == "over"
