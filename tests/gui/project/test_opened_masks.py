"""Masks of other programs for open images, without a project."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_cmunet.gui.export import origin
from napari_cmunet.gui.project import actions
from napari_cmunet.gui.project.import_masks import ImportMasksDialog
from napari_cmunet.gui.project.new_project_dialog import NewProjectDialog
from tests.gui.conftest import frame

MASK = np.zeros((32, 32), bool)
MASK[5:9, 3:25] = True


@pytest.fixture
def files(tmp_path):
    Image.fromarray(frame(1)).save(tmp_path / "a.png")
    Image.fromarray(frame(2)).save(tmp_path / "b.png")
    Image.fromarray(MASK.astype(np.uint8) * 255).save(tmp_path / "b_mask.png")
    return tmp_path


@pytest.fixture
def any_orientation(monkeypatch):
    """Noise has no orientation."""
    from napari_cmunet.project.labels import mask_matching

    monkeypatch.setattr(mask_matching, "better_orientation", lambda *_: "")


def opened(panel, viewer, settled, *paths):
    for path in paths:
        viewer.open(path, plugin="napari")
    settled(panel.controller)


def mask_of(panel, name):
    (found,) = (s for s in panel.controller.image_states if s.image.name == name)
    return found, found.mask_frame(0) != 0


def test_masks_are_paired_by_name_and_can_be_undone(
    panel, viewer, settled, files, qtbot, any_orientation, monkeypatch
):
    start = panel.project_section.start
    assert not start.masks.isEnabled()
    opened(panel, viewer, settled, files / "a.png", files / "b.png")
    _, a = mask_of(panel, "a")
    _, before = mask_of(panel, "b")
    monkeypatch.setattr(actions, "ask_what", lambda *_: [files / "b_mask.png"])
    panel.refresh()
    start.masks.click()
    qtbot.waitUntil(lambda: "1 mask loaded" in panel.controller.message)
    state, loaded = mask_of(panel, "b")
    assert np.array_equal(loaded, MASK)
    assert np.array_equal(mask_of(panel, "a")[1], a)
    assert panel.controller.active is state
    made = origin(state)
    assert (made.imported_from, made.model, made.corrected) == ("PNG", None, True)
    state.undo()
    assert np.array_equal(mask_of(panel, "b")[1], before)


def test_a_mask_of_another_name_is_of_the_shown_image(
    panel, viewer, settled, files, qtbot, any_orientation
):
    opened(panel, viewer, settled, files / "b.png", files / "a.png")
    other = (files / "b_mask.png").rename(files / "any.png")
    panel.project_section.commands.masks.load([other], files / "a.png")
    qtbot.waitUntil(lambda: "1 mask loaded" in panel.controller.message)
    assert np.array_equal(mask_of(panel, "a")[1], MASK)


def test_a_mask_of_another_size_is_refused(panel, viewer, settled, files, qtbot):
    opened(panel, viewer, settled, files / "a.png")
    _, before = mask_of(panel, "a")
    Image.fromarray(MASK[:20]).save(files / "a_mask.png")
    panel.project_section.commands.masks.load([files / "a_mask.png"], None)
    qtbot.waitUntil(lambda: panel.controller.failed)
    assert panel.controller.message == (
        "a_mask.png: the mask is 20 x 32, its image 32 x 32. Export the mask on the "
        "image's own grid."
    )
    assert np.array_equal(mask_of(panel, "a")[1], before)


def test_a_mask_opened_as_an_image_becomes_the_mask_of_its_image(
    panel, viewer, settled, files, qtbot, any_orientation
):
    messages = panel.project.messages
    opened(panel, viewer, settled, files / "a.png", files / "b.png")
    assert messages.alert is None
    opened(panel, viewer, settled, files / "b_mask.png")
    qtbot.waitUntil(lambda: messages.alert is not None)
    assert [action.text for action in messages.alert.actions] == [
        "Use as the mask of b",
        "Make a project…",
        "Leave it",
    ]
    messages.alert.actions[0].act()
    qtbot.waitUntil(lambda: "1 mask loaded" in panel.controller.message)
    assert np.array_equal(mask_of(panel, "b")[1], MASK)
    assert "b_mask" not in [layer.name for layer in viewer.layers]
    assert messages.alert is None


def test_a_project_that_is_made_for_a_mask_imports_it(
    panel, viewer, settled, files, qtbot, any_orientation, monkeypatch
):
    session = panel.project
    for dialog in (NewProjectDialog, ImportMasksDialog):
        accept = lambda made: qtbot.waitUntil(made.ok.isEnabled) or True  # noqa: E731
        monkeypatch.setattr(dialog, "exec", accept)
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(files / "home"))
    opened(panel, viewer, settled, files / "a.png", files / "b.png")
    opened(panel, viewer, settled, files / "b_mask.png")
    qtbot.waitUntil(lambda: session.messages.alert is not None)
    (make,) = (a for a in session.messages.alert.actions if "project" in a.text)
    make.act()
    qtbot.waitUntil(lambda: session.messages.text == "1 label imported.", timeout=20000)
    project = session.project
    (image,) = (
        i for i in project.images.ids() if project.images.path(i).name == "b.png"
    )
    assert np.array_equal(project.labels.get(image, 0).mask, MASK)
    assert session.overview.progress.labelled == 1
    session.close_window()
