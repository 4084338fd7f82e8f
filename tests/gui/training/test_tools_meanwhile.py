"""MaskEditor goes on while a training runs, in a process of its own."""

from __future__ import annotations

import pytest

from napari_cmunet.vessels.tools import ADD, REMOVE
from tests.gui.training.conftest import wait_until
from tests.gui.vessel_bench import Bench, angiogram, one_step


@pytest.mark.slow
def test_the_vessel_tools_work_while_a_training_runs(
    make_project, make_training, qtbot, viewer, panel, settled
):
    training = make_training(make_project(2), steps=100000)
    training.start()
    assert wait_until(
        lambda: training.state().running and training.state().progress.steps
    )
    viewer.add_image(angiogram("faint"), name="a")
    settled(panel.controller, 20_000)
    bench = Bench(qtbot, viewer, panel)
    bench.take(REMOVE)
    change = one_step(bench, lambda: bench.click(95, 70))
    assert change[95, 70] == -1
    bench.take(ADD)
    bench.click(22, 103, shift=True)
    change = one_step(bench, lambda: bench.click(60, 86))
    assert change[40, 95] == 1
    assert training.state().running
    panel.vessels.close_tools()
