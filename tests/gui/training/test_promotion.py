"""A training that is followed leaves the pool's threads to others."""

from __future__ import annotations

import time

import pytest
from napari.qt.threading import create_worker
from qtpy.QtCore import QThreadPool

from napari_cmunet.gui.training.run import train
from napari_cmunet.project.models.promotion import TrainingResult
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


def test_others_work_while_a_training_is_followed(one_thread, qtbot):
    others: list[str] = []

    class Process:
        def run(self, order):
            while not others:
                time.sleep(0.01)
                yield None
            return TrainingResult(OTHER_FAILURE, "over")

    ended = []
    training = create_worker(train, Process(), None, None)
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
    assert ended[0].text == "over"
