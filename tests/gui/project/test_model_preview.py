"""A new model is compared on the open image before it is decided about."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_cmunet.gui.panel import CMUNetPanel
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.project.models.promotion import (
    DONE,
    REFUSED,
    UNDECIDED,
    TrainingResult,
)
from tests.gui.conftest import frame
from tests.gui.project.conftest import stroke

if TYPE_CHECKING:
    from napari_cmunet.gui.project.model_preview import ModelPreview

pytestmark = pytest.mark.slow

NEW = "tuned-001"


def found_by_new(image: np.ndarray) -> np.ndarray:
    return np.clip(255 - image.astype(int) + 60, 0, 255) >= 128


def found_before(image: np.ndarray) -> np.ndarray:
    return 255 - image.astype(int) >= 128


@pytest.fixture
def trained(project, tiny_model, model):
    """A training of the project has ended: its model finds more, and is not in use."""

    def train(decision: str = UNDECIDED) -> ModelPreview:
        with project.project.models.new_folder() as new:
            shutil.copytree(tiny_model, new.folder, dirs_exist_ok=True)
            new.note_training({"version": 1, "labels": [], "learned_patients": []})
            new.finish(NEW)
        training = project.training.session
        training._result = TrainingResult(DONE, "Cannot tell.", NEW, decision=decision)
        model.offset = 60
        training.changed.emit()
        return project.preview

    return train


@pytest.fixture
def seen(project, ready, qtbot):
    """Wait until nothing is left to compare, as the panel's refreshes would."""

    def wait() -> None:
        ready(project)
        project.preview.update()
        qtbot.waitUntil(lambda: project.preview._job is None)
        project.preview.update()
        qtbot.waitUntil(lambda: project.preview._job is None)

    return wait


def layer(trying: ModelPreview):
    return trying._shown.layer if trying._shown is not None else None


@pytest.mark.parametrize("decision", [UNDECIDED, REFUSED])
def test_what_it_would_change_is_shown_and_nothing_is_changed(
    project, trained, seen, viewer, decision
):
    stroke(project)
    image_state = project.navigator.current.image_state
    mine, probability = (
        project.navigator.current.mask(0),
        image_state.probability.copy(),
    )
    trying = trained(decision)
    assert trying.state() is not None
    trying.toggle()
    assert trying.state().text == "Comparing…"
    seen()
    before, now = found_before(frame(0)), found_by_new(frame(0))
    shown = layer(trying)
    np.testing.assert_array_equal(shown.data == 1, now & ~before)
    assert not (shown.data == 2).any()
    assert not shown.editable
    assert viewer.layers.selection.active is image_state.mask
    count = int((now & ~before).sum())
    text = trying.state().text
    assert f"{NEW} would find {count} pixels more (yellow) than cmunet-artery" in text
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    np.testing.assert_array_equal(image_state.probability, probability)
    assert image_state.sources[0].model == "cmunet-artery"
    assert project.project.models.current.name == "cmunet-artery"
    trying.toggle()
    assert shown not in viewer.layers
    assert not trying.state().on
    assert trying.state().text == ""


def test_what_was_there_before_the_contrast_is_no_difference(project, trained, seen):
    image_state = project.navigator.current.image_state
    image = np.asarray(image_state.image.data)
    more = found_by_new(image) & ~found_before(image)
    left_out = more.copy()
    left_out[: len(image) // 2] = False
    assert left_out.any() and (more & ~left_out).any()
    image_state.seen_before[0] = left_out
    preview = trained()
    preview.toggle()
    seen()
    assert np.array_equal(np.asarray(layer(preview).data) > 0, more & ~left_out)


@pytest.mark.parametrize("use", [True, False])
def test_it_goes_when_the_reader_decides(
    project, trained, seen, ready, viewer, qtbot, use
):
    trying = trained()
    trying.toggle()
    seen()
    shown = layer(trying)
    project.training.session.decide(use)
    qtbot.waitUntil(lambda: not trying.model)  # once it is written
    seen()
    ready(project)
    assert shown not in viewer.layers
    assert (trying.state() is not None) is not use  # what was refused can be seen
    wanted = NEW if use else "cmunet-artery"
    # A thread of its own writes that down.
    qtbot.waitUntil(lambda: project.project.models.current.name == wanted)


def test_it_goes_on_with_the_next_image(project, trained, seen, viewer, qtbot):
    trying = trained()
    trying.toggle()
    seen()
    former = layer(trying)
    project.navigator.next()
    seen()

    def compared() -> bool:
        trying.update()  # as the panel's refreshes would
        return layer(trying) is not None

    qtbot.waitUntil(compared)
    assert former not in viewer.layers
    before, now = found_before(frame(1)), found_by_new(frame(1))
    # The next image was predicted ahead, by the model in use.
    np.testing.assert_array_equal(layer(trying).data == 1, now & ~before)


def test_each_frame_of_a_cine(
    session, mixed, tmp_path, ready, viewer, model, qtbot, tiny_model
):
    session.create(NewProject(tmp_path / "project", (mixed,)))
    ready(session)
    session.navigator.next()
    ready(session)
    image_state = session.navigator.current.image_state
    trying = session.preview
    model.offset = 60
    with session.project.models.new_folder() as new:
        shutil.copytree(tiny_model, new.folder, dirs_exist_ok=True)
        new.finish(NEW)
    training = session.training.session
    training._result = TrainingResult(DONE, "Cannot tell.", NEW, decision=UNDECIDED)
    trying.toggle()
    for at in (1, 3):
        viewer.dims.set_point(0, at)
        session.preview.update()
        qtbot.waitUntil(lambda: trying._job is None)
        session.preview.update()
        qtbot.waitUntil(lambda: trying._job is None)
        pixels = np.asarray(image_state.image.data[at])
        now, before = found_by_new(pixels), found_before(pixels)
        np.testing.assert_array_equal(layer(trying).data[at] == 1, now & ~before)
        assert trying.difference().found == int((now & ~before).sum())


@pytest.mark.parametrize("moment", ["at once", "shown"])
@pytest.mark.parametrize(
    "act",
    [
        "remove the layer",
        "rename all",
        "remove the mask",
        "remove the image",
        "clear",
        "switch",
        "close the project",
        "close the panel",
        "another model",
        "begin a training",
    ],
)
def test_whatever_is_done_meanwhile(
    project, trained, seen, ready, viewer, model, controller, qtbot, moment, act
):
    stroke(project)
    mine = project.navigator.current.mask(0)
    image, folder = project.navigator.current.id, project.project.folder
    trying = trained()
    trying.toggle()
    if moment == "shown":
        seen()
    else:
        model.open.clear()  # it is at work
    shown = layer(trying)
    if act == "remove the layer" and shown is not None:
        viewer.layers.remove(shown)
    elif act == "rename all":
        for one in viewer.layers:
            one.name = "x"
    elif act == "remove the mask":
        viewer.layers.remove(project.navigator.current.image_state.mask)
    elif act == "remove the image":
        viewer.layers.remove(project.navigator.current.image_state.image)
    elif act == "clear":
        viewer.layers.clear()
    elif act == "switch":
        project.navigator.next()
    elif act == "close the project":
        project.close()
    elif act == "close the panel":
        project.disconnect_panel()
        controller.disconnect()
    elif act == "another model":
        project.project.models.promote("cmunet-ssl", installed=True)
        project.use_current_model()
    elif act == "begin a training":
        project.training.session._run = object()
        project.preview.update()
        project.training.session._run = None
    model.open.set()
    qtbot.wait(20)
    qtbot.waitUntil(lambda: trying._job is None)
    if act != "close the panel":
        seen()
    off = ("close the project", "close the panel", "another model", "begin a training")
    if act in off or (act == "remove the layer" and shown is not None):
        assert not trying.model
        assert shown is None or shown not in viewer.layers
    if act == "close the panel":
        return
    if project.project is None:
        project.open(folder)
        ready(project)
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)


def test_without_a_candidate_it_says_so(project):
    project.preview.toggle()
    assert not project.preview.model
    assert "Fine-tune first" in project.messages.text
    assert project.preview.state() is None


def test_a_model_that_cannot_be_loaded(project, trained, seen, model):
    trying = trained()
    shutil.rmtree(project.project.models.path(NEW))
    trying.toggle()
    seen()
    assert not trying.model
    assert f"{NEW} cannot be compared" in project.messages.text


def test_by_the_button_and_its_key(
    project, trained, seen, viewer, controller, model, qtbot
):
    panel = CMUNetPanel(viewer, controller=controller)
    qtbot.addWidget(panel)
    trying = trained()
    qtbot.waitUntil(lambda: not panel.finetune.compare.isHidden())
    project.navigator.current.image_state.sources.clear()
    panel.refresh()
    assert not panel.finetune.compare.isEnabled()
    assert "not segmented yet" in panel.finetune.compare.toolTip()
    controller.segment()
    seen()
    panel.refresh()
    assert panel.finetune.compare.isEnabled()
    model.offset = 90
    panel.finetune.compare.click()
    assert trying.model == NEW
    qtbot.waitUntil(lambda: "would find" in panel.finetune.comparison.text())
    assert panel.finetune.compare.isChecked()
    assert "(I)" in panel.finetune.compare.toolTip()
    key = next(act for key, act in viewer.keymap.items() if str(key) == "I")
    key(viewer)
    qtbot.waitUntil(lambda: not panel.finetune.compare.isChecked())
    assert panel.finetune.comparison.isHidden()
    qtbot.mouseClick(panel.finetune.compare, Qt.MouseButton.LeftButton)
    panel.stop()
    assert not trying.model


@pytest.mark.parametrize("decision", [UNDECIDED, REFUSED])
def test_the_end_of_a_training_is_told_where_the_reader_looks(
    project, trained, seen, viewer, controller, qtbot, decision
):
    panel = CMUNetPanel(viewer, controller=controller)
    qtbot.addWidget(panel)
    panel.finetune_fold.title.setChecked(False)
    trained(decision)
    training = project.training.session
    training.ended.emit(training.result)
    assert NEW in project.messages.alert.text
    assert project.messages.alert.actions[0].text == "Show me"
    project.navigator.next()
    seen()
    assert project.messages.alert is not None  # also when the session goes on
    project.messages.alert.actions[0].act()
    assert project.messages.alert is None
    assert panel.finetune_fold.title.isChecked()
    training.ended.emit(training.result)
    training.decide(False) if decision == UNDECIDED else training.start()
    qtbot.waitUntil(lambda: project.messages.alert is None)  # once it is written
    training.cancel()
    qtbot.waitUntil(lambda: not training.running)
    panel.stop()
