"""MaskEditor goes on while a training runs, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from napari_cmunet.vessels.tools import ADD, REMOVE
from tests.gui.training.conftest import wait_until
from tests.gui.vessel_tools.bench import Bench, angiogram, one_step


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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_training_stands_still_while_the_threshold_is_dragged(
    make_project, make_training, viewer, panel, settled
):
    training = make_training(make_project(2), steps=100000)
    panel.project.training.session = training
    viewer.add_image(angiogram("faint"), name="a")
    settled(panel.controller, 20_000)
    training.start()
    assert wait_until(
        lambda: training.state().running and training.state().progress.steps
    )
    stat = Path(f"/proc/{training._run.process.process_id}/stat")
    slider = panel.threshold.slider

    def stopped() -> bool:
        slider.setValue(30 + (slider.value() + 1) % 40)
        return stat.read_text().rpartition(")")[2].split()[0] == "T"

    slider.setSliderDown(True)
    assert wait_until(stopped)
    slider.setSliderDown(False)
    assert training.state().running
    assert wait_until(lambda: training._run.process.paused_share > 0)
