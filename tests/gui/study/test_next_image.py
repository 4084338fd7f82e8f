"""The order of images in the window, and the scoring behind it."""

from __future__ import annotations

import threading

import pytest

from napari_cmunet.errors import ModelError
from napari_cmunet.gui.study.order_menu import OrderMenu
from napari_cmunet.study.next_image import LISTED, RANDOM, UNSURE
from tests.gui.study.conftest import name


@pytest.fixture
def scored(qtbot, ready):
    """Wait until nothing is scored any more."""

    def wait(reader) -> None:
        ready(reader)
        qtbot.waitUntil(lambda: not reader.next_image.working)

    return wait


def test_as_listed_nothing_is_scored(study, scored, model):
    scored(study)
    assert study.next_image.order == LISTED
    assert study.study.gains() == {}
    assert len(model.loaded) == 1


def test_least_sure_first_once_the_images_are_scored(study, scored, model, qtbot):
    study.next_image.choose(UNSURE)
    scored(study)
    gains = study.study.gains()
    assert set(gains) == set(study.overview.ids)
    assert len(set(gains.values())) > 1
    assert len(model.loaded) == 2  # one of its own: nobody waits for it
    assert threading.get_ident() not in model.threads
    # What the study offers is what opens, made ready before it was asked for.
    wanted = study.study.next_image(study.browsing.current.id)
    study.browsing.next()
    scored(study)
    assert study.browsing.current.id == wanted
    # It is kept: a study that is opened again need not score.
    folder, seen = study.study.folder, len(model.seen)
    study.close()
    scored(study)
    study.open(folder)
    scored(study)
    assert study.next_image.order == UNSURE
    assert study.study.gains() == gains
    assert len(model.seen) - seen <= 3  # the images that were shown, or made ready


def test_scoring_waits_while_an_image_is_predicted(study, scored, model, qtbot):
    scored(study)
    model.open.clear()
    study.controller.segment()
    qtbot.waitUntil(lambda: study.controller.runner.running)
    study.next_image.choose(UNSURE)
    qtbot.waitUntil(lambda: study.next_image.working)
    qtbot.wait(300)
    assert len(model.loaded) == 1  # not even its model is loaded
    model.open.set()
    scored(study)
    assert len(study.study.gains()) == 5


def test_a_model_that_cannot_be_loaded_is_told_in_the_menu(study, scored, model, qtbot):
    scored(study)
    menu = OrderMenu(study.next_image, None)
    qtbot.addWidget(menu)
    model.load_error = ModelError("The model is damaged.")
    menu.orders[UNSURE].trigger()
    scored(study)
    menu.refresh()
    assert menu.orders[UNSURE].isChecked()
    assert menu.how_far.text() == "The model is damaged."
    menu.orders[RANDOM].trigger()
    scored(study)
    menu.refresh()
    assert menu.orders[RANDOM].isChecked()
    assert not menu.how_far.isVisible()
    assert study.study.gains() == {}
    # Next still goes somewhere.
    before = name(study)
    study.browsing.next()
    scored(study)
    assert name(study) != before


def test_an_image_that_cannot_be_read_stops_nobody(study, scored, pictures):
    (pictures / "p3.npy").write_bytes(b"no picture")
    study.next_image.choose(UNSURE)
    scored(study)
    names = {study.overview.name(image) for image in study.study.gains()}
    assert names == {"p0", "p1", "p2", "p4"}


def test_closing_the_study_ends_the_scoring(study, scored, model, ready, qtbot):
    scored(study)
    model.open.clear()
    study.next_image.choose(UNSURE)
    qtbot.waitUntil(lambda: len(model.loaded) == 2)
    study.close()
    assert not study.next_image.working
    model.open.set()
    ready(study)
    assert study.study is None
