"""The order of images in the window, and the scoring behind it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from napari_cmunet.errors import ModelError
from napari_cmunet.gui.prediction.prediction import ModelChoice
from napari_cmunet.gui.project.images.image_list import OrderMenu
from napari_cmunet.gui.project.images.next_image import score_images
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.next_image import LISTED, RANDOM, UNSURE
from napari_cmunet.project.project import Project
from tests.gui.project.conftest import name


@pytest.fixture
def scored(qtbot, ready):
    """Wait until nothing is scored any more."""

    def wait(session) -> None:
        ready(session)
        qtbot.waitUntil(lambda: session.image_order._job is None)

    return wait


@pytest.mark.slow
def test_as_listed_nothing_is_scored(project, scored, model):
    scored(project)
    assert project.image_order.order == LISTED
    assert project.project.acquisition_scores() == {}
    assert len(model.loaded) == 1


@pytest.mark.slow
def test_least_sure_first_once_the_images_are_scored(project, scored, model, qtbot):
    project.image_order.choose(UNSURE)
    scored(project)
    scores = project.project.acquisition_scores()
    assert set(scores) == set(project.overview.ids)
    assert len(set(scores.values())) > 1
    assert len(model.loaded) == 2  # one of its own: nobody waits for it
    assert threading.get_ident() not in model.threads
    # What the project offers is what opens, made ready before it was asked for.
    wanted = project.project.next_image(project.navigator.current.id)
    project.navigator.next()
    scored(project)
    assert project.navigator.current.id == wanted
    # It is kept: a project that is opened again need not score.
    folder, seen = project.project.folder, len(model.seen)
    project.close()
    scored(project)
    project.open(folder)
    scored(project)
    assert project.image_order.order == UNSURE
    assert project.project.acquisition_scores() == scores
    assert len(model.seen) - seen <= 3  # the images that were shown, or made ready


@pytest.mark.slow
def test_scoring_waits_while_an_image_is_predicted(project, scored, model, qtbot):
    scored(project)
    model.open.clear()
    project.controller.segment()
    qtbot.waitUntil(lambda: project.controller.queue.running)
    project.image_order.choose(UNSURE)
    qtbot.waitUntil(lambda: project.image_order._job is not None)
    qtbot.wait(300)
    assert len(model.loaded) == 1  # not even its model is loaded
    model.open.set()
    scored(project)
    assert len(project.project.acquisition_scores()) == 5


def test_an_image_with_an_inverted_draft_is_scored_inverted(tmp_path):
    frame = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", frame + number)
    seen = []

    def predict(pixels):
        seen.append(int(pixels[0, 0]))
        return np.zeros(pixels.shape, np.uint8)

    with Project.create(tmp_path / "p") as project:
        project.images.add([tmp_path / "0.npy", tmp_path / "1.npy"])
        image = project.images.ids()[1]
        project.drafts.save(image, 0, frame > 9, provenance=Provenance(inverted=True))
        engine = SimpleNamespace(predict=predict, threshold=0.5)
        score_images(
            project,
            lambda choice: engine,
            ModelChoice("any", "cpu"),
            busy=lambda: False,
            report=lambda done, total: None,
            should_stop=lambda: False,
        )
        assert set(project.acquisition_scores()) == set(project.images.ids())
    assert seen == [0, 65534]


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_in_the_menu(
    project, scored, model, qtbot
):
    scored(project)
    menu = OrderMenu(project.image_order, None)
    qtbot.addWidget(menu)
    model.load_error = ModelError("The model is damaged.")
    menu.orders[UNSURE].trigger()
    scored(project)
    menu.refresh()
    assert menu.orders[UNSURE].isChecked()
    assert menu.how_far.text() == "The model is damaged."
    menu.orders[RANDOM].trigger()
    scored(project)
    menu.refresh()
    assert menu.orders[RANDOM].isChecked()
    assert not menu.how_far.isVisible()
    assert project.project.acquisition_scores() == {}
    # Next still goes somewhere.
    before = name(project)
    project.navigator.next()
    scored(project)
    assert name(project) != before


def test_an_image_that_cannot_be_read_stops_nobody(project, scored, pictures):
    (pictures / "p3.npy").write_bytes(b"no picture")
    project.image_order.choose(UNSURE)
    scored(project)
    names = {
        project.overview.name(image) for image in project.project.acquisition_scores()
    }
    assert names == {"p0", "p1", "p2", "p4"}


def test_closing_the_project_ends_the_scoring(project, scored, model, ready, qtbot):
    scored(project)
    model.open.clear()
    project.image_order.choose(UNSURE)
    qtbot.waitUntil(lambda: len(model.loaded) == 2)
    project.close()
    assert project.image_order._job is None
    model.open.set()
    ready(project)
    assert project.project is None


@pytest.mark.slow
def test_the_scored_images_reach_their_total(project, scored, ready, qtbot):
    for _ in range(2):
        project.annotation.accept()
        project.navigator.next()
        ready(project)
    project.image_order.choose(UNSURE)
    scored(project)
    assert project.image_order.scored == (3, 3)  # of five, two have a label
    menu = OrderMenu(project.image_order, None)
    qtbot.addWidget(menu)
    menu.refresh()
    assert menu.how_far.text() == "3 of 3 images scored"
    project.annotation.accept()
    ready(project)
    assert project.image_order.scored == (3, 3)
