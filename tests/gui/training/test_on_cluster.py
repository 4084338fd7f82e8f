"""Fine-tunings of the window on a worker of a real Dask cluster."""

from __future__ import annotations

import pytest

from napari_cmunet.model.registry import WEIGHTS, load_model
from napari_cmunet.project.models.promotion import CANCELLED, DONE, STOPPED
from napari_cmunet.training import events
from tests.cluster_making import DaskCluster
from tests.gui.training.conftest import settled, wait_until

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

LONG = {"steps": 100000}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = DaskCluster(tmp_path_factory.mktemp("dask"), 1)
    yield made
    made.close()


def started(training):
    """Start it, and wait until it has made some steps."""
    assert training.start()
    assert wait_until(
        lambda: training.running and training.state().progress.step > 3, 240
    )


def test_a_model_of_a_worker_is_that_of_this_machine(
    cluster, make_project, add_model, make_training
):
    project = make_project(3)
    add_model(project, "weak", knows_arteries=False)  # not the large one
    options = {"steps": 6, "seed": 5}
    here = make_training(project, **options)
    here.start()
    assert settled(here, 240).kind == DONE
    of_here = set(project.models.names()) - {"weak"}

    there = make_training(project, device=cluster.address, **options)
    kinds = []
    there.changed.connect(
        lambda: kinds.append(p.stage) if (p := there.state().progress) else None
    )
    there.start()
    assert settled(there, 240).kind == DONE
    assert {events.QUICK_STAGE, events.DEEP_STAGE} <= set(kinds)

    of_there = set(project.models.names()) - {"weak"} - of_here
    assert len(of_there) == len(of_here) == 2
    for a, b in zip(sorted(of_here), sorted(of_there), strict=True):
        first, second = (project.models.path(name) for name in (a, b))
        assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()
        assert load_model(first).card.threshold == load_model(second).card.threshold


def test_stop_and_cancel_reach_the_worker(cluster, make_project, make_training, clock):
    project = make_project(3)
    training = make_training(project, device=cluster.address, **LONG)
    started(training)
    with clock(2):
        training.cancel()
        assert settled(training).kind == CANCELLED
    assert project.models.names() == []

    started(training)  # the only worker is free again
    training.stop()
    assert settled(training).kind == STOPPED
    assert len(project.models.names()) == 1


def test_a_worker_that_dies_costs_the_training_alone(
    cluster, make_project, make_training
):
    project = make_project(3)
    training = make_training(project, device=cluster.address, **LONG)
    started(training)
    cluster.kill(cluster.workers[0])
    result = settled(training, 60)
    assert result.failed
    assert result.text.startswith("The cluster has no worker any more.")
    assert project.models.names() == []


def test_what_is_wrong_with_the_address_is_shown(make_project, make_training):
    training = make_training(make_project(3), device="tcp://10.0.0.1:8786")
    training.start()
    result = settled(training, 120)
    assert result.failed
    assert result.text.startswith("tcp://10.0.0.1:8786 is not encrypted")
